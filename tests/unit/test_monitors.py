"""Monitors beside plain loops, gradients beside finite differences, warnings that fire and stay silent."""

import json
import math
from contextlib import nullcontext
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import END, EOS, LATENT, START, float64_throughout, tiny
from torch import Tensor, nn

from coconut_lm import CoconutForCausalLM, Noisy, add_lora
from coconut_lm.base import input_scale
from coconut_lm.feedback import Feedback, FixedWindow
from coconut_lm.monitors import (
    by_number,
    effective_rank,
    mean_cosine,
    monitor,
    shape,
    warnings,
    watched,
    window_weights,
)

IDS = torch.tensor([[3, 9, START, LATENT, LATENT, END, 7, 8, EOS], [3, 5, 6, START, LATENT, END, 7, 8, EOS]])
LABELS = IDS.where(torch.arange(9) > 5, -100)
BATCH = {"input_ids": IDS, "labels": LABELS, "columns": range(3, 5)}
HEALTHY = {
    "norm_ratio": 2.0,
    "cosine": 0.6,
    "cosine_rows": 0.5,
    "cosine_states": 0.3,
    "gradient_norms": [0.2, 0.1],
    "gradient_ratio": 0.4,
}


# -- figures --


@st.composite
def thoughts(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Vectors, and which rows think at which columns; someone thinks somewhere."""
    rows, columns, width = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(2, 6))
    is_BK = torch.tensor(
        draw(
            st.lists(
                st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=rows, max_size=rows
            )
        )
    )
    is_BK[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = True
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return torch.randn(rows, columns, width, generator=generator, dtype=torch.float64), is_BK


def listed(fed_BKD: Tensor, is_BK: Tensor) -> list[list[Tensor]]:
    return [
        [v for v, real in zip(row, reals, strict=True) if real]
        for row, reals in zip(fed_BKD, is_BK, strict=True)
    ]


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


@settings(deadline=None, max_examples=60)
@given(thoughts())
def test_figures_equal_plain_loops(given: tuple[Tensor, Tensor]) -> None:
    fed_BKD, is_BK = given
    embeddings = torch.randn(7, fed_BKD.shape[-1], dtype=torch.float64)
    found, rows = shape(fed_BKD, is_BK, embeddings), listed(fed_BKD, is_BK)
    length = sum(e.norm().item() for e in embeddings) / 7
    numbered = [[row[k] for row in rows if len(row) > k] for k in range(max(map(len, rows)))]
    close = {"rel": 1e-9, "abs": 1e-12}
    assert found["norm_ratio"] == pytest.approx(
        mean([v.norm().item() / length for row in rows for v in row]), **close
    )
    assert found["norm_ratios"] == pytest.approx(
        [mean([v.norm().item() / length for v in g]) for g in numbered], **close
    )
    for name, groups in (("cosine", rows), ("cosine_rows", numbered)):
        expected = mean([cosine(a, b) for group in groups for a, b in combinations(group, 2)])
        assert found[name] == (None if expected is None else pytest.approx(expected, **close))


@settings(deadline=None, max_examples=60)
@given(thoughts())
def test_thoughts_are_counted_within_their_rows(given: tuple[Tensor, Tensor]) -> None:
    fed_BKD, is_BK = given
    moved_BKD, moved_BK = by_number(fed_BKD, is_BK)
    assert moved_BK.sum(1).tolist() == is_BK.sum(1).tolist()
    for before, after in zip(listed(fed_BKD, is_BK), listed(moved_BKD, moved_BK), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(
        not later or now for row in moved_BK.tolist() for now, later in zip(row, row[1:], strict=False)
    )


def test_effective_rank_counts_directions() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1, abs=1e-4)
    two = torch.tensor([[3.0, 0, 0], [0, 1, 0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(two) == pytest.approx(math.exp(entropy))
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan]])))


def test_cosine_of_one_is_none() -> None:
    assert mean_cosine(torch.ones(3, 1, 2)) is None


# -- what reaches them --


class Nudged(Feedback):
    """Adds a vector to one thought of one row."""

    def __init__(self, inner: Feedback, row: int, thought: int, by_D: Tensor) -> None:
        super().__init__()
        self.inner, self.window, self.row, self.thought, self.by_D = inner, inner.window, row, thought, by_D

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        thought_BD = self.inner(h_BWD, mask_BW, index_B).clone()
        if index_B[self.row] == self.thought:
            thought_BD[self.row] += self.by_D
        return thought_BD


@torch.no_grad()
def loss_with(model: CoconutForCausalLM, row: int, thought: int, by_D: Tensor) -> float:
    inner = model.feedback
    model.feedback = Nudged(inner, row, thought, by_D * input_scale(model.config.get_text_config()))
    try:
        return model(**BATCH).loss.item()
    finally:
        model.feedback = inner


def slope(model: CoconutForCausalLM, row: int, thought: int) -> float:
    """Length of the gradient at what is fed, by central differences."""
    step = 1e-5
    steps = step * torch.eye(32, dtype=torch.float64)
    slopes = [
        (loss_with(model, row, thought, by) - loss_with(model, row, thought, -by)) / (2 * step)
        for by in steps
    ]
    return torch.tensor(slopes).norm().item()


@pytest.mark.parametrize("family", ["gpt2", "granite"])
@pytest.mark.parametrize("feedback", [None, {"kind": "learnable_weights", "latent_norm": "match_embedding"}])
def test_gradients_equal_finite_differences(family: str, feedback: dict[str, Any] | None) -> None:
    with float64_throughout() if family == "granite" else nullcontext():
        model = tiny(family, feedback=feedback)
        found = monitor(model, BATCH)
        first, second = [slope(model, 0, 0), slope(model, 1, 0)], slope(model, 0, 1)
    assert found["gradient_norms"] == pytest.approx([sum(first) / 2, second], rel=1e-5)
    assert found["decay"] == pytest.approx(second / (sum(first) / 2), rel=1e-5)


def test_the_gradient_of_thoughts_is_told_beside_that_of_tokens() -> None:
    model = tiny("gpt2")
    with watched(model.get_input_embeddings()) as embedded:
        loss = model(**BATCH).loss
    (gradient,) = torch.autograd.grad(loss, embedded)
    tokens = gradient[IDS != LATENT].norm(dim=-1).mean().item()
    found = monitor(model, BATCH)
    lengths = [found["gradient_norms"][0] * 2, found["gradient_norms"][1]]
    assert found["gradient_ratio"] == pytest.approx(sum(lengths) / 3 / tokens)


@pytest.fixture
def trained() -> CoconutForCausalLM:
    """With dropout, in training, and with gradients of its own."""
    model = tiny("gpt2", torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    model.train()
    model(**BATCH).loss.backward()
    return model


def test_the_model_is_left_as_it_was(trained: CoconutForCausalLM) -> None:
    gradients = {name: p.grad.clone() for name, p in trained.named_parameters() if p.grad is not None}
    state = torch.get_rng_state()
    first, second = monitor(trained, BATCH), monitor(trained, BATCH)
    assert first == second, "dropout is off"
    assert trained.training and all(module.training for module in trained.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p.grad, gradients[n]) for n, p in trained.named_parameters() if p.grad is not None)
    assert not trained.feedback._forward_hooks and not trained.get_input_embeddings()._forward_hooks


def test_without_gradient_around_and_with_nothing_to_train(trained: CoconutForCausalLM) -> None:
    expected = monitor(trained, BATCH)
    trained.requires_grad_(False)
    with torch.no_grad():
        assert monitor(trained, BATCH) == expected


def test_padding_does_not_count_and_neither_does_the_layout() -> None:
    """Rows that think at different columns have the figures of rows that think together."""
    model, pad = tiny("gpt2"), torch.full((2, 1), EOS)
    ids = torch.cat([pad, IDS], dim=1)
    ids[1] = torch.tensor([3, 5, 6, START, LATENT, END, 7, 8, EOS, EOS])
    mask = torch.tensor([[0] + [1] * 9, [1] * 9 + [0]])
    labels = torch.full((2, 10), -100)
    labels[0, 7:], labels[1, 6:9] = IDS[0, 6:], IDS[1, 6:]
    apart = monitor(model, {"input_ids": ids, "attention_mask": mask, "labels": labels})
    for name, value in monitor(model, BATCH).items():
        assert apart[name] == pytest.approx(value, rel=1e-9), name


# -- models --


def test_figures_are_json_in_any_precision() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        found = monitor(tiny("qwen3", dtype), BATCH)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert found["norm_ratio"] > 0 and len(found["gradient_norms"]) == 2


@pytest.mark.parametrize("family", ["llama", "gemma", "granite"])  # two scale what they read, each in its way
def test_a_matched_length_is_about_one(family: str) -> None:
    """Beside the whole vocabulary it is one; here stand the tokens of the batch."""
    found = monitor(tiny(family, feedback={"latent_norm": "match_embedding"}), BATCH)
    assert found["norm_ratio"] == pytest.approx(1, abs=0.2)
    assert found["norm_ratios"][0] == pytest.approx(found["norm_ratios"][1], rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_adapters_are_seen_through(family: str) -> None:
    model = add_lora(tiny(family, torch.float32, {"kind": "learnable_weights", "window": 2}), dropout=0.5)
    expected = monitor(tiny(family, torch.float32, {"kind": "learnable_weights", "window": 2}), BATCH)
    found = monitor(model, BATCH)  # fresh adapters change nothing
    assert found["norm_ratios"] == pytest.approx(expected["norm_ratios"], rel=1e-4)
    assert found["gradient_norms"] == pytest.approx(expected["gradient_norms"], rel=1e-3)


def test_methods_without_thoughts_have_no_figures() -> None:
    model, ids = tiny("gpt2"), IDS.where(IDS != LATENT, 4)
    assert monitor(model, BATCH | {"input_ids": ids}) == {}
    assert monitor(model, BATCH | {"input_ids": ids, "columns": range(0)}) == {}
    assert monitor(model, {"input_ids": ids, "labels": LABELS}) == {}
    assert warnings({}) == []


WINDOW = {"kind": "learnable_weights", "window": 3}


def test_window_weights_are_shares_with_the_newest_first() -> None:
    model = tiny("gpt2", feedback=WINDOW | {"projection": 8, "latent_norm": "match_embedding"})
    assert window_weights(model) == pytest.approx([1 / 3] * 3)
    (weights,) = (p for name, p in model.feedback.named_parameters() if name.endswith("latent_weights"))
    weights.data = torch.tensor([math.log(6), math.log(3), 0.0], dtype=torch.float64)
    assert window_weights(model) == pytest.approx([0.6, 0.3, 0.1])
    model.feedback = Noisy(FixedWindow((2, 1, 1)), "gaussian", 0.1)
    assert window_weights(model) == pytest.approx([0.5, 0.25, 0.25])
    assert window_weights(tiny("gpt2")) is None


def test_window_weights_are_those_that_adapters_train() -> None:
    model = add_lora(tiny("gpt2", torch.float32, WINDOW))
    for name, weights in model.named_parameters():
        if weights.requires_grad and name.endswith("latent_weights"):
            weights.data = torch.tensor([math.log(2), 0.0, 0.0])
    assert window_weights(model) == pytest.approx([0.5, 0.25, 0.25])


# -- warnings --


def test_nothing_is_said_of_health() -> None:
    assert warnings(HEALTHY) == []
    for family in ("gpt2", "llama", "gemma", "granite"):
        assert warnings(monitor(tiny(family), BATCH)) == []


class Constant(Feedback):
    """The collapse itself: the same thought whatever was read."""

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        return h_BWD[:, -1] * 0 + torch.arange(h_BWD.shape[-1]).to(h_BWD)


def test_a_collapse_is_seen() -> None:
    model = tiny("gpt2")
    model.feedback = Constant()
    found = monitor(model, BATCH)
    assert found["cosine"] == pytest.approx(1) and found["cosine_rows"] == pytest.approx(1)
    assert found["effective_rank"] == pytest.approx(1, abs=1e-6)
    said = " ".join(warnings(found))
    assert "all alike" in said and "whatever is asked" in said and "match_embedding" in said


def test_thoughts_that_nothing_depends_on_are_seen() -> None:
    early = LABELS.where(torch.arange(9) < 3, -100)
    early[:, 2] = IDS[:, 2]
    found = monitor(tiny("gpt2"), BATCH | {"labels": early})
    assert found["gradient_ratio"] == 0 and found["gradient_norms"] == [0, 0] and found["decay"] is None
    assert any("hardly depends" in said for said in warnings(found))


def test_thoughts_that_are_no_numbers_are_seen() -> None:
    model = tiny("gpt2")
    model.base_causallm.transformer.ln_f.bias.data[0] = math.nan
    assert ["not finite" in said for said in warnings(monitor(model, BATCH))] == [True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm_ratio": 50.0}, "latent_norm: match_embedding"),
        ({"norm_ratio": 0.01}, "latent_norm: match_embedding"),
        ({"cosine": 0.99}, "c_thought"),
        ({"cosine_rows": 0.99}, "whatever is asked"),
        ({"gradient_norms": [0.5, 0.2, 1e-4]}, "thought 3 gets 0.0002"),
        ({"gradient_norms": [1e-5, 0.2]}, "thought 1 gets"),
        ({"gradient_ratio": 1e-5}, "are they used"),
        ({"norm_ratio": math.inf}, "not finite"),
        ({"gradient_norms": [0.1, math.nan]}, "not finite"),
    ],
)
def test_what_is_off_is_said_with_what_may_help(change: dict[str, Any], words: str) -> None:
    (said,) = warnings(HEALTHY | change)
    assert words in said


@pytest.mark.parametrize(
    "change",
    [
        {"cosine": 0.99, "cosine_states": 0.985},  # states that all point one way: GPT-2's
        {"cosine": None, "cosine_rows": None, "gradient_norms": [0.1]},  # one thought, one row
        {"gradient_ratio": None},
        {"norm_ratio": 16.0},
    ],
)
def test_what_is_usual_is_not_warned_of(change: dict[str, Any]) -> None:
    assert warnings(HEALTHY | change) == []
