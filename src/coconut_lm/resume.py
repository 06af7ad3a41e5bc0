"""Saving so that a run goes on as if it had not been interrupted, and stopping in order.

A checkpoint is written beside its place by all ranks and renamed by the first: it is there whole or not
at all.
"""

import errno
import os
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
from safetensors import SafetensorError
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
from coconut_lm.plainstate import PlainPlanner, PlainReader
from coconut_lm.runfolder import STATE, Progress, RunFolder

PARTIAL, OLD = ".partial", ".old.partial"
ON_MLX = "mlx.safetensors"  # the state of a run on MLX, whole


@contextmanager
def whole(place: Path, accelerator: Accelerator) -> Iterator[Path]:
    """A folder to write into, which takes its name when every rank is done."""
    beside = place.with_name(f".{place.name}{PARTIAL}")
    try:
        if accelerator.is_main_process:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
        accelerator.wait_for_everyone()
        yield beside
        _settle(beside)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _rename(beside, place)
    except (Exception, CheckpointException) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise _unsaved(place, error) from error
    accelerator.wait_for_everyone()


def _settle(folder: Path) -> None:
    """On the disk itself, before an older one goes: a machine may stop as well as a process."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _rename(beside: Path, place: Path) -> None:
    """What had the name before goes only when its successor has it."""
    old = place.with_name(f".{place.name}{OLD}")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: RunFolder) -> None:
    """Between two renames a checkpoint has no name of its own; whoever was killed there left it so."""
    for old in folder.path.glob(f"checkpoints/.*{OLD}"):
        place = old.with_name(old.name.removeprefix(".").removesuffix(OLD))
        if not place.exists():
            old.rename(place)


def _unsaved(place: Path, error: BaseException) -> BaseException:
    """What the disk said, which torch's writers wrap in errors of their own; anything else is as it was."""
    said = str(error)
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in said
    # torch's archives do not say why they could not be written.
    refused = isinstance(error, OSError | SafetensorError) or "Errno" in said or "PytorchStreamWriter" in said
    if not full and not refused:
        return error
    return UserError(
        f"{place} could not be saved",
        given="the disk is full" if full else said.strip().splitlines()[-1],
        do="make room, then give the same command again: what was saved before is whole",
    )


def weights(model: nn.Module, only_trained: bool = False) -> dict[str, Any]:
    """All weights on the first rank, whatever the sharding; nothing on the others."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=only_trained)
    return get_model_state_dict(model, options=options)


def tidy(folder: RunFolder, newest: Path, keep_last: int | None) -> None:
    """Removes what the newest makes superfluous: places to go on from, and what keep_last does not keep."""
    for place in folder.path.glob("checkpoints/*"):
        if place.name.endswith(PARTIAL) or (place.name.startswith("step_") and place != newest):
            shutil.rmtree(place)
    for left in folder.path.glob(f".checkpoint_*{PARTIAL}"):
        left.unlink()
    saved = folder.checkpoints()
    for place in saved:
        if place != newest:
            shutil.rmtree(place / STATE, ignore_errors=True)
    for place in saved[:-keep_last] if keep_last else ():
        folder.mlx_file(place).unlink(missing_ok=True)
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
    if (folder / STATE / ON_MLX).is_file():
        raise began_elsewhere(folder, "mlx")
    state, rank = _state(model, optimizer), accelerator.process_index
    with readable(folder):
        _leave_out_unused(state, folder)
        with _alone():
            load(
                state,
                storage_reader=PlainReader(folder / STATE),
                planner=PlainPlanner(),
                no_dist=accelerator.num_processes == 1,
            )
        drawn = folder / STATE / f"random_{rank}.pt"
        known = rank == 0 or drawn.is_file()  # there may be more ranks than before
        random = torch.load(drawn, weights_only=True) if known else None
    set_model_state_dict(model, state["model"], options=TRAINED)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=TRAINED)
    if random is not None:
        _draw_on(random)


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """What goes wrong meanwhile is wrong with the state."""
    try:
        yield
    except (Exception, CheckpointException) as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{folder / STATE} cannot be gone on from",
            given=([type(error).__name__, *str(error).strip().split("\n")])[-1] or type(error).__name__,
            do=f"start another run from weights that are whole: {from_weights(folder)}",
        ) from error


def began_elsewhere(folder: Path, backend: str) -> UserError:
    return UserError(
        f"{folder} was trained with {backend}",
        do=f"go on with backend={backend}, or start another run from its weights: {from_weights(folder)}",
    )


def from_weights(checkpoint: Path) -> str:
    """What makes a run of its own of a checkpoint's weights."""
    epochs = Progress.read(checkpoint).epoch
    return f"name=... load_model_path={checkpoint} resume={epochs}"


def _leave_out_unused(state: dict[str, Any], folder: Path) -> None:
    """A weight that no step has used yet has no state, where a fresh optimizer makes room for all."""
    saved = PlainReader(folder / STATE).read_metadata().state_dict_metadata
    states = state["optimizer"]["state"]
    state["optimizer"]["state"] = {n: s for n, s in states.items() if f"optimizer.state.{n}.step" in saved}


@contextmanager
def _alone() -> Iterator[None]:
    """torch warns of a single process although it is told of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def refuse_stateless(folder: RunFolder) -> None:
    """To begin again would overwrite them."""
    if saved := folder.checkpoints():
        raise UserError(
            f"{folder.path} holds checkpoints, but none that says how to go on",
            given=f"no state/ in {saved[-1]}",
            do=f"start another run from it: {from_weights(saved[-1])}",
        )


def refuse_other(place: Path, found: Progress, expected: Progress) -> None:
    """A run goes on with the batches it began with."""
    for which, before, now in (
        ("training", found.data, expected.data),
        ("validation", found.asked, expected.asked),  # the best accuracy so far would be another's
    ):
        if before and before != now:
            raise UserError(
                f"the {which} data has changed since {place} was saved",
                given=now,
                expected=before,
                do="put it back, or start a new run: name=...",
            )
    if found.global_batch != expected.global_batch:
        raise UserError(
            f"{place} was trained with another global batch",
            given=f"{expected.global_batch} rows: batch_size_training x gradient_accumulation_steps x ranks",
            expected=found.global_batch,
            do="keep the product of the three",
        )


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    trained = {name.removeprefix("module.") for name, each in model.named_parameters() if each.requires_grad}
    there = get_model_state_dict(model, options=TRAINED)  # and what frozen weights are quantised with
    return {
        "model": {name: each for name, each in there.items() if name in trained},
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
