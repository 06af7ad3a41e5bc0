"""A run's folder: which file is where, what its metrics say, which checkpoints are whole.

    config.yaml   env.json   metrics.jsonl
    checkpoint_N.safetensors    the weights of one checkpoint alone, where the configuration asks for it
    checkpoints/checkpoint_N/   N epochs finished
    checkpoints/step_K/         a place to go on from inside an epoch, kept until the next one is whole
    eval/NAME/                  predictions.jsonl, metrics.json, validation_examples.txt

A checkpoint holds the model, the tokenizer, run.yaml (the configuration) and progress.json; the newest one
also holds state/, with which training goes on.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coconut_lm.errors import UserError
from coconut_lm.files import atomic_write, read_text

CONFIG, ENVIRONMENT, METRICS = "config.yaml", "env.json", "metrics.jsonl"
RUN, PROGRESS, STATE = "run.yaml", "progress.json", "state"
PREDICTIONS, EVALUATION, TEXTS = "predictions.jsonl", "metrics.json", "validation_examples.txt"
_NAME = re.compile(r"(checkpoint|step)_(\d+)")


@dataclass(frozen=True)
class Progress:
    """Where training stands, beside every checkpoint."""

    epoch: int = 0
    """Epochs finished, from 0."""
    batches: int = 0
    """Optimizer steps made in the epoch that is under way."""
    step: int = 0
    """Optimizer steps made in all."""
    validated: bool = False
    """Whether the last thing done was to validate."""
    stage: int = 0
    """Stage of the epoch that was trained last."""
    best: float | None = None
    """Best validation accuracy so far."""
    global_batch: int = 0
    """Rows of one optimizer step, all ranks together."""
    data: str = ""
    """Fingerprint of the training examples."""
    asked: str = ""
    """Fingerprint of the validation examples, which `best` is of."""

    @classmethod
    def read(cls, checkpoint: Path) -> "Progress":
        """That of a checkpoint's folder."""
        path = checkpoint / PROGRESS
        text = read_text(path)
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            do = "copy the checkpoint again, or remove it"
            raise UserError(f"{path} is damaged", given=error, do=do) from None

    def write(self, checkpoint: Path) -> None:
        """Into a checkpoint's folder."""
        write_json(checkpoint / PROGRESS, vars(self))


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are. Nothing need be there yet, and nothing is made by asking."""

    path: Path

    @classmethod
    def is_one(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a run was begun there."""
        return (Path(path) / CONFIG).is_file()

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def environment(self) -> Path:
        return self.path / ENVIRONMENT

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def evaluations(self) -> Path:
        return self.path / "eval"

    def evaluation(self, name: str) -> Path:
        """The folder of one evaluation."""
        return self.evaluations / name

    def checkpoint(self, epochs: int) -> Path:
        """The checkpoint after so many finished epochs."""
        return self.path / "checkpoints" / f"checkpoint_{epochs}"

    def mlx_file(self, checkpoint: Path) -> Path:
        """The file of a checkpoint's weights alone, under the name that it has in mlx-coconut."""
        return self.path / f"{checkpoint.name}.safetensors"

    def step(self, steps: int) -> Path:
        """The place to go on from after so many optimizer steps."""
        return self.path / "checkpoints" / f"step_{steps}"

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind in metrics.jsonl."""
        if not self.metrics.is_file():
            return []
        return [row for row in lines(self.metrics) if row["kind"] == kind]

    def checkpoints(self) -> list[Path]:
        """Those of finished epochs, oldest first."""
        return [path for path in self._saved() if path.name.startswith("checkpoint_")]

    def newest(self) -> Path | None:
        """Where training goes on: the checkpoint with a state that got farthest."""
        whole = [path for path in self._saved() if (path / STATE).is_dir()]
        return max(whole, key=_how_far, default=None)

    def _saved(self) -> list[Path]:
        found = [(_NAME.fullmatch(path.name), path) for path in self.path.glob("checkpoints/*")]
        named = [(int(name[2]), path) for name, path in found if name and (path / PROGRESS).is_file()]
        return [path for _, path in sorted(named)]


def _how_far(checkpoint: Path) -> tuple[int, int]:
    progress = Progress.read(checkpoint)
    return progress.step, progress.epoch


def checkpoint_of(place: str | os.PathLike[str]) -> Path:
    """A run folder's checkpoint that got farthest; any other place is one itself."""
    path = Path(place)
    if not RunFolder.is_one(path):
        return path
    folder = RunFolder(path)
    found = folder.checkpoints()
    if newest := folder.newest() or (found[-1] if found else None):
        return newest
    raise UserError(f"{path} holds no checkpoint yet", expected=f"{path}/checkpoints/checkpoint_N")


def lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line that was cut off is left out."""
    rows = read_text(path).split("\n")
    for number, row in enumerate(rows, start=1):
        try:
            if row.strip():
                yield json.loads(row)
        except json.JSONDecodeError:
            if number < len(rows):  # a line that was written whole ends with a line break
                raise UserError(f"{path} is damaged", given=f"line {number} is not JSON") from None


def write_lines(path: str | os.PathLike[str], rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    """One object a line; whole or not at all."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Indented, as UTF-8; whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
