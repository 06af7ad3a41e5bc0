"""Saving so that a run goes on as if it had not been interrupted, and stopping in order.

A checkpoint is written beside its place by all ranks and renamed by the first: it is there whole or not
at all.
"""

import errno
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from coconut_lm.errors import UserError
from coconut_lm.runfolder import STATE, RunFolder

PARTIAL = ".partial"


@contextmanager
def whole(place: Path, accelerator: Accelerator) -> Iterator[Path]:
    """A folder to write into, which takes its name when every rank is done."""
    beside = place.with_name(f".{place.name}{PARTIAL}")
    if accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        yield beside
    except (OSError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise _unsaved(place, error) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _rename(beside, place)
    accelerator.wait_for_everyone()


def _rename(beside: Path, place: Path) -> None:
    """What had the name before goes only when its successor has it."""
    old = place.with_name(f".{place.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _unsaved(place: Path, error: Exception) -> Exception:
    """torch's writers wrap what the disk said in errors of their own."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if not full and not isinstance(error, OSError):
        return error
    return UserError(
        f"{place} could not be saved",
        given="the disk is full" if full else error,
        do="make room, then give the same command again: what was saved before is whole",
    )


def weights(model: nn.Module) -> dict[str, Any]:
    """All weights on the first rank, whatever the sharding; nothing on the others."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def tidy(folder: RunFolder, newest: Path, keep_last: int | None) -> None:
    """Removes what the newest makes superfluous: places to go on from, and what keep_last does not keep."""
    for place in folder.path.glob("checkpoints/*"):
        if place.name.endswith(PARTIAL) or (place.name.startswith("step_") and place != newest):
            shutil.rmtree(place)
    saved = folder.checkpoints()
    for place in saved:
        if place != newest:
            shutil.rmtree(place / STATE, ignore_errors=True)
    for place in saved[:-keep_last] if keep_last else ():
        shutil.rmtree(place)


# A frozen weight is what the configuration says: only what is trained is kept.
TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


def save_state(folder: Path, model: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> None:
    """Weights, optimizer and random numbers, every rank its part."""
    state = _state(model, optimizer)
    with _alone():
        save(state, checkpoint_id=folder / STATE, no_dist=accelerator.num_processes == 1)
    torch.save(_random(), folder / STATE / f"random_{accelerator.process_index}.pt")


def load_state(folder: Path, model: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> None:
    state = _state(model, optimizer)
    try:
        with _alone():
            load(state, checkpoint_id=folder / STATE, no_dist=accelerator.num_processes == 1)
        drawn = folder / STATE / f"random_{accelerator.process_index}.pt"
        random = torch.load(drawn, weights_only=True) if drawn.is_file() else None  # more ranks than before
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, CheckpointException) as error:
        raise UserError(
            f"{folder} cannot be gone on from",
            given=str(error).splitlines()[0],
            do="remove it, to go on from the checkpoint before it",
        ) from error
    set_model_state_dict(model, state["model"], options=TRAINED)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=TRAINED)
    if random is not None:
        _draw_on(random)


@contextmanager
def _alone() -> Iterator[None]:
    """torch warns of a single process although it is told of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(model, options=TRAINED),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=TRAINED),
    }


def _random() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    elif torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def _draw_on(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    elif "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


class Stop:
    """SIGTERM and Ctrl-C ask to stop at the next step; a second Ctrl-C does not ask."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is not threading.main_thread():
            return self  # signals come to the main thread only
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
