"""What a run folder tells, whole or in pieces: what is not there, or damaged, is named and left out."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from coconut_lm import yamlfile
from coconut_lm.config import METHOD_FLAGS
from coconut_lm.errors import UserError
from coconut_lm.files import read_text
from coconut_lm.runfolder import EVALUATION, PREDICTIONS, RunFolder, lines

THOUGHTS = "thoughts.json"
STUDIES = ("battery", "robustness", "branches")
"""Each is a folder of a run, one study a folder in it, which its KIND.json finishes."""
T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One folder of eval/, by its metrics.json."""

    name: str
    metrics: Mapping[str, Any]

    def get(self, *path: str) -> Any:
        """A figure by its place, or None."""
        return dig(self.metrics, *path)

    @property
    def checkpoint(self) -> int:
        """The number at the end of the checkpoint's name, by which a later one is known."""
        found = re.search(r"(\d+)/?$", str(self.get("checkpoint") or ""))
        return int(found[1]) if found else -1


@dataclass(frozen=True)
class Study:
    """What one look at a checkpoint came to, by its KIND.json."""

    kind: str
    name: str
    figures: Mapping[str, Any]

    def get(self, *path: str) -> Any:
        """A figure by its place, or None."""
        return dig(self.figures, *path)

    def all(self, *path: str) -> list[Mapping[str, Any]]:
        """The entries of a list, as `mappings` reads it."""
        return mappings(self.get(*path))


@dataclass(frozen=True)
class History:
    """One run as its folder tells it; `missing` says in words what is not there or damaged."""

    name: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    epochs: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Evaluation] = ()
    chief: Evaluation | None = None
    """The evaluation that stands for the run."""
    predictions: Sequence[Mapping[str, Any]] = ()
    """The chief's."""
    thoughts: Sequence[Mapping[str, Any]] = ()
    """Put into words; the chief's, or else any."""
    studies: Sequence[Study] = ()
    missing: Sequence[str] = ()

    @property
    def method(self) -> str:
        """By its configuration, or else by its evaluations; \"unknown\" where neither says."""
        told = [self.config.get("method")]
        told += [flag for flag in METHOD_FLAGS if self.config.get(flag) is True]
        told += [each.get("method") for each in self.evaluations]
        told += [each.get("method") for each in self.studies]
        return next((str(each) for each in told if each), "unknown")

    @property
    def task(self) -> str | None:
        """What it was measured on; None where nothing says."""
        told = [each.get("task") for each in self.evaluations] + [self.config.get("task")]
        told += [each.get("task") for each in self.studies]
        return next((str(each) for each in told if each), None)


def number(value: Any) -> float | None:
    """A finite number, or nothing."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def dig(values: Any, *path: str) -> Any:
    """`values[a][b]...`, or None where there is nothing."""
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def mappings(values: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; nothing where there is no list."""
    return [each for each in values if isinstance(each, Mapping)] if isinstance(values, list) else []


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
    if not (RunFolder.is_one(path) or (path / EVALUATION).is_file() or any(_kinds(path))):
        given = "it does not exist" if not path.exists() else "it has none of them"
        files = " or ".join(f"{kind}.json" for kind in STUDIES)
        raise UserError(
            f"{path} is no run folder",
            given=given,
            expected=f"a folder with config.yaml, an evaluation's with {EVALUATION}, or a study's: {files}",
            do="give the folder that a run, an evaluation or a study wrote: save_path/name",
        )
    return _Reader(path).history(name)


def _kinds(path: Path) -> Iterator[str]:
    """What this is a study's folder of."""
    return (kind for kind in STUDIES if (path / f"{kind}.json").is_file())


