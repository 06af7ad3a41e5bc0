"""A saved folder by itself: transformers' Auto classes and the lines of its card make it think."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import base_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline
from typer.testing import CliRunner

from coconut_lm import CoconutForCausalLM, add_latent_tokens, card, word_tokenizer
from coconut_lm.assembly import assemble
from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.runfolder import Progress

TEXT = "Every wumpus is a lempus. Tom is a wumpus. Your question? <<"
PROMPT = "Tom is a wumpus. Your question?\n<|start-latent|><|latent|><|latent|><|end-latent|>"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return save(tmp_path)


def save(place: Path, thinks: bool = True) -> Path:
    tokenizer = word_tokenizer([TEXT])
    size = len(tokenizer)
    add_latent_tokens(tokenizer, pause=True)
    base = base_model("llama", torch.float32, vocab_size=size, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model = CoconutForCausalLM.from_base(base, tokenizer, new_token_init="random" if thinks else None)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_auto_classes(folder: Path) -> None:
    assert AutoConfig.from_pretrained(folder).thinks
    model, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForCausalLM, AutoTokenizer))
    prompts = [PROMPT, "Tom?\n<|start-latent|><|latent|><|end-latent|>"]
    asked = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    written = model.generate(**asked, max_new_tokens=6, do_sample=False)
    for number, prompt in enumerate(prompts):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        plain = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        new = written[number, asked["input_ids"].shape[1] :]
        assert new[: len(plain)].tolist() == plain.tolist()
        assert set(new[len(plain) :].tolist()) <= {tokenizer.pad_token_id}


def test_the_pipeline(folder: Path) -> None:
    (found,) = pipeline("text-generation", model=str(folder))(PROMPT, max_new_tokens=4, do_sample=False)
    assert found["generated_text"].startswith("Tom is a wumpus") and "<|latent|>" in found["generated_text"]


def code() -> str:
    """What the card says is to be typed."""
    (found,) = re.findall(r"```python\n(.*?)```", Path(card.NAME).read_text(encoding="utf-8"), flags=re.S)
    assert len(found.splitlines()) == 5
    return str(found)


@pytest.mark.parametrize("thinks", [True, False])
def test_what_the_short_card_says_works(
    folder: Path, thinks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(card.NAME).unlink()
    save(folder, thinks)
    assert ("<|latent|>" in code()) == thinks
    exec(code(), {})
    assert "Your question?" in capsys.readouterr().out
    (line,) = re.findall("`coconut-lm (ask .*)`", Path(card.NAME).read_text(encoding="utf-8"))
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0 and done.stdout.startswith(f"{int(thinks)} thought"), done.stderr


@pytest.mark.parametrize("method", ["coconut", "cot", "pause", "pause_as_thought"])
def test_what_a_runs_card_says_works(folder: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths: dict[str, Any] = {"model_id": str(folder), "train_path": "t.json", "val_path": "v.json"}
    config = Config(method=method, c_thought=2, max_latent_stage=1, pad_latent_to_max=True, **paths)
    card.write(folder, config, Progress(stage=1))
    exec(code(), {})
    slot = {"coconut": "<|latent|>", "cot": "none", "pause": "<|pause|>", "pause_as_thought": "<|pause|>"}
    assert capsys.readouterr().out.count(slot[method]) >= (0 if method == "cot" else 2)


def test_what_the_card_of_adapters_says_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = word_tokenizer([TEXT])
    base_model("llama", torch.float32, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    run: dict[str, Any] = {"train_path": "t.json", "val_path": "v.json", "lora": {"r": 2}}
    config = Config(method="coconut", model_id=str(tmp_path / "base"), max_latent_stage=1, **run)
    loaded = assemble(config)
    loaded.model.save_pretrained(tmp_path / "run")
    loaded.tokenizer.save_pretrained(tmp_path / "run")
    dump(config, tmp_path / "run" / "run.yaml")
    card.write(tmp_path / "run", config, Progress(stage=1))
    monkeypatch.chdir(tmp_path / "run")
    exec(code(), {})
    assert "<|latent|>" in capsys.readouterr().out
