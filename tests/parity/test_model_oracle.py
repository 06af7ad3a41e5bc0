"""The batched, cached, padded forward equals one row at a time without any of that: losses and gradients in
float64, every architecture, every feedback."""

from typing import Any

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import FEEDBACKS, ROWS, Row, exact, row
from tiny import EOS, FAMILIES, LATENT, float64_throughout, tiny
from torch import Tensor

from coconut_lm import CoconutForCausalLM


def aligned(rows: list[Row], extra_left: int = 0) -> dict[str, Any]:
    """First latents in one column, pads at both ends: written here anew, to judge the library's collation."""
    first = [ids.index(LATENT) if LATENT in ids else None for ids, _ in rows]
    place = max((f for f in first if f is not None), default=0) + extra_left
    left = [place - f if f is not None else 0 for f in first]
    total = max(pad + len(ids) for pad, (ids, _) in zip(left, rows, strict=True))

    def grid(values: list[list[int]], fill: int) -> Tensor:
        return torch.tensor(
            [[fill] * p + v + [fill] * (total - p - len(v)) for p, v in zip(left, values, strict=True)]
        )

    last = max(
        (
            pad + len(ids) - 1 - ids[::-1].index(LATENT)
            for pad, (ids, _) in zip(left, rows, strict=True)
            if LATENT in ids
        ),
        default=-1,
    )
    return {
        "input_ids": grid([ids for ids, _ in rows], EOS),
        "labels": grid([labels for _, labels in rows], -100),
        "attention_mask": grid([[1] * len(ids) for ids, _ in rows], 0),
        "position_ids": grid([list(range(len(ids))) for ids, _ in rows], 0),
        "columns": range(place, last + 1) if last >= 0 else (),
    }


def oracle_feedback(model: CoconutForCausalLM) -> reference.Feedback:
    """The model's feedback for one row, counting its thoughts."""
    count = 0

    def feed(history_TD: Tensor) -> Tensor:
        nonlocal count
        states = history_TD[None, -model.feedback.window :]
        count += 1
        return model.feedback(states, torch.ones(states.shape[:2]), torch.tensor([count - 1]))[0]

    return feed


def oracle_loss(model: CoconutForCausalLM, rows: list[Row]) -> Tensor:
    """The mean over all supervised tokens, each row by itself."""
    sums, count = [], 0
    for ids, labels in rows:
        supervised = sum(label != -100 for label in labels[1:])
        loss = reference.oracle_loss(model.base_causallm, LATENT, [(ids, labels)], oracle_feedback(model))
        sums.append(loss * supervised)
        count += supervised
    return torch.stack(sums).sum() / count


def assert_same(model: CoconutForCausalLM, loss: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours = torch.autograd.grad(loss, parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    assert loss.item() == pytest.approx(expected.item(), abs=tolerance)
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(
                a, b, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_the_oracle(family: str, feedback: str) -> None:
    with float64_throughout():
        model = exact(family, FEEDBACKS[feedback])
        assert_same(model, model(**aligned(ROWS)).loss, oracle_loss(model, ROWS))


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gpt_oss"])
def test_activation_checkpointing_changes_nothing(family: str) -> None:
    with float64_throughout():
        model = exact(family, FEEDBACKS["learned window"])
        expected = oracle_loss(model, ROWS)
        model.train()
        model.activation_checkpointing_enable()
        assert_same(model, model(**aligned(ROWS)).loss, expected)
        model.activation_checkpointing_disable()
        assert_same(model, model(**aligned(ROWS)).loss, oracle_loss(model, ROWS))


tokens = st.lists(st.integers(0, 62), min_size=1, max_size=7)
any_row = st.builds(row, tokens, st.integers(0, 5), tokens)
MODELS: dict[str, CoconutForCausalLM] = {}


def shared(family: str) -> CoconutForCausalLM:
    """Made once: hypothesis asks often."""
    if family not in MODELS:
        MODELS[family] = exact(family, FEEDBACKS["fixed window"])
    return MODELS[family]


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
@settings(deadline=None, max_examples=25)
@given(rows=st.lists(any_row, min_size=1, max_size=5), extra=st.integers(0, 3), data=st.data())
def test_padding_order_and_batch_splits_do_not_matter(
    family: str, rows: list[Row], extra: int, data: st.DataObject
) -> None:
    with float64_throughout(), torch.no_grad():
        model = shared(family)
        expected = oracle_loss(model, rows).item()
        shuffled = data.draw(st.permutations(rows))
        assert model(**aligned(shuffled, extra)).loss.item() == pytest.approx(expected, abs=1e-10)
        cut = data.draw(st.integers(0, len(rows)))
        total = sum(label != -100 for _, labels in rows for label in labels[1:])
        parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
        loss = sum(model(**aligned(part), num_items_in_batch=total).loss.item() for part in parts)
        assert loss == pytest.approx(expected, abs=1e-10)


def test_known_columns_and_found_columns_are_one() -> None:
    model, batch = tiny("gpt2"), aligned(ROWS)
    known = model(**batch)
    found = model(**(batch | {"columns": None}))
    assert torch.equal(known.logits, found.logits)


def test_without_labels_all_logits_come_and_equal_the_base_where_nothing_is_thought() -> None:
    for family in FAMILIES:
        model = tiny(family)
        ids = torch.tensor([[3, 8, 1, 60, 2]])
        torch.testing.assert_close(model(ids).logits, model.base_causallm(ids).logits)
        torch.testing.assert_close(
            model(ids, logits_to_keep=2).logits, model.base_causallm(ids).logits[:, -2:]
        )