class _Reader:
    """Reads one folder, and keeps account of what is missing."""

    def __init__(self, path: Path) -> None:
        self.folder, self.missing = RunFolder(path), list[str]()

    def history(self, name: str) -> History:
        folder = self.folder
        if not RunFolder.is_one(folder.path):
            return self._alone(History(name, folder.path))
        config = self._mapping(lambda: yamlfile.read(folder.config))
        environment = self._mapping(lambda: self._json(folder.environment))
        rows = self._rows(folder.metrics)
        steps, epochs = _last(rows, "step", "step"), _last(rows, "epoch", "epoch")
        if not config.get("only_eval") and not rows:
            self.missing.append(f"no training was recorded ({folder.metrics.name} is empty or not there)")
        elif not config.get("only_eval") and not epochs:
            self.missing.append("no epoch was finished")
        places = sorted(path for path in folder.evaluations.glob("*") if path.is_dir())
        studies = list(self._studies())
        whole = History(name, folder.path, config, environment, steps, epochs, studies=studies)
        return self._with_evaluations(whole, places)

    def _alone(self, history: History) -> History:
        """Of an evaluation, or of a study, around which there is no run."""
        place = history.path
        if (place / EVALUATION).is_file():
            return self._with_evaluations(history, [place])
        studies = [each for kind in _kinds(place) for each in self._study(kind, place)]
        return replace(history, studies=studies, missing=self.missing)

    def _studies(self) -> Iterator[Study]:
        """The finished ones in the run's folder."""
        for kind in STUDIES:
            for place in sorted(path for path in (self.folder.path / kind).glob("*") if path.is_dir()):
                yield from self._study(kind, place)

    def _study(self, kind: str, place: Path) -> Iterator[Study]:
        path = place / f"{kind}.json"
        if not path.is_file():
            self.missing.append(f"{kind} {place.name} is unfinished")
        elif figures := self._mapping(lambda: self._json(path)):
            yield Study(kind, place.name, figures)
        else:
            self.missing.append(f"{kind} {place.name} holds no figures")

    def _with_evaluations(self, history: History, places: Sequence[Path]) -> History:
        unfinished = [place.name for place in places if not (place / EVALUATION).is_file()]
        self.missing += [f"evaluation {name} is unfinished" for name in unfinished]
        there = {place: self._evaluation(place) for place in places if place.name not in unfinished}
        best = _chief(there, history.config)
        if best is None:
            self.missing.append("no checkpoint was evaluated: coconut-lm eval does that")
        decoded = [place for place in [best, *reversed(there)] if place and (place / THOUGHTS).is_file()]
        return replace(
            history,
            evaluations=list(there.values()),
            chief=there[best] if best else None,
            predictions=self._rows(best / PREDICTIONS) if best else [],
            thoughts=self._listed(decoded[0] / THOUGHTS) if decoded else [],
            missing=self.missing,
        )

    def _evaluation(self, place: Path) -> Evaluation:
        return Evaluation(place.name, self._mapping(lambda: self._json(place / EVALUATION)))

    def _json(self, path: Path) -> Any:
        """What the file holds; nothing where there is none. NaN, which is not JSON, is nothing too."""
        if not path.is_file():
            return None
        try:
            return json.loads(read_text(path), parse_constant=lambda _: None)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is damaged: not JSON at line {error.lineno}") from None

    def _mapping(self, read: Callable[[], Any]) -> Mapping[str, Any]:
        found = self._try(read, None)
        return found if isinstance(found, Mapping) else {}

    def _listed(self, path: Path) -> list[Mapping[str, Any]]:
        return mappings(self._try(lambda: self._json(path), None))

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        if not path.is_file():
            return []
        return self._try(lambda: [row for row in lines(path) if isinstance(row, dict)], [])

    def _try(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except UserError as error:
            self.missing.append("; ".join(line.strip() for line in str(error).splitlines()))
        return otherwise


def _chief(found: Mapping[Path, Evaluation], config: Mapping[str, Any]) -> Path | None:
    """Of most examples, of the latest checkpoint, asked for rather than made while training, with as many
    thoughts as were trained, by the plainest name. Never chosen by how well it came out."""
    each_stage, stages = (number(config.get(key)) for key in ("c_thought", "max_latent_stage"))
    trained = None if each_stage is None or stages is None else each_stage * stages

    def rank(place: Path) -> tuple[Any, ...]:
        each = found[place]
        usual = each.get("thoughts") in (None, trained)
        asked = each.get("data_sha256") is not None
        return (
            number(each.get("accuracy", "n")) or 0,
            each.checkpoint,
            asked,
            usual,
            -len(each.name),
            each.name,
        )

    measured = [place for place in found if number(found[place].get("accuracy", "rate")) is not None]
    return max(measured, key=rank, default=None)


def _last(rows: Sequence[Mapping[str, Any]], kind: str, key: str) -> list[Mapping[str, Any]]:
    """The rows of a kind in the order of their key; a resumed run may have written some again."""
    found = {row[key]: row for row in rows if row.get("kind") == kind and isinstance(row.get(key), int)}
    return [found[number] for number in sorted(found)]
