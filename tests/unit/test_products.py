"""Products by oneDNN: the same numbers and gradients, in layers that stay what they were."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from coconut_lm import products
from coconut_lm.products import FastConv1D, FastLinear, install

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor, and for the smallest of products."""
    monkeypatch.setattr(products, "pays", lambda: True)
    monkeypatch.setattr(products, "WORTH", 0)


LAYERS = {
    "linear": lambda: nn.Linear(24, 40),
    "no bias": lambda: nn.Linear(24, 40, bias=False),
    "conv": lambda: Conv1D(40, 24),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(24,), (7, 24), (3, 5, 24), (0, 24)], ids=str)
def test_numbers_and_gradients_are_those_of_torch(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    layer = LAYERS[kind]()
    fast = copy.deepcopy(layer)
    install(fast)
    assert type(fast) in (FastLinear, FastConv1D)
    found = []
    for each in (layer, fast):
        x = torch.arange(24.0).expand(shape).sin().requires_grad_()
        y = each(x)
        y.square().sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(each(x), y)
        found.append([y, x.grad, *(weight.grad for weight in each.parameters())])
    torch.testing.assert_close(*found)


def test_layers_stay_what_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Conv1D(4, 4))
    names = list(model.state_dict())
    install(model)
    install(model)
    assert [type(layer) for layer in model] == [FastLinear, nn.ReLU, FastConv1D]
    assert isinstance(model[0], nn.Linear) and isinstance(model[2], Conv1D)
    assert list(model.state_dict()) == names
    assert isinstance(copy.deepcopy(model)[0], FastLinear)


def test_special_layers_are_left_alone() -> None:
    class Quantised(nn.Linear):
        pass

    layer = Quantised(4, 4)
    install(layer)
    assert type(layer) is Quantised


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_go_torchs_way(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 8, dtype=dtype)
    x = torch.ones(2, 8, dtype=dtype)
    expected = layer(x)
    install(layer)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_autocast_goes_torchs_way() -> None:
    layer = nn.Linear(8, 8)
    install(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 8)).dtype is torch.bfloat16


def test_frozen_weights_get_no_gradient() -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    install(layer)
    x = torch.ones(2, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad is not None


def test_where_torch_is_fast_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "pays", lambda: False)
    layer = nn.Linear(8, 8)
    install(layer)
    assert type(layer) is nn.Linear
