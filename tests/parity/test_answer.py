"""Answers do not depend on the batch, on the checkpoint's habits, or on what wraps the model."""

import gzip
import json
import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import torch.distributed as dist
from tiny import END, EOS, FAMILIES, LATENT, START, base_model, float64_throughout, thinking, tiny
from transformers import AutoConfig, AutoModelForCausalLM

from coconut_lm import CoconutForCausalLM, UserError
from coconut_lm.adapters import add_lora
from coconut_lm.answer import Answerer
from coconut_lm.data.example import Example
from coconut_lm.evaluate import Reply, predict, task_named
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.tokens import (
    LatentTokens,
    add_latent_tokens,
    encode,
    latent_tokens,
    load_tokenizer,
    word_tokenizer,
)

ASSETS = Path(__file__).parents[1] / "assets"
TOKENS = LatentTokens(START, END, LATENT, None, EOS, EOS)


def prompt(index: int, words: Sequence[int], thoughts: int) -> Row:
    ids = np.array([*words, START, *[LATENT] * thoughts, END], np.int32)
    return Row(ids, len(ids), thoughts, len(words) + 1 if thoughts else -1, index)


def prompts(count: int, seed: int = 0, longest: int = 12) -> list[Row]:
    rng = random.Random(seed)
    return [
        prompt(i, [rng.randrange(63) for _ in range(rng.randint(1, longest))], rng.randint(0, 4))
        for i in range(count)
    ]


def oracle(model: CoconutForCausalLM, row: Row, new: int) -> tuple[int, ...]:
    """One prompt, without a cache."""
    ids = row.input_ids.tolist()
    return tuple(reference.oracle_generate(model.base_causallm, LATENT, EOS, ids, new)[len(ids) :])


def real(name: str) -> list[Example]:
    with gzip.open(ASSETS / f"coconut_paper_{name}_valid.json.gz") as file:
        return [Example(row["question"], tuple(row["steps"]), row["answer"]) for row in json.load(file)]


@pytest.mark.parametrize(
    ("name", "family", "count", "scored"),
    [("prosqa", "gpt2", 300, "prosqa"), ("gsm8k", "qwen3", 500, "gsm8k")],
)
def test_real_examples_have_the_same_predictions_in_any_batch(
    name: str, family: str, count: int, scored: str
) -> None:
    """In float64: a random model's best two tokens are seldom nearer to each other than its rounding.

    New tokens begin at random here: begun as copies of one row, they would tie with it for ever.
    """
    examples = real(name)
    tokenizer = word_tokenizer(" ".join([e.question, *e.steps, e.answer]) for e in examples)
    add_latent_tokens(tokenizer)
    assert len(examples) == count
    places = {"n_positions": 1024} if family == "gpt2" else {"max_position_embeddings": 1024}
    with float64_throughout():
        base = base_model(family, vocab_size=len(tokenizer), **places, **_ends(0))
        model = CoconutForCausalLM.from_base(base, tokenizer, new_token_init="random")
        tokens = latent_tokens(tokenizer)
        rows = Rows(encode(examples, tokenizer), tokens, "coconut", Curriculum(max_latent_stage=3))
        asked: dict[str, Any] = {"tokenizer": tokenizer, "task": task_named(scored), "stage": 2}
        found = {
            size: sorted(
                predict(Answerer(model, tokens, 4), rows, examples, batch_size=size, **asked),
                key=lambda each: each.index,
            )
            for size in (64, 7, 1)
        }
    texts = {size: [(each.output, each.correct, each.ended) for each in found[size]] for size in found}
    assert texts[1] == texts[7] == texts[64] and len(texts[1]) == count
    assert len({each.output for each in found[1]}) > 20
    norms = {size: np.array([each.thought_norms for each in found[size]]) for size in found}
    np.testing.assert_allclose(norms[1], norms[64], rtol=1e-9)
    assert norms[1].shape == (count, 2)


