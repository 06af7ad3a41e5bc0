"""Several processes as ranks of one run, forked from the test: what torchrun makes, without its start."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import runs
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from coconut_lm.data.example import Example, read_examples, write_examples

DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def make_data(train: int = 17, valid: int = 5) -> None:
    """Rows of one to three steps; without dropout, which ranks draw for rows of their own."""
    runs.make_data(train, valid)
    for name in ("train.json", "valid.json"):
        write_examples(name, map(_shorter, range(100), read_examples(name)), force=True)
    Path("model.json").write_text(json.dumps(runs.SHAPE | dict.fromkeys(DROPOUTS, 0.0) | {"n_layer": 2}))


def _shorter(number: int, example: Example) -> Example:
    return Example(example.question, example.steps[: 1 + number % 3], example.answer, example.extra)


def train(name: str, world: int = 2, **changes: object) -> None:
    """The run `name` on so many ranks, each of a process of its own; all must end well."""
    codes = together(world, lambda: runs.train(name=name, **changes))
    assert codes == [0] * world, f"{name}: exit codes {codes}"


def together(world: int, work: Callable[[], object], seconds: float = 120) -> list[int]:
    """The exit codes of the ranks; -9 for those that had to be killed after so many seconds."""
    return ended(started(world, work), seconds)


def started(world: int, work: Callable[[], object]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [runs.start(lambda rank=rank: _as_rank(rank, world, port, work)) for rank in range(world)]  # type: ignore[misc]


def _as_rank(rank: int, world: int, port: int, work: Callable[[], object]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    if world > 1:
        os.environ |= {key: str(value) for key, value in place.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    PartialState._reset_state()
    work()
    if world > 1:
        torch.distributed.destroy_process_group()


def ended(processes: list[int], seconds: float = 120) -> list[int]:
    codes: dict[int, int] = {}
    until = time.monotonic() + seconds
    while len(codes) < len(processes):
        for process in set(processes) - set(codes):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                codes[process] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.kill(process, 9)
        time.sleep(0.01)
    return [codes[process] for process in processes]


def weights(name: str) -> dict[str, torch.Tensor]:
    """Those of the newest checkpoint."""
    place = runs.folder(name).newest()
    assert place, f"{name} has saved nothing"
    found = {}
    for file in place.glob("*.safetensors"):
        found |= load_file(file)
    return found


def farthest(one: str, other: str) -> float:
    """The largest difference of any weight."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return max((mine[key].double() - theirs[key].double()).abs().max().item() for key in mine)
