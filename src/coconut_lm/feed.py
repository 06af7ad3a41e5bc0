"""What a rank takes of each optimizer step: its micro-batches, made from the seed alone.

Every rank makes the rows of the whole step and lays out its own. So all know how many tokens are learned from
in all, and how many passes the largest number of thoughts needs, without a word between them.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coconut_lm.collate import Batch, Order, collate, shard
from coconut_lm.methods import IGNORED, Row, Rows
from coconut_lm.tokens import LatentTokens


@dataclass(frozen=True)
class Place:
    """Which of how many ranks, and how many micro-batches a rank makes a step of."""

    rank: int = 0
    world: int = 1
    accumulation: int = 1


@dataclass(frozen=True)
class Share:
    """A rank's part of one optimizer step. The counts are those of all ranks together."""

    batches: tuple[Batch, ...]
    supervised: int
    tokens: int


def share(rows: Sequence[Row], tokens: LatentTokens, place: Place, full: int | None = None) -> Share:
    """A rank without a row in a micro-batch makes the passes of another's, and learns nothing from it.

    Micro-batches are as large as those of a `full` step: a step with fewer rows has fewer of them.
    """
    size = -(-(full or len(rows)) // place.accumulation)
    batches = []
    for begin in range(0, len(rows), size):
        together = rows[begin : begin + size]
        own = [together[int(i)] for i in shard(np.arange(len(together)), place.rank, place.world)]
        thoughts = max(row.thoughts for row in together)
        batch = collate(sorted(own, key=_behind) or together[:1], tokens, min_columns=thoughts)
        if not own:
            batch.labels[:] = IGNORED
        batches.append(batch)
    return Share(
        tuple(batches),
        supervised=sum(len(row.input_ids) - row.supervised_from for row in rows),
        tokens=sum(len(row.input_ids) for row in rows),
    )


def _behind(row: Row) -> int:
    """What is padded on the right, which attention sees in groups of rows that stand together."""
    return len(row.input_ids) - (row.first if row.thoughts else 0)


class Steps(Dataset[Share]):
    """The optimizer steps of one epoch; any process makes any of them."""

    def __init__(self, rows: Rows, order: Order, epoch: int, place: Place) -> None:
        self.rows, self.epoch, self.place = rows, epoch, place
        self.batches, self.full = list(order.batches(epoch)), order.batch_size

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Share:
        now = self.epoch + step / len(self)  # a schedule by tokens moves within the epoch
        made = [self.rows.train_row(int(index), now) for index in self.batches[step]]
        return share(made, self.rows.tokens, self.place, self.full)


def steps(
    rows: Rows, order: Order, epoch: int, place: Place, start: int = 0, workers: int = 0
) -> Iterator[Share]:
    """The steps of an epoch from `start` on, made ahead by `workers` processes."""
    made = Steps(rows, order, epoch, place)
    ahead = range(start, len(made))
    # Without a generator of its own the loader draws from torch's, and a resumed run would go another way.
    settings: dict[str, Any] = {"generator": torch.Generator(), "worker_init_fn": _unasked}
    return iter(DataLoader(made, batch_size=None, sampler=ahead, num_workers=workers, **settings))


def _unasked(worker: int) -> None:
    """A wish to stop reaches all processes; workers go when the trainer, which still saves, lets them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def fixed(rows: Rows, stage: int, batch_size: int, place: Place) -> Iterator[Share]:
    """All rows at one stage, in order of length: what a loss is measured on."""
    made = [rows.row(index, stage) for index in range(len(rows))]
    made.sort(key=lambda row: len(row.input_ids))
    size = batch_size * place.world
    for begin in range(0, len(made), size):
        yield share(made[begin : begin + size], rows.tokens, place)


def tensors(batch: Batch, device: torch.device) -> dict[str, Any]:
    """What the model is called with. What it would have to ask the device for, it is told."""
    names = ("input_ids", "attention_mask", "labels", "position_ids")
    arrays = {name: getattr(batch, name) for name in names} | {"supervised": batch.supervised}
    there = {name: _there(array, device) for name, array in arrays.items()}
    return there | {"mask_on_host": batch.attention_mask}


def _there(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    tensor = tensor.pin_memory() if device.type == "cuda" else tensor  # else it waits for the copy
    return tensor.to(device, non_blocking=True)