def _ends(eos: int) -> dict[str, int]:
    return {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos}


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_an_uncached_oracle(family: str) -> None:
    with float64_throughout():
        model, rows = tiny(family), prompts(9)
        replies = Answerer(model, TOKENS, 8)(rows)
        assert [reply.ids for reply in replies] == [oracle(model, row, 8) for row in rows]
        assert [reply.ended for reply in replies] == [len(reply.ids) < 8 for reply in replies]
        assert [len(reply.thought_norms) for reply in replies] == [row.thoughts for row in rows]


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gpt_oss"])
def test_a_row_that_has_ended_leaves_its_batch(family: str) -> None:
    """Each row is made to end where it is told to; what it writes until then is what it writes alone."""
    ends = [1, 7, 2, 2, 5, 7, 0, 3]
    with float64_throughout():
        model, rows = tiny(family), prompts(8, seed=2)

        def until(lengths: list[int], logits_BV: torch.Tensor, rows_B: torch.Tensor, column: int) -> Any:
            logits_BV[:, EOS] = -torch.inf
            over_B = torch.tensor(lengths)[rows_B] <= column
            return torch.where(over_B, EOS, logits_BV.argmax(-1))

        sizes: list[int] = []
        hook = model.register_forward_hook(lambda _, given, out: sizes.append(len(out.logits)))
        together = Answerer(model, TOKENS, 8, picks=lambda *_: partial(until, ends))(rows)
        hook.remove()
        alone = [
            Answerer(model, TOKENS, 8, picks=lambda *_, end=end: partial(until, [end]))([row])[0]
            for row, end in zip(rows, ends, strict=True)
        ]
    assert sizes == [8, 8, 6, 4, 3, 3, 2, 2] and [len(reply.ids) for reply in together] == ends
    assert [(each.ids, each.ended) for each in together] == [(each.ids, each.ended) for each in alone]


def test_the_norms_are_those_of_what_was_fed() -> None:
    with float64_throughout():
        model, rows = tiny("gpt2"), prompts(20, seed=4)
        for row, reply in zip(rows, Answerer(model, TOKENS, 2)(rows), strict=True):
            embeds_TD = reference.oracle_embeds(model.base_causallm, LATENT, row.input_ids.tolist())
            thoughts = embeds_TD[torch.tensor(row.input_ids) == LATENT]
            assert reply.thought_norms == pytest.approx(thoughts.norm(dim=-1).tolist())


def test_habits_of_a_checkpoint_do_not_matter_and_are_kept() -> None:
    model, rows = tiny("llama"), prompts(6)
    plain = Answerer(model, TOKENS, 8)(rows)
    model.generation_config.update(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, num_beams=3, max_length=3, top_k=9
    )
    model.generation_config.eos_token_id = [0, 1]
    assert Answerer(model, TOKENS, 8)(rows) == plain
    assert model.generation_config.num_beams == 3 and model.generation_config.eos_token_id == [0, 1]


def test_a_model_in_training_answers_without_dropout_and_trains_on() -> None:
    dropout = dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.5)
    model, rows = thinking(base_model("gpt2", **dropout)), prompts(6)
    plain = Answerer(model, TOKENS, 8)(rows)
    model.train()
    assert Answerer(model, TOKENS, 8)(rows) == plain and model.training
    assert model.base_causallm.training


def test_adapters_count() -> None:
    model, rows = tiny("gpt2"), prompts(6)
    plain = Answerer(model, TOKENS, 8)(rows)
    adapted = add_lora(model)
    assert Answerer(adapted, TOKENS, 8)(rows) == plain  # an adapter begins at nothing
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    assert Answerer(adapted, TOKENS, 8)(rows) != plain


