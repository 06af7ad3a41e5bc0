"""The examples run as their first lines say, each in a process of its own, in a folder of its own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import EOS, LATENT, tiny

from coconut_lm import CoconutForCausalLM, Curriculum, Rows, add_latent_tokens, encode, word_tokenizer
from coconut_lm.data import prosqa

EXAMPLES = Path(__file__).parents[2] / "examples"
PLACE = {"transformers_trainer": "runs/transformers-trainer", "trl_sft": "runs/trl-sft"}


def run(name: str, folder: Path, *words: object) -> str:
    """What it prints; it may ask no network."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, words)],
        cwd=folder,
        env={**os.environ, **offline, "HF_DATASETS_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def losses(printed: str) -> list[float]:
    return [float(found) for found in re.findall(r"'loss': '([\d.e-]+)'", printed)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, run("transformers_trainer", folder, "--steps", 100)


def test_transformers_trainer(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    assert re.search(r"\d+ of 200 right", printed)
    written, thought = losses(printed)
    assert written < 1.0 and thought < 1.0  # of 3.1 before training
    model = CoconutForCausalLM.from_pretrained(folder / PLACE["transformers_trainer"])
    assert model.config.thinks


def test_lm_harness(trained: tuple[Path, str]) -> None:
    pytest.importorskip("lm_eval")
    folder, _ = trained
    printed = run("lm_harness", folder, PLACE["transformers_trainer"], "--questions", 40)
    rates = [int(found) for found in re.findall(r"(\d+)% of 40 right", printed)]
    assert len(rates) == 2 and all(20 <= rate <= 100 for rate in rates)  # guessing: 50


def test_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    printed = run("trl_sft", tmp_path, "--steps", 100)
    assert re.search(r"\d+ of 200 right", printed)
    written, thought = losses(printed)
    assert written < 1.0 and thought < 1.0
    assert (tmp_path / PLACE["trl_sft"] / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACE)
def test_the_task_is_learned(name: str, tmp_path: Path) -> None:
    if name == "trl_sft":
        pytest.importorskip("trl")
    printed = run(name, tmp_path)
    (right,) = re.findall(r"(\d+) of 200 right", printed)
    assert int(right) > 190
    pytest.importorskip("lm_eval")
    rates = re.findall(r"(\d+)% of", run("lm_harness", tmp_path, PLACE[name]))
    assert min(map(int, rates)) > 95


@pytest.mark.filterwarnings("ignore")  # of what it imports
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite"])
def test_the_loss_that_trl_computes_is_ours(family: str) -> None:
    """It asks the base for states and scores them itself: the thinking must be in there, and the scales."""
    utils: Any = pytest.importorskip("trl.trainer.utils")
    model = tiny(family, torch.float32)
    ids = torch.tensor([[3, 5, 64, LATENT, LATENT, 65, 9, 8, EOS], [4, 64, LATENT, 65, 7, 9, EOS, EOS, EOS]])
    mask = torch.tensor([[1] * 9, [1] * 7 + [0] * 2])
    labels = ids.where((mask == 1) & (torch.arange(9) > 5), -100)
    ours = model(ids, attention_mask=mask, labels=labels).loss
    ours.backward()
    gradients = {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }
    model.zero_grad()
    utils.add_fused_lm_head(model)
    theirs = model(ids, attention_mask=mask, labels=labels, fused_lm_head=True).loss
    theirs.backward()
    torch.testing.assert_close(theirs, ours)
    for name, gradient in gradients.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_text_is_what_rows_are() -> None:
    """The prompts and completions that go to TRL as text are, encoded, the rows that a run trains on."""
    pytest.importorskip("trl")
    spec: Any = importlib.util.spec_from_file_location("trl_sft", EXAMPLES / "trl_sft.py")
    spec.loader.exec_module(example := importlib.util.module_from_spec(spec))
    examples = list(prosqa.make(20, seed=3, **example.GRAPHS))
    tokenizer = word_tokenizer(map(example.text, examples))
    tokens = add_latent_tokens(tokenizer)
    rows = Rows(encode(examples, tokenizer), tokens, "coconut", Curriculum(max_latent_stage=1))
    for stage in (0, 1):
        for index, each in enumerate(examples):
            text = example.prompt(each, stage) + example.completion(each, stage) + tokenizer.eos_token
            assert tokenizer(text)["input_ids"] == rows.row(index, stage).input_ids.tolist()
