"""The model on MLX and on torch: the same logits, loss and gradients, and the same weights back."""

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from goldenforward import RECORDED, recorded_model, row
from goldenforward import TOKENS as GOLDEN_TOKENS
from mixed import FEEDBACKS, ROWS, exact
from tiny import COMMON, EOS, LATENT, START, tiny
from tiny import FAMILIES as FAMILIES_OF_TORCH

from coconut_lm import CoconutForCausalLM, UserError
from coconut_lm.collate import Batch, collate
from coconut_lm.mlx import model as mlx
from coconut_lm.mlx.bridge import to_mlx, to_torch
from coconut_lm.tokens import LatentTokens

FAMILIES = ["gpt2", "llama", "qwen3", "gpt_oss"]
TOKENS = LatentTokens(start=START, end=65, latent=LATENT, pause=None, pad=EOS, eos=EOS)
BATCH = collate([row(ids, labels.count(-100)) for ids, labels in ROWS], TOKENS)


def calm(family: str, feedback: str) -> CoconutForCausalLM:
    """Float32. With the large weights of the other tests it would be noise that is compared: either side is
    then as far from float64 as both are from each other."""
    model = exact(family, FEEDBACKS[feedback]).float()
    with torch.no_grad():
        for parameter in model.base_causallm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.4)
    return model


def tensors(batch: Batch) -> dict[str, Any]:
    names = ("input_ids", "attention_mask", "position_ids")
    return {name: torch.from_numpy(getattr(batch, name)) for name in names} | {"columns": batch.columns}


def gradients(net: mlx.Coconut, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss, and the gradients under torch's names."""
    loss, found = nn.value_and_grad(net, mlx.loss)(net, batch, len(batch.supervised))
    net.update(found)
    return loss.item(), mlx.give_back(net)


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_loss_and_gradients_are_those_of_torch(family: str, feedback: str) -> None:
    model = calm(family, feedback)
    net = mlx.of(model)
    hidden = net(mx.array(BATCH.input_ids), mx.array(BATCH.attention_mask), BATCH.columns).hidden_BTD
    real = torch.from_numpy(BATCH.attention_mask).bool()
    expected = model(**tensors(BATCH)).logits[real]
    torch.testing.assert_close(to_torch(net.logits(hidden))[real], expected, rtol=0, atol=1e-5)
    theirs = model(**tensors(BATCH), labels=torch.from_numpy(BATCH.labels)).loss
    theirs.backward()
    loss, found = gradients(net, BATCH)
    assert loss == pytest.approx(theirs.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            apart = (found[name] - parameter.grad).norm() / parameter.grad.norm().clamp_min(1e-6)
            assert apart < 1e-5, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_bit_for_bit(family: str, dtype: torch.dtype) -> None:
    model = tiny(family, dtype, {"kind": "fixed_window", "projection": 16, "latent_norm": "match_embedding"})
    state, back = model.state_dict(), mlx.give_back(mlx.of(model))
    assert state.keys() == back.keys()
    assert all(torch.equal(state[name], back[name]) for name in state)
    assert all(state[name].dtype == back[name].dtype for name in state)


def test_what_is_kept_and_not_trained_is_no_parameter() -> None:
    """Masks and the weights of a fixed window: trained, they would spoil attention and thoughts."""
    model = tiny("gpt2", torch.float32, {"kind": "fixed_window", "latent_norm": "match_embedding"})
    net = mlx.of(model)
    count = sum(array.size for _, array in mlx.tree_flatten(net.trainable_parameters()))
    assert count == sum(parameter.numel() for parameter in model.parameters())


def test_the_recorded_figures_hold() -> None:
    """Those of the published code."""
    batch = collate(
        [row(item["input_ids"], item["labels"].count(-100)) for item in RECORDED["rows"]], GOLDEN_TOKENS
    )
    net = mlx.of(recorded_model())
    loss, found = gradients(net, batch)
    assert loss == pytest.approx(RECORDED["loss"], abs=1e-6)
    norms = {name: found["base_causallm." + name].norm().item() for name in RECORDED["grad_norms"]}
    assert norms == pytest.approx(RECORDED["grad_norms"], rel=1e-4, abs=0)


def test_thoughts_matter_to_these_figures() -> None:
    net = mlx.of(calm("gpt2", "last hidden"))
    thinking = mlx.loss(net, BATCH, 1).item()
    net.latent = -1
    assert abs(mlx.loss(net, BATCH, 1).item() - thinking) > 1e-3


def test_padding_alone_is_finite_and_counts_nothing() -> None:
    """A row more on either side of a batch changes neither loss nor gradients."""
    net = mlx.of(calm("llama", "matched to embeddings"))
    wide = collate([row(ids, labels.count(-100)) for ids, labels in ROWS], TOKENS, pad_to_multiple=16)
    (loss, one), (again, other) = (
        gradients(net, BATCH),
        gradients(mlx.of(calm("llama", "matched to embeddings")), wide),
    )
    assert loss == pytest.approx(again, abs=1e-6)
    assert all(torch.isfinite(one[name]).all() for name in one)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_it_compiles_with_places_filled_up() -> None:
    net = mlx.of(calm("qwen3", "learned window"))
    where = np.append(BATCH.supervised, [0, 0])
    targets = np.append(BATCH.labels.ravel()[BATCH.supervised + 1], [-100, -100])
    compiled = mx.compile(partial(mlx.summed, net, columns=BATCH.columns))
    arrays = map(mx.array, (BATCH.input_ids, BATCH.attention_mask, where, targets))
    assert compiled(*arrays).item() == pytest.approx(mlx.loss(net, BATCH, 1).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_numbers_cross_as_they_are(dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 4).mul(100).to(dtype)
    assert torch.equal(to_torch(to_mlx(tensor)), tensor)
    assert to_torch(to_mlx(tensor)).dtype == dtype


@pytest.mark.parametrize("family", ["mistral", "phi3", "granite"])
def test_other_architectures_think_too(family: str) -> None:
    """Those that scale what they are handed, see a window that mlx_lm leaves out, or take ids alone."""
    model = calm(family, "fixed window")
    theirs = model(**tensors(BATCH), labels=torch.from_numpy(BATCH.labels)).loss
    theirs.backward()
    loss, found = gradients(mlx.of(model), BATCH)
    assert loss == pytest.approx(theirs.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        apart = (found[name] - parameter.grad).norm() / parameter.grad.norm().clamp_min(1e-6)
        assert apart < 1e-4, name


@pytest.mark.parametrize(
    ("family", "why"),
    [("gemma2", "mlx_lm's reads no batches"), ("gemma", "other weights"), ("gpt_neox", "asks for more")],
)
def test_an_architecture_that_cannot_think_here_says_so(
    family: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks of one row, a head where mlx_lm knows none, keys that it does not find."""
    monkeypatch.setitem(FAMILIES_OF_TORCH, "gpt_neox", COMMON)
    monkeypatch.setitem(
        FAMILIES_OF_TORCH, "gemma2", FAMILIES_OF_TORCH["gemma2"] | {"tie_word_embeddings": True}
    )
    with pytest.raises(UserError, match=why):
        mlx.of(tiny(family, torch.float32))
