"""Seconds until something happens: the command, the package, the first step of a run."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clock import repeated
from figure import Figure, Job

from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.runfolder import RunFolder
from coconut_lm.yamlfile import write

FIRST = ["-m", "coconut_lm", "run", "run.yaml"]
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
RUN = {
    "name": "first",
    "method": "coconut",
    "model_id": "model.json",
    "tokenizer": "word",
    "new_token_init": "mean",
    "train_path": "train.json",
    "val_path": "valid.json",
    "max_latent_stage": 1,
    "num_epochs": 1,
    "max_steps": 1,
    "debug": True,  # nothing is saved
    "max_new_tokens": 2,
}
SHAPE = {"model_type": "gpt2", "n_embd": 96, "n_layer": 2, "n_head": 4}
COMMANDS = {
    "coconut-lm --help": ["-m", "coconut_lm", "--help"],
    "import coconut_lm": ["-c", "import coconut_lm"],
}


def measure(job: Job) -> Iterator[Figure]:
    for name, words in COMMANDS.items():
        job.say(f"start-up: {name}")
        seconds = repeated(partial(_call, words), job.effort, job.device)
        yield Figure("plumbing", name, "s", seconds)
    job.say("start-up: a run's first step")
    seconds = [_first_step() for _ in range(1 if job.quick else min(3, job.effort.repeats))]
    yield Figure("plumbing", "coconut-lm run, to its first step (tiny)", "s", seconds)


def _call(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], check=True, **QUIET)


def _first_step() -> float:
    """Until the first step's line is in metrics.jsonl."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        _write_run(folder)
        run = RunFolder(folder / "runs" / "first")
        begun = time.perf_counter()
        with subprocess.Popen([sys.executable, *FIRST], cwd=folder, **QUIET) as process:
            while not run.logged("step") and process.poll() is None:
                time.sleep(0.01)
            seconds = time.perf_counter() - begun
        if process.returncode:
            raise RuntimeError("the run that was to be timed failed")
        return seconds


def _write_run(folder: Path) -> None:
    """Made graphs, a small model from scratch, one step."""
    graphs: dict[str, Any] = {"nodes": 8, "edges": 6, "hops": 3, "shape": "sized", "style": "symbols"}
    for name, number, seed in (("train.json", 32, 0), ("valid.json", 4, 1)):
        write_examples(folder / name, list(prosqa.make(number, seed=seed, **graphs)))
    (folder / "model.json").write_text(json.dumps(SHAPE))
    (folder / "run.yaml").write_text(write(RUN))
