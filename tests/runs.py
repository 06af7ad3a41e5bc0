"""Small runs: made examples, a model of one layer, and processes that end in the middle."""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coconut_lm import launch
from coconut_lm.config import Config
from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.runfolder import RunFolder

SHAPE = {"model_type": "gpt2", "n_positions": 128, "n_embd": 16, "n_layer": 1, "n_head": 2}
SHAPE |= dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.1)
TIMES = ("seconds", "tokens_per_second", "memory")


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


def train(name: str, **changes: Any) -> bool:
    return launch.run(Config(**settings(name=name, **changes)))


def folder(name: str) -> RunFolder:
    return RunFolder(Path("runs", name))


def forked(work: Callable[[], object]) -> int:
    """Runs `work` in a process of its own, which has what is loaded; its exit code, or minus a signal."""
    process = start(work)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def start(work: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which newer Pythons give
        process = os.fork()
    if process:
        return process
    try:
        work()
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):
            traceback.print_exc()
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 70)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def figures(name: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    rows = map(json.loads, folder(name).metrics.read_text("utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
