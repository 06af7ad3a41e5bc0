"""A small checkpoint that stands in a run's folder: random weights, four epochs said to be done. And commands
that are asked about it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny import base_model
from typer.testing import CliRunner, Result

from coconut_lm import CoconutForCausalLM, add_latent_tokens, word_tokenizer
from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.runfolder import Progress

EXAMPLES = list(prosqa.make(12, seed=1, nodes=8, edges=6, hops=3, shape="sized"))
RUN = "runs/a"
CHECKPOINT = f"{RUN}/checkpoints/checkpoint_4"


def texts(examples: Sequence[Example]) -> list[str]:
    return [" ".join([e.question, *e.steps, e.answer]) for e in examples]


def save(place: str, method: str = "coconut", **run: Any) -> None:
    """A checkpoint with its run.yaml: the last epoch was at stage 2. The examples are in prosqa.json."""
    write_examples("prosqa.json", EXAMPLES, force=True)
    tokenizer = word_tokenizer(texts(EXAMPLES))
    size = len(tokenizer)
    add_latent_tokens(tokenizer)
    base = base_model("gpt2", vocab_size=size, bos_token_id=0, eos_token_id=0)
    thinks = "random" if method == "coconut" else None
    CoconutForCausalLM.from_base(base, tokenizer, new_token_init=thinks).save_pretrained(place)
    tokenizer.save_pretrained(place)
    paths = {"train_path": "prosqa.json", "val_path": "prosqa.json"}
    run = {"model_id": place, "c_thought": 1, "max_latent_stage": 3, "eval_batch_size": 5} | paths | run
    dump(Config(method=method, **run), Path(place) / "run.yaml")
    Progress(epoch=4, step=40, stage=2 if method == "coconut" else 0).write(Path(place))


def stand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a folder with a run that has this checkpoint."""
    monkeypatch.chdir(folder)
    save(CHECKPOINT)
    dump(Config(method="coconut", model_id="gpt2"), Path(RUN) / "config.yaml")
    return folder


@dataclass(frozen=True)
class Typed:
    """A command as a user types it; `usual` are the words before others that begin with no file."""

    command: str
    usual: Sequence[object]

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(app, [self.command, *map(str, words)], env={"COLUMNS": "80"})

    def well(self, *words: object) -> dict[str, Any]:
        """What --json prints."""
        alone = bool(words) and Path(str(words[0])).exists()
        done = self(*([] if alone else self.usual), *words, "--json")
        assert done.exit_code == 0, done.stderr or repr(done.exception)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wrongly(self, *words: object) -> str:
        """The message, in one line; nothing is left behind."""
        before = sorted(Path().rglob("*"))
        done = self(*words)
        assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
        assert "Traceback" not in done.stderr and sorted(Path().rglob("*")) == before
        return " ".join(done.stderr.split())


def rows(folder: str | Path, name: str = "predictions.jsonl") -> list[dict[str, Any]]:
    """Of a study, but for the clock."""
    text = (Path(folder) / name).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in text]
