"""Where a run's figures go: metrics.jsonl always, and the trackers that `report_to` names.

    {"kind": "step", "step": 12, "loss": 3.1, ...}

Lines are strict JSON: what is not finite becomes null, and "not_finite" says what it was. Trackers get the
same figures under the names that users of the published code know (train/loss, eval/acc, ...).
"""

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coconut_lm.config import Config
from coconut_lm.errors import UserError
from coconut_lm.runfolder import RunFolder, lines, write_lines

KNOWN_AS = (  # the first that fits
    ("step/", "train/"),
    ("epoch/train_loss", "train/avg_loss"),
    ("epoch/val_accuracy", "eval/acc"),
    ("epoch/val_cot_match", "eval/cot_em"),
    ("epoch/val_", "eval/"),
    ("epoch/monitors/", "thoughts/"),
    ("epoch/window/", "window/"),
)
"""What a figure of metrics.jsonl is called in the trackers."""


class Tracker:
    """Writes what it is told; on a process that is not `active`, nothing.

    What keeps a tracker from being used at all is an error before training. One that fails later is left out
    with a word to `say`: it must not end the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        *,
        active: bool = True,
        say: Callable[[str], object] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self.folder, self.config, self.active, self.say = folder, config, active, say
        self.step = 0
        self._wanted: Sequence[str] = () if config.debug or not active else config.report_to
        self._outside: dict[str, Any] = {}
        _refuse_missing(self._wanted)
        if active:
            _drop_cut_line(folder.metrics)

    def rewind(self, step: int, epoch: int | None = None) -> None:
        """Cuts what was written after `step` steps, and of epochs from `epoch` on: they are done again."""
        self.step = step
        if self.active and self.folder.metrics.exists():
            last = math.inf if epoch is None else epoch
            kept = [
                row
                for row in lines(self.folder.metrics)
                if row.get("step", 0) <= step and (row["kind"] != "epoch" or row["epoch"] < last)
            ]
            with _told(self.folder.metrics):
                write_lines(self.folder.metrics, kept)

    def start(self) -> None:
        """Starts the trackers, once; the first `log` does, where nobody did before."""
        wanted, self._wanted = self._wanted, ()
        if wanted:
            from accelerate import PartialState

            PartialState()  # accelerate's trackers ask for it, and fail where a trainer has not made it
        for name in wanted:
            try:
                tracker = OUTSIDE[name](self.folder.path, self.config, self.step)
                tracker.start()
                if name == "tensorboard":  # the others have a place of their own for it
                    settings = json.dumps(self.config.model_dump(), indent=2)
                    tracker.log({"config": f"    {settings}".replace("\n", "\n    ")}, step=0)
            except Exception as error:  # whatever a tracker raises
                if self.step == 0:
                    raise UserError(
                        f"{name} does not start", given=_words(error), do=f"{_REMEDY}{name} out of report_to"
                    ) from None
                self._lost(name, error)
            else:
                self._outside[name] = tracker

    def log(self, kind: str, **values: Any) -> None:
        """One line, and the numbers in it to the trackers."""
        if not self.active:
            return
        self.start()
        odd: dict[str, str] = {}
        row = {"kind": kind, **_cleaned(values, "", odd)}
        _append(self.folder.metrics, row | ({"not_finite": odd} if odd else {}))
        figures = {known_as(name): value for name, value in _numbers(values=row, above=kind)}
        self._each(lambda tracker: tracker.log(figures, step=row.get("step")))

    def close(self) -> None:
        self._wanted = ()
        self._each(lambda tracker: tracker.finish())
        self._outside = {}

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, tell: Callable[[Any], object]) -> None:
        for name, tracker in list(self._outside.items()):
            try:
                tell(tracker)
            except Exception as error:  # a network, a full disk, a bug: theirs, and not the run's
                del self._outside[name]
                self._lost(name, error)

    def _lost(self, name: str, error: Exception) -> None:
        self.say(f"{name} failed and is left out from here on; metrics.jsonl has it all ({_words(error)})")


def known_as(name: str) -> str:
    """The name in trackers of kind/key/..."""
    return next((new + name[len(old) :] for old, new in KNOWN_AS if name.startswith(old)), name)


# -- trackers, by the names of report_to --

_REMEDY = "see what it says, set WANDB_MODE=offline to send later, or leave "


def _wandb(folder: Path, config: Config, step: int) -> Any:
    """Goes on with the run of this folder, if there is one; repeated steps are then ignored there."""
    from accelerate.tracking import WandBTracker

    files = sorted(folder.glob("wandb/*run-*/run-*.wandb"), key=lambda p: p.parent.name.split("run-", 1)[1])
    again = {"id": files[-1].stem.removeprefix("run-"), "resume": "allow"} if files and step else {}
    settings = config.model_dump(mode="json")
    return WandBTracker(config.project, name=config.name, dir=str(folder), config=settings, **again)


def _tensorboard(folder: Path, config: Config, step: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker("tensorboard", folder, purge_step=step + 1 if step else None)


def _trackio(folder: Path, config: Config, step: int) -> Any:
    from accelerate.tracking import TrackioTracker

    resume = "allow" if step else "never"
    settings = config.model_dump(mode="json")
    return TrackioTracker(config.project, name=config.name, config=settings, resume=resume)


OUTSIDE: dict[str, Callable[[Path, Config, int], Any]] = {
    "wandb": _wandb,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}


def _refuse_missing(names: Iterable[str]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"report_to: {', '.join(missing)} is not installed",
            do=f'pip install "coconut-lm[{",".join(missing)}]", or leave it out of report_to',
        )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


# -- lines --


def _cleaned(value: Any, name: str, odd: dict[str, str]) -> Any:
    """The value as JSON holds it; what is not finite is null, and noted in `odd`."""
    if isinstance(value, Mapping):
        return {key: _cleaned(each, f"{name}/{key}".lstrip("/"), odd) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each, f"{name}/{number}", odd) for number, each in enumerate(value)]
    if hasattr(value, "tolist"):  # numpy's and torch's
        return _cleaned(value.tolist(), name, odd)
    if isinstance(value, float) and not math.isfinite(value):
        odd[name] = str(value)
        return None
    return value


def _numbers(values: Any, above: str) -> Iterator[tuple[str, float]]:
    """The numbers in what was cleaned, each with its way there."""
    if isinstance(values, dict | list):
        inner = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in inner:
            yield from _numbers(value, f"{above}/{key}")
    elif isinstance(values, int | float):
        yield above, values


def _append(path: Path, row: dict[str, Any]) -> None:
    """The whole line at the end of the file, or nothing of it."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with _told(path), open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            while line:  # a disk that fills up takes a part of it first
                line = line[file.write(line) or 0 :]
        except OSError:
            file.truncate(end)
            raise


def _drop_cut_line(path: Path) -> None:
    """A process that was killed may have left half a line."""
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}",
            given=error.strerror,
            do="make room, or the right to write there; run again to go on from the last checkpoint",
        ) from None
