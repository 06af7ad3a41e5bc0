"""What a run folder tells, whole or in pieces: what is not there, or damaged, is named and left out."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from coconut_lm import yamlfile
from coconut_lm.errors import UserError
from coconut_lm.files import read_text
from coconut_lm.runfolder import EVALUATION, PREDICTIONS, RunFolder, lines

THOUGHTS = "thoughts.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One folder of eval/: its figures, what was answered, and thoughts put into words."""

    name: str
    metrics: Mapping[str, Any]
    predictions: Sequence[Mapping[str, Any]] = ()
    thoughts: Sequence[Mapping[str, Any]] = ()

    def get(self, *path: str) -> Any:
        """A figure by its place in metrics.json, or None."""
        return dig(self.metrics, *path)

    @property
    def checkpoint(self) -> int:
        """The number at the end of the checkpoint's name, by which a later one is known."""
        found = re.search(r"(\d+)/?$", str(self.get("checkpoint") or ""))
        return int(found[1]) if found else -1


@dataclass(frozen=True)
class History:
    name: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    epochs: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Evaluation] = ()
    missing: Sequence[str] = ()

    @property
    def method(self) -> str:
        told = [self.config.get("method")]
        told += [
            flag for flag in ("coconut", "cot", "no_thoughts", "no_cot") if self.config.get(flag) is True
        ]
        told += [each.get("method") for each in self.evaluations]
        return next((str(each) for each in told if each), "unknown")

    @property
    def task(self) -> str | None:
        told = [each.get("task") for each in self.evaluations] + [self.config.get("task")]
        return next((str(each) for each in told if each), None)

    @cached_property
    def chief(self) -> Evaluation | None:
        """The evaluation that stands for the run: of most examples, of the latest checkpoint, with the
        thoughts it was trained for, the last by name. Never chosen by how well it came out."""
        measured = [each for each in self.evaluations if each.get("accuracy", "n")]
        trained = (self.config.get("c_thought") or 0) * (self.config.get("max_latent_stage") or 0)

        def rank(each: Evaluation) -> tuple[Any, ...]:
            usual = each.get("thoughts") in (None, trained)
            return each.get("accuracy", "n"), each.checkpoint, usual, each.name

        return max(measured, key=rank, default=None)


def dig(values: Any, *path: str) -> Any:
    """`values[a][b]...`, or None where there is nothing."""
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def read(places: Sequence[str | os.PathLike[str]]) -> list[History]:
    """The runs at these places, by names that tell them apart."""
    paths = [Path(place) for place in places]
    repeated = {str(path) for path in paths if sum(path.resolve() == each.resolve() for each in paths) > 1}
    if repeated:
        raise UserError("a run is given twice", given=", ".join(sorted(repeated)), do="name each once")
    return [_history(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as it takes to tell them apart."""
    whole = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def _history(path: Path, name: str) -> History:
    if not RunFolder.is_one(path) and not (path / EVALUATION).is_file():
        given = "it does not exist" if not path.exists() else "it has neither"
        raise UserError(
            f"{path} is no run folder",
            given=given,
            expected=f"a folder with config.yaml, or an evaluation's with {EVALUATION}",
            do="give the folder that a run or an evaluation wrote: save_path/name",
        )
    return _Reader(path).history(name)


class _Reader:
    """Reads one folder, and keeps account of what is missing."""

    def __init__(self, path: Path) -> None:
        self.folder, self.missing = RunFolder(path), list[str]()

    def history(self, name: str) -> History:
        folder = self.folder
        if not RunFolder.is_one(folder.path):
            alone = self.evaluation(folder.path)
            return History(name, folder.path, evaluations=[alone], missing=self.missing)
        config = self._mapping(lambda: yamlfile.read(folder.config))
        trained = not config.get("only_eval")
        rows = self._rows(folder.metrics)
        if trained and not rows:
            self.missing.append(f"no training was recorded ({folder.metrics.name} is empty or not there)")
        epochs = _last(rows, "epoch", "epoch")
        if trained and rows and not epochs:
            self.missing.append("no epoch was finished")
        return History(
            name,
            folder.path,
            config,
            self._mapping(lambda: self._json(folder.environment)),
            _last(rows, "step", "step"),
            epochs,
            self.evaluations(),
            self.missing,
        )

    def evaluations(self) -> list[Evaluation]:
        places = sorted(path for path in self.folder.evaluations.glob("*") if path.is_dir())
        found = [self.evaluation(path) for path in places]
        if not any(each.metrics for each in found):
            self.missing.append("no checkpoint was evaluated: coconut-lm eval does that")
        return found

    def evaluation(self, place: Path) -> Evaluation:
        label = f"evaluation {place.name}"
        if not (place / EVALUATION).is_file():
            self.missing.append(f"{label} is unfinished")
        metrics = self._mapping(lambda: self._json(place / EVALUATION))
        predictions = self._rows(place / PREDICTIONS)
        thoughts: Any = self._try(lambda: self._json(place / THOUGHTS), None)
        decoded = (
            [each for each in thoughts if isinstance(each, Mapping)] if isinstance(thoughts, list) else []
        )
        return Evaluation(place.name, metrics, predictions, decoded)

    def _json(self, path: Path) -> Any:
        """What the file holds; nothing where there is none. NaN, which is not JSON, is nothing too."""
        return json.loads(read_text(path), parse_constant=lambda _: None) if path.is_file() else None

    def _mapping(self, read: Callable[[], Any]) -> Mapping[str, Any]:
        found = self._try(read, None)
        return found if isinstance(found, Mapping) else {}

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        if not path.is_file():
            return []
        return self._try(lambda: [row for row in lines(path) if isinstance(row, dict)], [])

    def _try(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except json.JSONDecodeError as error:
            self.missing.append(f"a file is damaged: not JSON at line {error.lineno}")
        except UserError as error:
            self.missing.append("; ".join(line.strip() for line in str(error).splitlines()))
        return otherwise


def _last(rows: Sequence[Mapping[str, Any]], kind: str, key: str) -> list[Mapping[str, Any]]:
    """The rows of a kind in the order of their key; a resumed run may have written some again."""
    found = {row[key]: row for row in rows if row.get("kind") == kind and isinstance(row.get(key), int)}
    return [found[number] for number in sorted(found)]
