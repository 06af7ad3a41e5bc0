"""`generate` with latents in left-padded prompts equals an uncached oracle, one prompt at a time."""

import random

import pytest
import reference
import torch
from tiny import END, EOS, FAMILIES, LATENT, START, float64_throughout, tiny
from torch import Tensor
from transformers import TextStreamer

from coconut_lm import CoconutForCausalLM, UserError
from coconut_lm.packing import Packing

NEW = 8


def prompts(count: int, most_thoughts: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [
        [rng.randrange(63) for _ in range(rng.randint(1, 12))]
        + [START, *[LATENT] * rng.randint(0, most_thoughts), END]
        for _ in range(count)
    ]


def left_padded(rows: list[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[EOS] * (width - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }


def continuations(model: CoconutForCausalLM, rows: list[list[int]], **options: object) -> list[list[int]]:
    """What is new, up to the end token."""
    settings = {"max_new_tokens": NEW, "do_sample": False} | options
    batch = left_padded(rows)
    new = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :].tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in new]


def oracle(model: CoconutForCausalLM, rows: list[list[int]]) -> list[list[int]]:
    base = model.base_causallm
    return [reference.oracle_generate(base, LATENT, EOS, row, NEW)[len(row) :] for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_batches_equal_the_oracle(family: str) -> None:
    with float64_throughout():
        model, rows = tiny(family), prompts(7, most_thoughts=4)
        texts = continuations(model, rows)
        assert texts == oracle(model, rows)
        assert texts == [continuations(model, [row])[0] for row in rows]
        assert len({tuple(text) for text in texts}) > 1


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "mistral"])
def test_beams_of_a_batch_are_the_beams_of_each_prompt(family: str) -> None:
    with float64_throughout():
        model, rows = tiny(family), prompts(5, most_thoughts=3)
        beams = continuations(model, rows, num_beams=3)
        assert beams == [continuations(model, [row], num_beams=3)[0] for row in rows]
        assert beams != continuations(model, rows)


def test_sixty_four_prompts_with_up_to_twelve_thoughts_in_one_batch() -> None:
    with float64_throughout():
        model, rows = tiny("gpt2"), prompts(64, most_thoughts=12, seed=2)
        assert {row.count(LATENT) for row in rows} == set(range(13))
        assert continuations(model, rows) == oracle(model, rows)


def test_a_batch_samples_and_returns_several_sequences() -> None:
    model, rows = tiny("gpt2"), prompts(4, most_thoughts=3)
    torch.manual_seed(1)
    texts = continuations(model, rows, do_sample=True, num_return_sequences=3, temperature=1.5)
    assert len(texts) == 12
    assert len({tuple(text) for text in texts}) > 4
    torch.manual_seed(1)
    assert texts == continuations(model, rows, do_sample=True, num_return_sequences=3, temperature=1.5)


def test_a_streamer_sees_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    class Ids:
        """As much of a tokenizer as a streamer asks for."""

        def decode(self, ids: list[int], **_: object) -> str:
            return "".join(f"<{int(i)}>" for i in ids)

    model, row = tiny("gpt2"), prompts(1, most_thoughts=3)[0]
    text = continuations(model, [row], streamer=TextStreamer(Ids(), skip_prompt=True))[0]
    assert capsys.readouterr().out.strip().startswith("".join(f"<{i}>" for i in text))


def test_the_latent_is_never_emitted_even_where_the_model_wants_to() -> None:
    model, rows = tiny("gpt2"), prompts(5, most_thoughts=3)
    wanted = continuations(model, rows)[0][0]
    model.config.latent_token_id = wanted
    clean = [[token for token in row if token not in (wanted, LATENT)] for row in rows]
    for options in ({}, {"num_beams": 2}, {"do_sample": True}, {"suppress_tokens": [1]}):
        assert wanted not in sum(continuations(model, clean, **options), [])


def test_raw_logits_are_left_alone() -> None:
    model, batch = tiny("gpt2"), left_padded(prompts(2, most_thoughts=3))
    out = model.generate(
        **batch,
        max_new_tokens=2,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
    )
    assert all(logits[:, LATENT].isfinite().all() for logits in out.logits)
    assert all(scores[:, LATENT].isneginf().all() for scores in out.scores)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_without_their_padding_are_read_as_each_by_itself(family: str) -> None:
    with float64_throughout(), torch.no_grad():
        model, batch = tiny(family), left_padded(prompts(24, most_thoughts=2, seed=3))
        assert Packing.found(batch["attention_mask"], torch.device("cpu"), first=True) is not None
        together = model(**batch, use_cache=True)
        alone = [model(**{name: value[i : i + 1] for name, value in batch.items()}) for i in range(24)]
        torch.testing.assert_close(together.logits[:, -1], torch.cat([one.logits[:, -1] for one in alone]))


def test_an_emitted_latent_id_would_not_be_a_thought() -> None:
    """Only the prompt has thoughts: behind it the id is an ordinary token."""
    model, ids = tiny("gpt2"), torch.tensor([[3, START, LATENT, END]])
    first = model(ids, use_cache=True)
    cache = first.past_key_values
    step = model(
        torch.tensor([[LATENT]]),
        past_key_values=cache,
        columns=(),
        attention_mask=torch.ones(1, 5, dtype=torch.long),
    )
    inputs = model.prepare_inputs_for_generation(
        torch.cat([ids, torch.tensor([[LATENT]])], 1), past_key_values=cache, next_sequence_length=1
    )
    assert inputs["columns"] == () and step.thoughts is None


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_a_static_cache_writes_the_same(family: str) -> None:
    with float64_throughout():
        model, rows = tiny(family), prompts(4, most_thoughts=3)
        assert continuations(model, rows, cache_implementation="static") == oracle(model, rows)


def test_without_a_cache_the_same_is_written() -> None:
    with float64_throughout():
        model, rows = tiny("gpt2"), prompts(4, most_thoughts=3)
        assert continuations(model, rows, use_cache=False) == oracle(model, rows)


def test_reading_a_prompt_in_chunks_is_refused() -> None:
    with pytest.raises(UserError, match="prefill_chunk_size"):
        continuations(tiny("gpt2"), prompts(2, most_thoughts=2), prefill_chunk_size=2)
