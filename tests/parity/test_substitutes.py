"""Thoughts that are replaced, and keys and values that are exchanged, against a loop over single rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny import END, EOS, FAMILIES, LATENT, START, float64_throughout, tiny
from torch import Tensor
from transformers.cache_utils import DynamicCache

from coconut_lm import CoconutForCausalLM, UserError, substitutes
from coconut_lm.answer import Answerer, Reading, read
from coconut_lm.base import input_scale
from coconut_lm.collate import Batch, collate_prompts
from coconut_lm.methods import Row
from coconut_lm.outputs import CoconutOutput
from coconut_lm.substitutes import Recorded, anothers, exchangeable, fed, interchanged, record, telling
from coconut_lm.tokens import LatentTokens

TOKENS = LatentTokens(START, END, LATENT, None, EOS, EOS)
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
WHOLE = ["gpt2", "llama", "qwen3", "gemma", "granite"]  # no window slides over their keys


def prompt(index: int, words: Sequence[int], thoughts: int) -> Row:
    ids = np.array([*words, START, *[LATENT] * thoughts, END], np.int32)
    return Row(ids, len(ids), thoughts, len(words) + 1 if thoughts else -1, index)


ROWS = [
    prompt(0, [5, 9, 2, 7, 11, 3], 3),
    prompt(1, [8, 1], 4),
    prompt(2, [3, 3, 6], 0),
    prompt(3, [12, 4, 4, 31, 2, 1], 3),
    prompt(4, [9], 1),
    prompt(5, [9, 10, 11, 6, 1, 40], 3),
]
DONORS = [3, 1, 2, 5, 4, 0]  # of as many thoughts and tokens, or oneself
Given = Callable[[int, list[Tensor]], list[Tensor]]


def answerer(model: CoconutForCausalLM) -> Answerer:
    return Answerer(model, TOKENS, 4)


def reading(model: CoconutForCausalLM, how: Any, rows: Sequence[Row] = ROWS) -> CoconutOutput:
    batch = collate_prompts(rows, TOKENS)
    with torch.no_grad():
        found: Reading = how(model, batch, batch.columns)
    return found.output


# -- slowly: one row, no cache --


def slowly(
    model: CoconutForCausalLM, row: Row, instead: Sequence[Tensor | None] | None = None
) -> tuple[list[Tensor], Tensor]:
    """The thoughts of a row, where nothing else is given, and the logits behind it."""
    ids, scale, thoughts = row.input_ids.tolist(), input_scale(model.config.get_text_config()), list[Tensor]()
    embeds = model.get_input_embeddings()(torch.tensor([ids]))
    for place in [place for place, token in enumerate(ids) if token == LATENT]:
        thought_D = model.base_causallm.base_model(inputs_embeds=embeds[:, :place]).last_hidden_state[0, -1]
        if instead is not None and (given_D := instead[len(thoughts)]) is not None:
            thought_D = given_D
        thoughts.append(thought_D)
        embeds = torch.cat([embeds[:, :place], thought_D[None, None] / scale, embeds[:, place + 1 :]], 1)
    return thoughts, model.base_causallm(inputs_embeds=embeds).logits[0, -1]


def mean(row: int, own: list[list[Tensor]]) -> list[Tensor]:
    found = []
    for place in range(len(own[row])):
        others = [each for i, each in enumerate(own) if i != row]
        there = [each[place] for each in others if len(each) > place]
        found.append(torch.stack(there or [thought for each in others for thought in each]).mean(0))
    return found


def gaussian(row: int, own: list[list[Tensor]]) -> list[Tensor]:
    found = []
    for place, thought_D in enumerate(own[row]):
        g = np.random.default_rng([7, row, place]).standard_normal(len(thought_D))
        found.append(torch.from_numpy(g / np.linalg.norm(g)) * thought_D.norm())
    return found


VECTOR = torch.linspace(-1, 1, 32, dtype=torch.float64)
CASES: dict[str, tuple[Any, Any]] = {
    "zero": (substitutes.zero, lambda row, own: [torch.zeros_like(each) for each in own[row]]),
    "mean": (substitutes.mean, mean),
    "gaussian": (substitutes.gaussian(7), gaussian),
    "first": (substitutes.first, lambda row, own: [own[row][0]] * len(own[row])),
    "constant": (substitutes.constant(VECTOR), lambda row, own: [VECTOR] * len(own[row])),
    "another's": (anothers(DONORS), lambda row, own: own[DONORS[row]]),
    "between": (
        anothers(DONORS, share=0.25),
        lambda row, own: [0.75 * a + 0.25 * b for a, b in zip(own[row], own[DONORS[row]], strict=True)],
    ),
}


@pytest.mark.parametrize("family", ["gpt2", "granite", "gemma3_text"])
@pytest.mark.parametrize("case", CASES)
def test_substitutes_are_those_of_a_loop(case: str, family: str) -> None:
    substitute, slow = CASES[case]
    with float64_throughout(), torch.no_grad():
        model = tiny(family)
        own = [slowly(model, row)[0] for row in ROWS]
        output = reading(model, fed(record(answerer(model), ROWS, 4), substitute))
        for number, row in enumerate(ROWS):
            given = slow(number, own) if row.thoughts else []
            _, logits_V = slowly(model, row, given)
            torch.testing.assert_close(output.logits[number, -1], logits_V, **CLOSE)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_thought_alone_is_replaced_and_the_rest_goes_on_from_it(place: int) -> None:
    with torch.no_grad():
        model = tiny("llama")
        output = reading(model, fed(record(answerer(model), ROWS, 4), substitutes.zero, only=place))
        for number, row in enumerate(ROWS):
            instead = [torch.zeros(32).double() if k == place else None for k in range(row.thoughts)]
            _, logits_V = slowly(model, row, instead)
            torch.testing.assert_close(output.logits[number, -1], logits_V, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("feedback", [{}, {"kind": "fixed_window", "weights": [0.6, 0.3, 0.1]}])
@pytest.mark.parametrize("family", FAMILIES)
def test_ones_own_thoughts_again_are_the_clean_run(family: str, feedback: dict[str, Any]) -> None:
    with float64_throughout():
        model = tiny(family, feedback=feedback)
        known = record(answerer(model), ROWS, 4)
        clean = reading(model, read).logits
        again = reading(model, fed(known, lambda known, rows_B: known.fed_NKD[rows_B])).logits
        torch.testing.assert_close(again, clean, rtol=1e-12, atol=1e-12)
        oneself = reading(model, fed(known, anothers(range(len(ROWS))))).logits
        torch.testing.assert_close(oneself, clean, rtol=1e-12, atol=1e-12)


def test_what_is_recorded_is_what_was_thought() -> None:
    with torch.no_grad():
        model = tiny("gpt2")
        known = record(answerer(model), ROWS, 4)
        assert (
            known.counts_N.tolist() == [row.thoughts for row in ROWS] and known.fed_NKD.dtype == torch.float64
        )
        for number, row in enumerate(ROWS):
            for k, thought_D in enumerate(slowly(model, row)[0]):
                torch.testing.assert_close(known.fed_NKD[number, k], thought_D, **CLOSE)
    small = record(answerer(tiny("gpt2", torch.bfloat16)), ROWS, 4)
    assert small.fed_NKD.dtype == torch.float32


def test_zero_is_zero_in_the_trace() -> None:
    model = tiny("gpt2")
    trace = reading(model, fed(record(answerer(model), ROWS, 4), substitutes.zero)).thoughts
    assert trace is not None and not trace.fed_BKD[trace.is_thought_BK].any()


def test_noise_is_as_long_as_the_thoughts_and_hangs_on_the_seed_alone() -> None:
    known = record(answerer(tiny("gpt2")), ROWS, 4)
    rows_B = torch.arange(len(ROWS))
    drawn = substitutes.gaussian(3)(known, rows_B)
    torch.testing.assert_close(drawn.norm(dim=-1), known.fed_NKD.norm(dim=-1))
    assert torch.equal(substitutes.gaussian(3)(known, rows_B[[4, 0]]), drawn[[4, 0]])
    assert not torch.allclose(substitutes.gaussian(4)(known, rows_B), drawn)
    assert not drawn[0].isnan().any() and not drawn.isnan().any()


def test_in_another_order_no_thought_is_where_it_was() -> None:
    known = record(answerer(tiny("gpt2")), ROWS, 4)
    moved = substitutes.shuffled(0)(known, torch.arange(len(ROWS)))
    for number, row in enumerate(ROWS):
        own, other = known.fed_NKD[number, : row.thoughts], moved[number, : row.thoughts]
        same = (own[:, None] == other[None]).all(-1)
        assert (same.sum(0) == 1).all() and (same.sum(1) == 1).all()
        assert row.thoughts == 1 or not same.diagonal().any()
    assert torch.equal(substitutes.shuffled(0)(known, torch.tensor([3])), moved[[3]])


@pytest.mark.parametrize("case", [*CASES, "shuffled"])
def test_the_same_in_any_batch(case: str) -> None:
    model = tiny("llama")
    known = record(answerer(model), ROWS, 4)
    how = fed(known, CASES[case][0] if case in CASES else substitutes.shuffled(1))
    together = answerer(model)
    together.read = how
    alone = [together([row])[0].ids for row in ROWS]
    assert [reply.ids for reply in together(ROWS)] == alone
    assert [reply.ids for reply in together(ROWS[::-1])] == alone[::-1]


def test_a_prompt_that_cannot_be_read_has_no_thoughts_to_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        if 3 in batch.index:
            raise RuntimeError("out of memory")
        return read(model, batch, columns)

    monkeypatch.setattr(substitutes, "read", failing)
    model = tiny("gpt2")
    known = record(answerer(model), ROWS, 4)
    assert known.counts_N.tolist() == [3, 4, 0, -1, 1, 3]
    assert reading(model, fed(known, substitutes.zero), ROWS[:3]).logits.shape[0] == 3
    with pytest.raises(UserError, match="could not be read"):
        reading(model, fed(known, substitutes.zero))


def test_a_batch_without_thoughts() -> None:
    model = tiny("gpt2")
    rows = [prompt(0, [3, 4], 0), prompt(1, [5], 0)]
    known = record(answerer(model), rows, 4)
    assert known.counts_N.tolist() == [0, 0]
    clean = reading(model, read, rows).logits
    swapped = reading(model, interchanged(lambda row: rows[row], TOKENS, "thoughts"), rows).logits
    assert torch.equal(swapped, clean)


# -- keys and values --


def cached(model: CoconutForCausalLM, row: Row) -> DynamicCache:
    """The keys and values up to the last thought, of one row read whole."""
    scale = input_scale(model.config.get_text_config())
    thoughts, _ = slowly(model, row)
    embeds = model.get_input_embeddings()(torch.from_numpy(row.input_ids.astype(np.int64))[None])
    embeds[0, row.input_ids == LATENT] = torch.stack(thoughts) / scale
    cache = DynamicCache(config=model.config.get_text_config())
    model.base_causallm.base_model(inputs_embeds=embeds[:, :-1], past_key_values=cache, use_cache=True)
    return cache


def slowly_interchanged(model: CoconutForCausalLM, row: Row, donor: Row, what: str) -> Tensor:
    mine, theirs = cached(model, row), cached(model, donor)
    for place, token in enumerate(row.input_ids[:-1].tolist()):
        if (token == LATENT) == (what == "thoughts"):
            for layer, other in zip(mine.layers, theirs.layers, strict=True):
                layer.keys[:, :, place] = other.keys[:, :, place]
                layer.values[:, :, place] = other.values[:, :, place]
    end = model.get_input_embeddings()(torch.tensor([[END]]))
    return model.base_causallm(inputs_embeds=end, past_key_values=mine).logits[0, -1]


@pytest.mark.parametrize("what", ["thoughts", "question"])
@pytest.mark.parametrize("family", WHOLE)
def test_interchanged_as_one_by_one(family: str, what: Any) -> None:
    with float64_throughout(), torch.no_grad():
        model = tiny(family)
        output = reading(model, interchanged(lambda row: ROWS[DONORS[row]], TOKENS, what))
        for number, row in enumerate(ROWS):
            if row.thoughts:
                logits_V = slowly_interchanged(model, row, ROWS[DONORS[number]], what)
                torch.testing.assert_close(output.logits[number, -1], logits_V, **CLOSE)
        clean = reading(model, read).logits
        differ = (output.logits - clean).abs().amax((1, 2)) > 1e-6
        assert differ.tolist() == [donor != number for number, donor in enumerate(DONORS)]


@pytest.mark.parametrize("what", ["thoughts", "question"])
def test_interchanged_with_oneself_nothing_changes(what: Any) -> None:
    with float64_throughout():
        model = tiny("llama")
        output = reading(model, interchanged(lambda row: ROWS[row], TOKENS, what))
        torch.testing.assert_close(output.logits, reading(model, read).logits, rtol=1e-12, atol=1e-12)


def test_what_follows_sees_the_exchanged_cache_in_any_batch() -> None:
    model = tiny("gpt2")
    asked = answerer(model)
    asked.read = interchanged(lambda row: ROWS[DONORS[row]], TOKENS, "thoughts")
    alone = [asked([row])[0].ids for row in ROWS]
    assert [reply.ids for reply in asked(ROWS)] == alone
    clean = [reply.ids for reply in answerer(model)(ROWS)]
    assert [a != b for a, b in zip(alone, clean, strict=True)] == [True, False, False, True, False, True]


def test_windows_cannot_be_exchanged() -> None:
    assert [family for family in FAMILIES if exchangeable(tiny(family))] == WHOLE


def test_notes_are_of_the_example() -> None:
    model = tiny("gpt2")
    asked = answerer(model)
    asked.read = telling(read, [{"donor": donor} for donor in DONORS])
    assert [reply.notes["donor"] for reply in asked(ROWS[::-1])] == DONORS[::-1]


def test_a_mean_without_others_at_that_place_is_that_of_all_others() -> None:
    fed_NKD = torch.tensor([[[1.0], [5.0]], [[3.0], [0.0]], [[7.0], [0.0]]])
    known = Recorded(fed_NKD, torch.tensor([2, 1, 1]))
    given = substitutes.mean(known, torch.tensor([0, 1]))
    assert given[0].tolist() == [[5.0], [5.0]] and given[1, 0].tolist() == [4.0]
