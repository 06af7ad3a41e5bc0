"""Prompts read otherwise: what is read in two parts, in another layer or under noise equals a slow loop."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import END, EOS, FAMILIES, LATENT, START, float64_throughout, tiny
from torch import Tensor

from coconut_lm import CoconutForCausalLM, UserError
from coconut_lm.answer import Answerer, read
from coconut_lm.collate import collate_prompts
from coconut_lm.evaluate import Reply
from coconut_lm.interventions import fan_out, fed_by, noisy, nucleus, sampled
from coconut_lm.methods import Row
from coconut_lm.noise import KINDS
from coconut_lm.tokens import LatentTokens

FEEDBACKS: dict[str, dict[str, Any]] = {
    "last hidden": {},
    "learned window": {"kind": "learnable_weights", "window": 4},
    "window of the first pass": {"kind": "learnable_weights", "window": 3, "scope": "pass"},
}
TOKENS = LatentTokens(START, END, LATENT, None, EOS, EOS)


def prompt(index: int, words: Sequence[int], thoughts: int) -> Row:
    ids = np.array([*words, START, *[LATENT] * thoughts, END], np.int32)
    return Row(ids, len(ids), thoughts, len(words) + 1 if thoughts else -1, index)


def prompts(count: int, seed: int = 0, least: int = 0) -> list[Row]:
    rng = random.Random(seed)
    return [
        prompt(i, [rng.randrange(63) for _ in range(rng.randint(1, 9))], rng.randint(least, 4))
        for i in range(count)
    ]


def columns_of(model: CoconutForCausalLM, rows: Sequence[Row]) -> Any:
    return collate_prompts(rows, TOKENS).columns


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_who_goes_on_from_a_trail_reads_the_same(family: str, feedback: str) -> None:
    """Wherever the text is parted: before, within and after the thoughts, and where a row has not begun."""
    rows = [prompt(0, [5, 9, 2, 7], 3), prompt(1, [3], 4), prompt(2, [8, 1, 4, 4, 4, 4, 4, 4], 1)]
    batch = collate_prompts(rows, TOKENS)
    with float64_throughout(), torch.no_grad():
        model = tiny(family, feedback=FEEDBACKS[feedback])
        whole = read(model, batch, batch.columns).output
        for at in range(1, batch.input_ids.shape[1]):
            parted = fan_out(model, batch, batch.columns, 1, at)
            torch.testing.assert_close(parted.logits[:, -1], whole.logits[:, -1], rtol=1e-9, atol=1e-9)
            mask = whole.thoughts.is_thought_BK
            assert torch.equal(parted.thoughts.is_thought_BK, mask)
            torch.testing.assert_close(
                parted.thoughts.fed_BKD[mask], whole.thoughts.fed_BKD[mask], rtol=1e-9, atol=1e-9
            )


def slow_thoughts(model: CoconutForCausalLM, ids: list[int], layer: int) -> list[Tensor]:
    """One row, without a cache: every thought is the state of `layer` at the token before."""
    embeds = model.get_input_embeddings()(torch.tensor([ids]))
    thoughts = []
    for place in [place for place, token in enumerate(ids) if token == LATENT]:
        output = model.base_causallm.base_model(inputs_embeds=embeds[:, :place], output_hidden_states=True)
        thoughts.append(output.hidden_states[layer][0, -1])
        embeds = torch.cat([embeds[:, :place], thoughts[-1][None, None], embeds[:, place + 1 :]], 1)
    return thoughts


@pytest.mark.parametrize("layer", [-3, -2, -1, 0, 1, 2])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_oss"])
def test_thoughts_of_any_layer_are_those_of_a_slow_loop(family: str, layer: int) -> None:
    rows = [prompt(0, [5, 9, 2, 7], 3), prompt(1, [3], 2)]
    batch = collate_prompts(rows, TOKENS)
    with float64_throughout(), torch.no_grad():
        model = tiny(family)
        trace = read(model, batch, batch.columns, thought_layer=layer).output.thoughts
        for row, fed_KD, real_K in zip(rows, trace.fed_BKD, trace.is_thought_BK, strict=True):
            slow = torch.stack(slow_thoughts(model, row.input_ids.tolist(), layer))
            torch.testing.assert_close(fed_KD[real_K], slow, rtol=1e-9, atol=1e-9)


def test_a_layer_that_is_not_there_is_refused() -> None:
    rows = prompts(2, least=1)
    with pytest.raises(UserError, match="no such layer"):
        read(tiny("gpt2"), collate_prompts(rows, TOKENS), columns_of(tiny("gpt2"), rows), thought_layer=3)


# -- noise --


def asked(model: CoconutForCausalLM, rows: Sequence[Row], size: int, **how: Any) -> dict[int, list[Reply]]:
    answerer = Answerer(model, TOKENS, 6, **how)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return {
        row.index: replies
        for batch in batches
        for row, replies in zip(batch, answerer.branched(batch), strict=True)
    }


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["all", "first", 1]),
    st.sampled_from(["constant", "linear", "cosine", "exponential", "adaptive"]),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_an_example_meets_its_noise_in_any_batch_and_order(
    kind: str, where: str | int, schedule: str, size: int, rng: random.Random
) -> None:
    with float64_throughout():
        model, rows = tiny("llama"), prompts(7)
        read_so = noisy(kind, 0.4, where=where, schedule=schedule, seed=3)
        alone, mixed = asked(model, rows, 1, read=read_so), rows[:]
        rng.shuffle(mixed)
        together = asked(model, mixed, size, read=read_so)
    for index, (reply,) in alone.items():
        (other,) = together[index]
        assert reply.ids == other.ids
        assert reply.thought_norms == pytest.approx(other.thought_norms, rel=1e-9)
        for key, value in (reply.notes.get("diagnostics") or {}).items():
            near = value if isinstance(value, str) else pytest.approx(value, rel=1e-6, abs=1e-9)
            assert other.notes["diagnostics"][key] == near


def test_noise_of_scale_zero_is_the_clean_run_exactly() -> None:
    model, rows = tiny("gpt2", torch.float32), prompts(9)
    clean = asked(model, rows, 4)
    for kind in sorted(set(KINDS) - {"snr"}):
        silent = asked(model, rows, 4, read=noisy(kind, 0.0))
        assert {i: (r.ids, r.thought_norms) for i, (r,) in silent.items()} == {
            i: (r.ids, r.thought_norms) for i, (r,) in clean.items()
        }
    none = asked(model, rows, 4, read=noisy("gaussian", 2.0, schedule="none"))
    assert [r.ids for (r,) in none.values()] == [r.ids for (r,) in clean.values()]
    loud = asked(model, rows, 4, read=noisy("gaussian", 2.0))
    assert [r.ids for (r,) in loud.values()] != [r.ids for (r,) in clean.values()]


def test_scales_have_noise_of_their_own() -> None:
    """Else a louder noise is the same one, and a curve over scales one draw."""
    model, rows = tiny("gpt2"), prompts(5, least=2)
    found = [asked(model, rows, 5, read=noisy("gaussian_scaled", scale)) for scale in (0.5, 0.5, 0.500001)]
    norms = [[reply.thought_norms for (reply,) in each.values()] for each in found]
    assert norms[0] == norms[1]
    assert np.abs(np.subtract(norms[0][0], norms[2][0])).max() > 1e-3


def test_diagnostics_are_of_the_thoughts_that_had_noise() -> None:
    model, rows = tiny("gpt2"), [prompt(0, [5, 9], 3), prompt(1, [3, 4, 5], 0), prompt(2, [2], 1)]
    found = asked(model, rows, 3, read=noisy("gaussian_scaled", 0.5, where=1))
    told = {index: reply.notes["diagnostics"] for index, (reply,) in found.items()}
    assert told[1] is None and told[2] is None  # they have no second thought
    assert told[0]["scale_ratio"] == pytest.approx(0.5) and told[0]["noise_type"] == "gaussian_scaled"


def test_a_reading_leaves_the_model_as_it_was() -> None:
    model, rows = tiny("gpt2"), prompts(3, least=1)
    own = model.feedback
    asked(model, rows, 3, read=noisy("gaussian", 1.0))
    assert model.feedback is own
    with pytest.raises(ZeroDivisionError):
        asked(model, rows, 3, read=fed_by(lambda batch, feedback: 1 / 0))
    assert model.feedback is own and own.training == model.training


# -- sampling --


def test_a_nucleus_holds_the_likeliest_that_have_no_more_than_p_before_them() -> None:
    p = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    chances = torch.linspace(0, 1, 1001)[:-1]

    def shares(top_p: float) -> list[float]:
        picked = nucleus(p.log().expand(1000, 4), chances, 1.0, top_p)
        return (picked.bincount(minlength=4) / 1000).tolist()

    assert shares(1.0) == pytest.approx(p[0].tolist(), abs=0.002)
    assert shares(0.6) == pytest.approx([0, 0.5 / 0.75, 0, 0.25 / 0.75], abs=0.002)
    assert shares(0.4) == [0, 1, 0, 0]
    assert nucleus(p.log(), torch.ones(1), 1.0, 0.6).item() == 3  # a chance that was rounded to 1
    warm = nucleus((p.log() * 2).expand(1000, 4), chances, 2.0, 1.0).bincount(minlength=4) / 1000
    assert warm.tolist() == pytest.approx(p[0].tolist(), abs=0.002)


def test_chance_hangs_on_seed_example_and_branch_alone() -> None:
    with float64_throughout():
        model, rows = tiny("llama"), prompts(8)
        how: dict[str, Any] = {"picks": sampled(1.0, 0.9, seed=5), "scored": True}
        alone, together = asked(model, rows, 1, **how), asked(model, rows[::-1], 5, **how)
        other = asked(model, rows, 8, **how | {"picks": sampled(1.0, 0.9, seed=6)})
    assert {i: r.ids for i, (r,) in alone.items()} == {i: r.ids for i, (r,) in together.items()}
    assert {i: r.ids for i, (r,) in alone.items()} != {i: r.ids for i, (r,) in other.items()}
    for index, (reply,) in alone.items():
        assert reply.logprob == pytest.approx(together[index][0].logprob, rel=1e-9)


def test_the_log_probability_is_that_of_what_was_written() -> None:
    with float64_throughout(), torch.no_grad():
        model, rows = tiny("llama"), prompts(6)
        for row, (reply,) in asked(model, rows, 6, scored=True).items():
            ids = [*rows[row].input_ids.tolist(), *reply.ids, *[EOS] * reply.ended]
            logits_TV = model(torch.tensor([ids])).logits[0]
            logits_TV[:, LATENT] = -torch.inf
            log_p_TV = logits_TV.log_softmax(-1)
            start = len(rows[row].input_ids)
            slow = sum(log_p_TV[place - 1, ids[place]].item() for place in range(start, len(ids)))
            assert reply.logprob == pytest.approx(slow, rel=1e-6)
