"""Rows, prompts and batches equal those recorded from the published implementation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from coconut_lm.collate import collate
from coconut_lm.data.example import Example
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.tokens import EncodedSet, LatentTokens, add_latent_tokens, encode

ASSETS = Path(__file__).parents[1] / "assets"
GOLDEN: list[dict[str, Any]] = json.loads((ASSETS / "golden" / "rows.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tokens_and_sets() -> tuple[LatentTokens, dict[str, EncodedSet]]:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "gpt2-tokenizer")
    tokens = add_latent_tokens(tokenizer)
    records = json.loads((ASSETS / "golden" / "examples.json").read_text("utf-8"))
    sets = {
        name: encode([Example(r["question"], tuple(r["steps"]), r["answer"]) for r in rows], tokenizer)
        for name, rows in records.items()
    }
    return tokens, sets


def test_gpt2_gets_the_published_ids(tokens_and_sets: tuple[LatentTokens, dict[str, EncodedSet]]) -> None:
    assert tokens_and_sets[0] == LatentTokens(50257, 50258, 50259, None, 50256, 50256)


@pytest.mark.parametrize("method", ["cot", "no_cot", "no_thoughts", "coconut"])
def test_rows_and_prompts(method: str, tokens_and_sets: tuple[LatentTokens, dict[str, EncodedSet]]) -> None:
    tokens, sets = tokens_and_sets
    golden = [g for g in GOLDEN if g["method"] == method]
    assert len(golden) in (12, 84)
    for g in golden:
        curriculum = Curriculum(
            c_thought=g["c_thought"],
            max_latent_stage=g["max_latent_stage"],
            pad_latent_to_max=g["pad_latent_to_max"],
        )
        rows = Rows(sets[g["data"]], tokens, method, curriculum)
        what = {key: value for key, value in g.items() if not key.endswith("_ids")}
        row, prompt = rows.row(g["index"], g["stage"]), rows.prompt(g["index"], g["stage"])
        assert row.input_ids.tolist() == g["input_ids"], what
        assert row.supervised_from == g["supervised_from"], what
        assert prompt.input_ids.tolist() == g["prompt_ids"], what
        assert row.thoughts == g["input_ids"].count(tokens.latent), what
        if row.thoughts:
            assert row.first == g["input_ids"].index(tokens.latent), what


def test_the_collated_batch() -> None:
    golden = json.loads((ASSETS / "golden" / "forward.json").read_text("utf-8"))
    ids = golden["tokens"]
    tokens = LatentTokens(ids["start"], ids["end"], ids["latent"], None, ids["eos"], ids["eos"])
    rows = []
    for index, g in enumerate(golden["rows"]):
        thoughts = g["input_ids"].count(tokens.latent)
        first = g["input_ids"].index(tokens.latent) if thoughts else -1
        masked = g["labels"].count(-100)
        rows.append(Row(np.array(g["input_ids"], np.int32), masked, thoughts, first, index))
    assert {row.thoughts > 0 for row in rows} == {True, False}
    batch = collate(rows, tokens)
    for name, value in golden["batch"].items():
        assert getattr(batch, name).tolist() == value, name
    latent = np.nonzero((batch.input_ids == tokens.latent).any(0))[0]
    assert batch.columns == range(latent[0], latent[-1] + 1)
