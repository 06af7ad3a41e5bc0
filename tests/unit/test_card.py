"""Model cards: valid for the hub, true to the run, unmoved by what people call things."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import card
from coconut_lm.config import Config
from coconut_lm.runfolder import Progress

PROGRESS = Progress(epoch=4, step=4000, stage=2, data="c0ffee")
RECORD = dict(
    val_accuracy=0.9, val_right=90, val_n=100, val_low=0.826, val_high=0.945, val_tokens=12.3, stage=2
)


def config(**changes: Any) -> Config:
    common: dict[str, Any] = dict(method="coconut", model_id="openai-community/gpt2", c_thought=2)
    common |= dict(max_latent_stage=3, pad_latent_to_max=True, task="prosqa", name="prosqa-coconut")
    common |= dict(train_path="data/train.json", val_path="data/valid.json")
    return Config(**common | changes)


def written(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    """What stands above the text, and the text."""
    card.write(folder, config(**changes), PROGRESS, RECORD)
    _, head, text = (folder / card.NAME).read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_head_is_what_the_hub_reads(tmp_path: Path) -> None:
    head, _ = written(tmp_path)
    assert head["library_name"] == "transformers" and head["base_model"] == "openai-community/gpt2"
    assert {"coconut-lm", "coconut", "prosqa"} <= set(head["tags"])
    data = ModelCard.load(tmp_path / card.NAME).data
    assert data.model_name == "prosqa-coconut"
    (found,) = data.eval_results
    assert (found.metric_type, found.metric_value, found.dataset_name) == ("accuracy", 0.9, "valid.json")


def test_the_text_says_what_was_trained_and_measured(tmp_path: Path) -> None:
    _, text = written(tmp_path)
    for row in (
        "| method | coconut |",
        "| stage | 2 (the last is 4) |",
        "| thoughts | 4 |",
        "| fingerprint of the training data | c0ffee |",
        "| accuracy | 90.0% (90 right; 95 % interval 82.6% to 94.5%) |",
    ):
        assert row in text
    assert '"<|latent|>" * 4' in text


def test_methods_are_told_as_they_are(tmp_path: Path) -> None:
    _, cot = written(tmp_path, method="cot")
    assert "| thoughts |" not in cot and "| stage |" not in cot and "latent|>" not in cot
    _, pause = written(tmp_path, method="pause")
    assert "| pause tokens | 6 |" in pause and '"<|pause|>" * 6' in pause and "start-latent" not in pause
    _, icot = written(tmp_path, method="icot")
    assert "| stage | 2 (the last is all) |" in icot
    head, lora = written(tmp_path, lora={"r": 4})
    assert head["library_name"] == "peft" and "LoRA of rank 4" in lora and "open_checkpoint" in lora


def test_a_run_that_was_not_validated_has_a_card(tmp_path: Path) -> None:
    card.write(tmp_path, config(), PROGRESS, None)
    assert "## Measured" not in (tmp_path / card.NAME).read_text()


@pytest.mark.parametrize("place", ["shapes/tiny.json", "/models/gpt2", "a/b/c"])
def test_a_path_is_not_named_as_base(tmp_path: Path, place: str) -> None:
    head, text = written(tmp_path, model_id=place, tokenizer="word")
    assert "base_model" not in head and f"| base | {place} |" in text


def test_odd_names_break_neither_head_nor_table(tmp_path: Path) -> None:
    name = "a|b: *c* <script> [x](y) `d` #e & --- é 茶"
    head, text = written(tmp_path, name=name, train_path="in\n|put|.json")
    assert head["model-index"][0]["name"] == name
    assert "<script>" not in text.replace("\\<script\\>", "")
    (row,) = [line for line in text.splitlines() if line.startswith("| on |")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_plain_text_holds_no_mark_of_markdown(text: str) -> None:
    bare = re.sub(r"\\.", "", card._plain(text))
    assert not re.search(r"[`*_<>|#&\[\]\\\n]", bare)


def test_a_card_that_is_there_is_kept(tmp_path: Path) -> None:
    card.introduce(tmp_path, "gpt2", thinks=True)
    short = (tmp_path / card.NAME).read_text()
    assert "gpt2" in short and "<|latent|>" in short and ModelCard.load(tmp_path / card.NAME).data.tags
    (tmp_path / card.NAME).write_text("mine")
    card.introduce(tmp_path, "gpt2", thinks=True)
    assert (tmp_path / card.NAME).read_text() == "mine"
