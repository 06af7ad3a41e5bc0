"""Branches that share what comes before their noise are those that a slow loop reads one by one."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import END, EOS, FAMILIES, LATENT, START, float64_throughout, tiny
from torch import Tensor

from coconut_lm import CoconutForCausalLM
from coconut_lm.answer import Answerer, Reading
from coconut_lm.base import input_scale
from coconut_lm.collate import collate_prompts
from coconut_lm.evaluate import Reply
from coconut_lm.interventions import branched, noisy, sampled
from coconut_lm.methods import Row
from coconut_lm.noise import scale_key
from coconut_lm.tokens import LatentTokens

TOKENS = LatentTokens(START, END, LATENT, None, EOS, EOS)
BRANCHES, SCALE, SEED = 3, 0.7, 5


def prompt(index: int, words: Sequence[int], thoughts: int) -> Row:
    ids = np.array([*words, START, *[LATENT] * thoughts, END], np.int32)
    return Row(ids, len(ids), thoughts, len(words) + 1 if thoughts else -1, index)


# Of all lengths; in the order of their ends, the first thoughts stand at columns 7, 3, none, 6 and 4.
ROWS = [
    prompt(4, [5, 9, 2, 7, 11, 3], 2),
    prompt(0, [8, 1], 4),
    prompt(7, [3, 3, 6], 0),
    prompt(2, [12, 4, 4, 4, 31], 3),
    prompt(1, [9], 3),
]


def reading(model: CoconutForCausalLM, read: Any, rows: Sequence[Row] = ROWS) -> Reading:
    batch = collate_prompts(rows, TOKENS)
    with torch.no_grad():
        found: Reading = read(model, batch, batch.columns)
    return found


def slowly(model: CoconutForCausalLM, row: Row, branch: int, step: int) -> tuple[list[Tensor], Tensor]:
    """The thoughts of one branch and the logits behind its prompt: no cache, no batch, noise by hand."""
    ids, scale, thoughts = row.input_ids.tolist(), input_scale(model.config.get_text_config()), list[Tensor]()
    embeds = model.get_input_embeddings()(torch.tensor([ids]))
    for place in [place for place, token in enumerate(ids) if token == LATENT]:
        h_D = model.base_causallm.base_model(inputs_embeds=embeds[:, :place]).last_hidden_state[0, -1]
        if (number := len(thoughts)) >= step - 1:
            draws = np.random.default_rng([SEED, row.index, scale_key(SCALE), branch, number])
            g_D = torch.from_numpy(draws.standard_normal(len(h_D)))
            h_D = h_D + SCALE * h_D.norm() * g_D / (g_D.norm() + 1e-8)
        thoughts.append(h_D / scale)
        embeds = torch.cat([embeds[:, :place], thoughts[-1][None, None], embeds[:, place + 1 :]], 1)
    return thoughts, model.base_causallm(inputs_embeds=embeds).logits[0, -1]


@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_branches_from_one_prefix_are_those_read_alone(family: str, step: int) -> None:
    with float64_throughout(), torch.no_grad():
        model = tiny(family)
        read = noisy("gaussian_scaled", SCALE, branches=BRANCHES, start=step - 1, seed=SEED)
        output = reading(model, read).output
        for number, row in enumerate(ROWS):
            for branch in range(BRANCHES):
                place = number * BRANCHES + branch
                thoughts, logits_V = slowly(model, row, branch, step)
                fed_KD = output.thoughts.fed_BKD[place, output.thoughts.is_thought_BK[place]]
                assert len(fed_KD) == len(thoughts) == row.thoughts
                for fed_D, slow_D in zip(fed_KD, thoughts, strict=True):
                    torch.testing.assert_close(fed_D, slow_D, rtol=1e-10, atol=1e-10)
                torch.testing.assert_close(output.logits[place, -1], logits_V, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_comes_before_the_noise_is_the_same_in_all_branches(step: int) -> None:
    """To the bit: it is read once. What comes after differs in all of them."""
    read = noisy("gaussian", SCALE, branches=BRANCHES, start=step - 1, seed=SEED)
    trace = reading(tiny("gpt2", torch.float32), read).output.thoughts
    real_BK = trace.is_thought_BK
    late_BK = real_BK & (real_BK.cumsum(1) >= step)
    for row in range(0, len(real_BK), BRANCHES):
        for one, other in combinations(range(row, row + BRANCHES), 2):
            early_K = real_BK[one] & ~late_BK[one]
            assert torch.equal(trace.fed_BKD[one, early_K], trace.fed_BKD[other, early_K])
            apart_K = (trace.fed_BKD[one] - trace.fed_BKD[other])[late_BK[one]].norm(dim=-1)
            assert (apart_K > 0.1).all()


def test_noise_on_one_thought_leaves_the_next_ones_to_the_model() -> None:
    read = noisy("gaussian_scaled", SCALE, branches=BRANCHES, where="first", start=1, seed=SEED)
    found = reading(tiny("llama"), read)
    told = [(note["diagnostics"] or {}).get("scale_ratio") for note in found.notes or ()]
    assert told == [
        ratio for row in ROWS for ratio in [pytest.approx(SCALE) if row.thoughts > 1 else None] * 3
    ]
    read = noisy("gaussian_scaled", SCALE, branches=BRANCHES, start=1, seed=SEED)
    later = reading(tiny("llama"), read)
    trace, other = found.output.thoughts, later.output.thoughts
    second_BK = trace.is_thought_BK & (trace.is_thought_BK.cumsum(1) == 2)
    third_BK = trace.is_thought_BK & (trace.is_thought_BK.cumsum(1) == 3)
    assert torch.equal(trace.fed_BKD[second_BK], other.fed_BKD[second_BK])
    assert ((trace.fed_BKD - other.fed_BKD)[third_BK].norm(dim=-1) > 0.1).all()


def test_how_far_branches_are_apart_is_told_of_thoughts_after_the_parting() -> None:
    for step in (1, 2, 4):
        read = noisy("uniform", SCALE, branches=BRANCHES, start=step - 1, seed=SEED)
        found = reading(tiny("gpt2"), read)
        trace = found.output.thoughts
        for number, row in enumerate(ROWS):
            rows = range(number * BRANCHES, (number + 1) * BRANCHES)
            paths = [trace.fed_BKD[place, trace.is_thought_BK[place]][step - 1 :] for place in rows]
            pairs = [(a - b).norm(dim=-1).mean().item() for a, b in combinations(paths, 2) if len(a)]
            notes = [(found.notes or ())[place]["spread"] for place in rows]
            assert notes[0] == notes[1] == notes[2]
            assert (notes[0] is None) == (row.thoughts < step)
            if notes[0]:
                assert notes[0]["d_k"] == pytest.approx(sum(pairs) / 3)
    still = reading(tiny("gpt2"), branched(BRANCHES))
    assert {note["spread"] and note["spread"]["d_k"] for note in still.notes or ()} == {None, 0.0}


# -- what is written --


def asked(model: CoconutForCausalLM, rows: Sequence[Row], size: int, **how: Any) -> dict[int, list[Reply]]:
    answerer = Answerer(model, TOKENS, 6, branches=BRANCHES, scored=True, **how)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return {
        row.index: replies
        for batch in batches
        for row, replies in zip(batch, answerer.branched(batch), strict=True)
    }


def test_greedy_branches_differ_by_their_noise_alone() -> None:
    model = tiny("llama")
    loud = asked(model, ROWS, 5, read=noisy("gaussian_scaled", 2.0, branches=BRANCHES))
    still = asked(model, ROWS, 5, read=branched(BRANCHES))
    for row in ROWS:
        texts = [reply.ids for reply in loud[row.index]]
        assert len(set(texts)) == (BRANCHES if row.thoughts else 1), row.index
        assert len({reply.ids for reply in still[row.index]}) == 1
    assert all(still[7][0].ids == reply.ids for reply in loud[7])  # without thoughts there is no noise


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_noise_of_scale_zero_is_no_noise(temperature: float) -> None:
    """The same texts by the same chance; nothing is left of where the noise would have been."""
    with float64_throughout():
        picks = sampled(temperature, 0.9, seed=1)
        still = asked(tiny("llama"), ROWS, 5, read=branched(BRANCHES), picks=picks)
        for kind in ("gaussian", "gaussian_scaled", "dropout", "targeted_same"):
            silent = asked(tiny("llama"), ROWS, 5, read=noisy(kind, 0.0, branches=BRANCHES), picks=picks)
            for index, replies in still.items():
                assert [reply.ids for reply in silent[index]] == [reply.ids for reply in replies]
                assert silent[index][0].logprob == pytest.approx(replies[0].logprob, rel=1e-12)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 5), st.integers(1, 4), st.permutations(ROWS))
def test_branches_are_the_same_in_any_batch_and_order(size: int, step: int, rows: list[Row]) -> None:
    with float64_throughout():
        model = tiny("llama")
        how: dict[str, Any] = {
            "read": noisy("orthogonal", SCALE, branches=BRANCHES, start=step - 1, schedule="linear", seed=2),
            "picks": sampled(0.7, 0.9, seed=2),
        }
        alone, together = asked(model, ROWS, 1, **how), asked(model, rows, size, **how)
    for index, replies in alone.items():
        for one, other in zip(replies, together[index], strict=True):
            assert one.ids == other.ids
            assert one.logprob == pytest.approx(other.logprob, rel=1e-9)
            assert one.thought_norms == pytest.approx(other.thought_norms, rel=1e-9)


def test_the_first_branches_are_the_same_whatever_their_number() -> None:
    """So that a majority of the first three of nine is that of three."""
    model, picks = tiny("gpt2"), sampled(0.7, 0.9)
    for branches in (1, 2):
        read = noisy("gaussian_scaled", SCALE, branches=branches)
        few = Answerer(model, TOKENS, 6, branches=branches, read=read, picks=picks).branched(ROWS)
        read = noisy("gaussian_scaled", SCALE, branches=4)
        many = Answerer(model, TOKENS, 6, branches=4, read=read, picks=picks).branched(ROWS)
        assert [[r.ids for r in each] for each in few] == [[r.ids for r in each[:branches]] for each in many]
