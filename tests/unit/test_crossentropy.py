"""The loss in the place of its logits: the same number and gradient as torch's."""

import pytest
import torch
import torch.nn.functional as F

from coconut_lm import crossentropy
from coconut_lm.crossentropy import summed


@pytest.mark.parametrize("positions", [0, 1, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_torchs(
    positions: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossentropy, "PART", 4)
    torch.manual_seed(0)
    given = (20 * torch.randn(positions, 13)).to(dtype)
    targets = torch.arange(positions) % 13
    found = []
    for spend in (False, True):
        leaf = given.clone().requires_grad_()
        loss = summed(leaf * 1, targets, spend)
        (0.5 * loss).backward()
        found.append((loss, leaf.grad))
    torch.testing.assert_close(found[1], found[0])
    assert found[0][0].dtype is (torch.float64 if dtype is torch.float64 else torch.float32)


def test_a_gradient_takes_the_place_of_the_logits() -> None:
    logits = torch.randn(5, 7, requires_grad=True) * 1
    place, seen = logits.data_ptr(), []
    logits.register_hook(lambda grad: seen.append(grad.data_ptr()))
    summed(logits, torch.arange(5), spend=True).backward()
    assert seen == [place]


def test_without_gradient_the_logits_stay() -> None:
    logits, targets = torch.randn(5, 7), torch.arange(5)
    before = logits.clone()
    with torch.no_grad():
        loss = summed(logits, targets, spend=True)
    assert torch.equal(logits, before)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, reduction="sum"))
