"""Rows without their padding: laid end to end and back, and attention that sees them in columns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import base_model, float64_throughout, tiny

from coconut_lm import packing
from coconut_lm.packing import ATTENTION, Packing

CPU = torch.device("cpu")
MASKS = st.integers(2, 5).flatmap(
    lambda rows: st.integers(1, 7).flatmap(
        lambda columns: st.lists(
            st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=rows, max_size=rows
        )
    )
)


@settings(deadline=None, max_examples=80)
@given(MASKS, st.booleans())
def test_there_and_back_with_the_gradient(mask: list[list[bool]], first: bool) -> None:
    real_BW = torch.tensor(mask)
    with torch.no_grad():
        found = Packing.of(real_BW, CPU, first)
    if found is None:
        assert real_BW.all() or not real_BW.any() or not first
        return
    for laid, places_BW in [(found, real_BW)] + [(found.front, None)] * first:
        packed = torch.randn(1, int(real_BW.sum()), 3, dtype=torch.float64, requires_grad=True)
        padded = laid.unpack(packed)
        torch.testing.assert_close(laid.pack(padded), packed)
        if places_BW is not None:
            assert (padded[~places_BW] == 0).all()
        assert torch.autograd.gradcheck(laid.unpack, packed)
        loose = torch.randn(padded.shape, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(laid.pack, loose)


def test_in_front_every_row_begins_in_the_first_column() -> None:
    found = Packing.of(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]), CPU, first=True)
    assert found is not None and found.front is not None
    tokens = torch.arange(1.0, 6)[None, :, None]
    assert found.unpack(tokens)[..., 0].tolist() == [[0, 0, 1, 2], [0, 3, 4, 5]]
    assert found.front.unpack(tokens)[..., 0].tolist() == [[1, 2, 0], [3, 4, 5]]


def test_without_padding_nothing_is_packed() -> None:
    assert Packing.of(torch.ones(3, 4), CPU, first=True) is None
    assert Packing.of(torch.tensor([[0, 1]]), CPU, first=True) is None


@pytest.mark.parametrize(("family", "packs"), [("gpt2", True), ("llama", True), ("mistral", False)])
def test_attention_is_exchanged_where_all_columns_are_seen(family: str, packs: bool) -> None:
    model = tiny(family)
    assert packing.installed(model.base_causallm) == packs
    assert (model.base_causallm.config._attn_implementation == ATTENTION) == packs


def test_another_attention_is_left_alone() -> None:
    base = base_model("llama", attn_implementation="eager")
    packing.install(base)
    assert base.config._attn_implementation == "eager"


def test_padding_is_not_computed() -> None:
    """A block is given the real tokens alone."""
    model, seen = tiny("gpt2"), []
    block = model.base_causallm.transformer.h[0].mlp
    block.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[:2]))
    ids, mask = torch.ones(4, 9, dtype=torch.long), torch.ones(4, 9, dtype=torch.long)
    mask[:3, :6] = 0
    model(ids, attention_mask=mask, labels=ids)
    assert seen == [(1, 3 * 3 + 9)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_strips_of_attention_are_the_whole(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with float64_throughout(), torch.no_grad():
        model, ids = tiny(family), torch.arange(40).reshape(2, 20) % 60
        whole = model(ids).logits
        monkeypatch.setattr(packing, "STRIP", 6)
        torch.testing.assert_close(model(ids).logits, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_attends_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape = (2, 4, 9, 8)
    q, k, v = (torch.randn(shape, dtype=dtype) for _ in range(3))
    module = torch.nn.Module()
    found = packing._sdpa(module, q, k, v, None)
    exact = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), is_causal=True
    )
    assert found.dtype is dtype
    torch.testing.assert_close(found, exact.transpose(1, 2).to(dtype))
