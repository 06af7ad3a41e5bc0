"""Small runs: made examples, a model of one layer, and processes that end in the middle."""

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coconut_lm import cli, launch
from coconut_lm.config import Config
from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.runfolder import RunFolder
from coconut_lm.train import Watch

SHAPE = {"model_type": "gpt2", "n_positions": 128, "n_embd": 16, "n_layer": 1, "n_head": 2}
SHAPE |= dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.1)
TIMES = ("seconds", "tokens_per_second", "memory")
CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
STUCK = 120  # seconds after which a process of a test has hung


def make_data(train: int = 18, valid: int = 4, seed: int = 1) -> None:
    """train.json, valid.json and model.json in the folder where the test stands."""
    graphs: dict[str, Any] = {"nodes": 8, "edges": 6, "hops": 3, "shape": "sized", "style": "symbols"}
    write_examples("train.json", list(prosqa.make(train, seed=seed, **graphs)), force=True)
    write_examples("valid.json", list(prosqa.make(valid, seed=seed + 1, **graphs)), force=True)
    Path("model.json").write_text(json.dumps(SHAPE))


def settings(**changes: Any) -> dict[str, Any]:
    """Three epochs of three steps, a stage each."""
    given: dict[str, Any] = {
        "method": "coconut",
        "name": "a",
        "model_id": "model.json",
        "tokenizer": "word",
        "train_path": "train.json",
        "val_path": "valid.json",
        "task": "prosqa",
        "max_latent_stage": 2,
        "num_epochs": 3,
        "batch_size_training": 6,
        "lr": 1e-3,
        "max_new_tokens": 4,
        "new_token_init": "mean",
    }
    return given | changes


def train(watch: Watch | None = None, **changes: Any) -> bool:
    return launch.run(Config(**settings(**changes)), watch)


def folder(name: str = "a") -> RunFolder:
    return RunFolder(Path("runs", name))


# -- processes of their own --


def forked(work: Callable[[], object]) -> int:
    """Runs `work` in a process of its own, which has what is loaded; its exit code, or minus a signal."""
    return ended(start(work))


def start(work: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which newer Pythons give
        process = os.fork()
    if process:
        return process
    code = 0
    try:
        signal.alarm(STUCK)
        torch.set_num_threads(1)
        work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def command(*words: object, prepare: Callable[[], object] = lambda: None) -> Said:
    """`coconut-lm WORDS` as typed, after `prepare` in the same process."""

    def work() -> None:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ["COLUMNS"] = "120"
        sys.argv = ["coconut-lm", *map(str, words)]
        prepare()
        cli.main()

    code = forked(work)
    return Said(code, Path("out").read_text("utf-8"), Path("err").read_text("utf-8"))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_file_operation(
    number: int, act: Callable[[], object] = die, events: Collection[str] = CHANGES
) -> None:
    """Acts at the n-th time that this process opens, renames, makes or removes something of a run."""
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in events and (event != "open" or "runs" in str(args[0])):
            seen += 1
            if seen == number:
                act()

    sys.addaudithook(hook)  # for ever: only in a process that ends


class At(Watch):
    """Acts after the n-th step, or at the n-th answer."""

    def __init__(self, act: Callable[[], object], *, step: int = 0, answer: int = 0) -> None:
        self.act, self.steps, self.answers = act, step, answer

    def step(self, record: dict[str, Any]) -> None:
        self.steps -= 1
        if self.steps == 0:
            self.act()

    def answered(self, prediction: Any, total: int) -> None:
        self.answers -= 1
        if self.answers == 0:
            self.act()


# -- what is left of a run --


def figures(name: str = "a") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    rows = map(json.loads, folder(name).metrics.read_text("utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def left(name: str = "a") -> dict[str, Any]:
    """Every file of the checkpoints by its content, and the figures. `.metadata` is an index, pickled."""
    place = folder(name).path / "checkpoints"
    kept = [path for path in place.rglob("*") if path.is_file() and path.name != ".metadata"]
    files = {str(path.relative_to(place)): path.read_bytes() for path in kept}
    places = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    return {"places": places, "figures": figures(name), **files}
