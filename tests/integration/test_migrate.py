"""docs/migrate.md: its commands run, its keys and paths are there, and no key of theirs is left out."""

import importlib
import json
import re
import shutil
from pathlib import Path

import foreign
import pytest
import torch
from pages import (
    CONFIGS,
    ROOT,
    commands,
    fetched,
    furnish,
    generators_json,
    page,
    published,
    put_in_place,
    spans,
    typed,
)
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from coconut_lm import UserError, yamlfile
from coconut_lm.adapters import quietly
from coconut_lm.config import METHOD_FLAGS, load
from coconut_lm.schema import Icot, Lora, Schema

TEXT = page("migrate")
KEYS = {*Schema.model_fields, *METHOD_FLAGS}
KEYS |= {f"lora.{key}" for key in Lora.model_fields} | {f"icot.{key}" for key in Icot.model_fields}
NOT_KEYS = {"cot_match", "latent_weights", "mlp_projection_lora", "step_K", "checkpoint_N", "checkpoint_33"}
NOT_KEYS |= {"gaussian_scaled", "targeted_same", "targeted_opposite", "learnable_weights"}
NOT_KEYS |= {"apply_noise_to_all_passes", "hidden_layer_idx", "injection_step", "lambda_decay"}
NOT_KEYS |= {"random_orthogonal", "probability_mass"}
NOT_KEYS |= {"learnable_weights_lora", "fixed_window", "_valid", "_test", "remove_all"}
BASE = {"method": "coconut", "model_id": "org/model", "num_epochs": 100}
NEEDS = {"latent_window_weights": {"latent_variant": "fixed_window"}}
THERE = {  # files of theirs that the commands read
    "args": "official",
    "run_learnable_full": "001/learnable_full",
    "run_learnable_weights": "001/lora",
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What somebody who comes from another code base has in the folder."""
    monkeypatch.chdir(tmp_path)
    furnish(monkeypatch)
    for folder, system in THERE.items():
        for source in (CONFIGS / "seeds" / system).glob("*.yaml"):
            put_in_place(source, Path(folder) / source.name)
    for name in ("prosqa_coconut_eval", "prosqa_cot_eval"):
        put_in_place(CONFIGS / f"seeds/000/{name}.yaml", Path(f"args/{name}.yaml"))
    shutil.copy("gpt2/config.json", "config.json")
    fetched("prosqa", Path("data"))
    for split in ("train", "validation"):
        shutil.copy(fetched("gsm8k", Path("theirs")).paths["train"], f"data/gsm8k_{split}.json")
    published("checkpoint_33")
    published("checkpoint_7", foreign.window_file)
    published("checkpoint_40.safetensors", foreign.mlx_file)
    adapters("checkpoint_21")
    Path("data/5hop_0shot_random.json").write_text(generators_json(50), encoding="utf-8")
    Path("gsm_valid.txt").write_text("How many?||<<1+2=3>> <<3*2=6>> #### 6\n", encoding="utf-8")
    problem = {"problem": "What is 1+1?", "solution": "It is two.\nSo \\boxed{2}."}
    Path("problems.json").write_text(json.dumps([problem] * 20), encoding="utf-8")
    original = {"question": "How many?", "answer": "It is 1+2=<<1+2=3>>3. So 3.\n#### 3"}
    Path("train.jsonl").write_text(json.dumps(original) + "\n", encoding="utf-8")
    return tmp_path


def adapters(place: str) -> None:
    """A LoRA folder as it was written there."""
    settings = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    with quietly():
        get_peft_model(AutoModelForCausalLM.from_pretrained("gpt2"), settings).save_pretrained(
            f"{place}/peft"
        )
    torch.save({"latent_weights": torch.zeros(3)}, f"{place}/latent.pt")


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_the_commands_run_in_their_order(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = commands(TEXT)
    assert len(lines) > 30
    for line in lines:
        typed(line, monkeypatch)
    assert list(Path("runs/gsm-cot/eval").glob("epoch_*/metrics.json"))
    assert list(Path("runs/gsm-coconut-eval/eval").glob("gsm_test-*-stage4-first2/validation_examples.txt"))
    assert list(Path("eval").glob("gsm_test-gsm-coconut-33-stage4-reference/metrics.json"))
    assert (
        torch.load("checkpoint_34", weights_only=True).keys()
        == torch.load("checkpoint_33", weights_only=True).keys()
    )


def test_a_file_of_theirs_is_asked_at_stage_zero_where_resume_is(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "coconut-lm run run_learnable_weights/prosqa_coconut_eval.yaml load_model_path=checkpoint_21"
    for more in ("", " eval_stage=6"):
        typed(line + more, monkeypatch)
    found = Path("runs/prosqa-coconut_learnable_lora/eval")
    assert {path.name for path in found.iterdir()} == {
        "prosqa_test-checkpoint_21-stage0-first2",
        "prosqa_test-checkpoint_21-stage6-first2",
    }


def test_no_key_of_theirs_is_left_out() -> None:
    theirs = {key for path in (CONFIGS / "seeds").rglob("*.yaml") for key in yamlfile.read(path)}
    named = {re.split(r"[:= ]", span)[0] for span in spans(TEXT)}
    assert theirs and theirs - named == set()


def test_every_key_is_one_of_ours() -> None:
    named = {span for span in spans(TEXT) if re.fullmatch(r"[a-z]+(_[a-z]+)+|lora\.\w+|_\w+", span)}
    assert len(named & KEYS) > 25
    assert named - KEYS - NOT_KEYS == set()


VALUES = sorted({span for span in spans(TEXT) if re.fullmatch(r"[a-z][a-z_0-9.]*: .+", span)} - {"Accuracy"})


@pytest.mark.parametrize("written", VALUES)
def test_every_value_is_taken(written: str) -> None:
    given = yamlfile.parse(written)
    (key,) = given
    assert load(BASE | NEEDS.get(key, {}) | given, check_files=False)


@pytest.mark.parametrize(
    "refused",
    [
        {"latent_variant": "mlp_projection_lora"},
        {"latent_variant": "windowed"},
        {"coconut": True, "cot": True},
        {"uniform_probs": 0.1},
    ],
)
def test_what_the_page_calls_refused_is(refused: dict[str, object]) -> None:
    with pytest.raises(UserError):
        load(BASE | refused, check_files=False)


def test_what_is_ours_is_there() -> None:
    paths = {span for span in spans(TEXT) if re.match(r"(configs|docs|tests|slurm)/", span)}
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [
        link for link in re.findall(r"\]\((\w+\.md)\)", TEXT) if not (ROOT / "docs" / link).exists()
    ] == []
    for name in {span for span in spans(TEXT) if re.fullmatch(r"coconut_lm\.\w+", span)}:
        package, _, last = name.partition(".")
        if not hasattr(importlib.import_module(package), last):
            importlib.import_module(name)


def test_every_system_has_a_table() -> None:
    systems = re.findall(r"^\| theirs \| here \| \|$", TEXT, flags=re.M)
    assert len(systems) == 6
    assert "not yet" in TEXT