def test_no_pass_looks_for_thoughts_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: Any) -> None:
        raise AssertionError("columns were looked for")

    monkeypatch.setattr(CoconutForCausalLM, "_find_columns", look)
    rows = prompts(5)
    assert len(Answerer(tiny("gpt2"), TOKENS, 4)(rows)) == 5


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_in_shards_passes_depend_on_the_columns_alone(family: str) -> None:
    """Extra columns, a plain cache and no groups of like lengths: the same answers."""
    with float64_throughout():
        model, rows = tiny(family), prompts(24, seed=5)
        plain = Answerer(model, TOKENS, 6)(rows)
        passes: list[int] = []
        hook = model.base_causallm.base_model.register_forward_hook(
            lambda *_: passes.append(1), always_call=True
        )
        synced = Answerer(model, TOKENS, 6, synced=True, min_columns=7)(rows)
        hook.remove()
        assert [reply.ids for reply in synced] == [reply.ids for reply in plain]
        assert len(passes) == 1 + 7 + max(len(reply.ids) + reply.ended for reply in plain) - 1
        few = [prompt(0, [1, 2, 3, 4, 5, 6, 7], 0), prompt(1, [4, 2], 0)]
        extra = Answerer(model, TOKENS, 6, synced=True, min_columns=3)(few)
        assert [reply.ids for reply in extra] == [reply.ids for reply in Answerer(model, TOKENS, 6)(few)]


def test_where_positions_end_the_batch_does_not_matter() -> None:
    """A long prompt leaves little room to write in; the others have theirs."""
    with float64_throughout():
        model = thinking(base_model("gpt2", n_positions=24))
        model.base_causallm.generation_config.eos_token_id = None
        rows = prompts(9, seed=3, longest=17)
        room = [min(12, 24 - len(row.input_ids)) for row in rows]
        assert len(set(room)) > 3
        together = Answerer(model, TOKENS, 12)(rows)
        alone = [Answerer(model, TOKENS, 12)([row])[0] for row in rows]
        assert [(each.ids, each.ended) for each in together] == [(each.ids, each.ended) for each in alone]
        assert [reply.ids for reply in together] == [
            oracle(model, r, n) for r, n in zip(rows, room, strict=True)
        ]


@pytest.mark.parametrize(
    ("words", "thoughts", "message"),
    [(10, 20, "example 5 has more thoughts than .* positions"), (30, 0, "example 5 has more tokens than")],
)
def test_a_prompt_that_does_not_fit_is_named(words: int, thoughts: int, message: str) -> None:
    model = thinking(base_model("gpt2", n_positions=24))
    with pytest.raises(UserError, match=message):
        Answerer(model, TOKENS, 4)([prompt(4, [1, 2], 1), prompt(5, [3] * words, thoughts)])


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(UserError, match="does not think"):
        Answerer(base_model("gpt2"), TOKENS, 4)


@pytest.mark.slow
def test_five_hundred_answers_fifty_times_as_fast_as_one_by_one() -> None:
    """Without a cache every thought and every token costs a whole forward of one row."""
    examples, tokenizer = real("gsm8k"), load_tokenizer(ASSETS / "gpt2-tokenizer")
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=512, **_ends(50256)
    )
    torch.manual_seed(0)
    model = CoconutForCausalLM.from_base(AutoModelForCausalLM.from_config(config), tokenizer).eval()
    tokens = latent_tokens(tokenizer)
    rows = Rows(encode(examples, tokenizer), tokens, "coconut", Curriculum(c_thought=2, max_latent_stage=3))

    def slowly(asked: Sequence[Row]) -> list[Reply]:
        ids = [row.input_ids.tolist() for row in asked]
        base = model.base_causallm
        texts = [reference.oracle_generate(base, tokens.latent, tokens.eos, row, 64) for row in ids]
        return [Reply(tuple(text[len(row) :]), False) for text, row in zip(texts, ids, strict=True)]

    def timed(answer: Any, **how: Any) -> float:
        begun = time.perf_counter()
        how |= {"tokenizer": tokenizer, "task": task_named("gsm8k"), "stage": 3}
        found = list(predict(answer, rows, examples, **how))
        return (time.perf_counter() - begun) / len(found)

    fast = timed(Answerer(model, tokens, 64), batch_size=125)
    slow = timed(slowly, batch_size=1, indices=range(0, 500, 125))
    print(f"{fast:.5f} s an example, one by one {slow:.3f} s: {slow / fast:.0f} times")
    assert slow / fast > 50
