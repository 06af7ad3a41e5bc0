"""Rows without their padding: laid end to end and back, and attention that sees them in columns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LATENT, base_model, float64_throughout, tiny

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
        found = Packing.found(real_BW, CPU, first)
    if found is None:
        assert real_BW.all() or not real_BW.any() or not first
        return
    packed = torch.randn(1, int(real_BW.sum()), 3, dtype=torch.float64, requires_grad=True)
    padded = found.unpack(packed)
    assert (padded[~real_BW] == 0).all()
    parts = packed.detach().split([group.tokens for group in found.groups], 1)
    for laid, each in [(found, packed), *zip((group.layout for group in found.groups), parts, strict=True)]:
        part = each.detach().clone().requires_grad_()
        padded = laid.unpack(part)
        torch.testing.assert_close(laid.pack(padded), part)
        assert torch.autograd.gradcheck(laid.unpack, part)
        loose = torch.randn(padded.shape, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(laid.pack, loose)


def test_in_front_every_row_begins_in_the_first_column() -> None:
    found = Packing.found(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]), CPU, first=True)
    assert found is not None and len(found.groups) == 1
    tokens = torch.arange(1.0, 6)[None, :, None]
    assert found.unpack(tokens)[..., 0].tolist() == [[0, 0, 1, 2], [0, 3, 4, 5]]
    assert found.groups[0].layout.unpack(tokens)[..., 0].tolist() == [[1, 2, 0], [3, 4, 5]]


def test_a_group_is_as_wide_as_its_longest_row() -> None:
    real_BW = torch.zeros(3 * packing.GROUP, 9, dtype=torch.bool)
    real_BW[: packing.GROUP, :4] = True
    real_BW[2 * packing.GROUP :, :7] = True
    found = Packing.found(real_BW, CPU, first=False)
    assert found is not None
    assert [group.layout.columns for group in found.groups] == [4, 0, 7]
    assert [group.tokens for group in found.groups] == [32, 0, 56]
    assert [group.rows for group in found.groups] == [8, 8, 8]


def test_without_padding_nothing_is_packed() -> None:
    assert Packing.found(torch.ones(3, 4), CPU, first=True) is None
    assert Packing.found(torch.tensor([[0, 1]]), CPU, first=True) is None


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
@pytest.mark.parametrize("thoughts", [0, 2])
def test_groups_change_no_number(family: str, thoughts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows padded on both sides of their thoughts, or on the right alone."""
    ids = torch.arange(90).reshape(6, 15) % 60
    ids[:, 6 : 6 + thoughts] = LATENT
    left = torch.tensor([0, 3, 5, 2, 0, 15]) * (thoughts > 0)  # the last has no token at all
    mask = (torch.arange(15) >= left[:, None]) & (torch.arange(15) < torch.tensor([[9, 15, 12, 10, 9, 14]]).T)
    labels = ids.masked_fill(~mask | (torch.arange(15) < 8), -100)
    found = []
    for size in (1, 2, 100):
        monkeypatch.setattr(packing, "GROUP", size)
        with float64_throughout():
            model = tiny(family)
            loss = model(ids, attention_mask=mask.long(), labels=labels).loss
            loss.backward()
        found.append([loss, *(weight.grad for weight in model.parameters())])
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])


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
