"""Rows to latent-aligned numpy batches; a seeded, resumable, sharded order of examples.

Shapes: B rows, T columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coconut_lm.methods import IGNORED, Row
from coconut_lm.tokens import LatentTokens

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Padding has mask 0, position 0 and no label; `columns` reach from the first thought to the last."""

    input_ids: Int  # B T, like the next three
    attention_mask: Int
    labels: Int
    position_ids: Int
    columns: range
    index: Int  # B: which example each row is

    @property
    def supervised(self) -> Int:
        """Which positions predict a label, counted through all rows."""
        rows, columns = (self.labels[:, 1:] != IGNORED).nonzero()
        places: Int = rows * self.labels.shape[1] + columns
        return places


def collate(
    rows: Sequence[Row], tokens: LatentTokens, *, min_columns: int = 0, pad_to_multiple: int = 1
) -> Batch:
    """Rows with thoughts are padded on the left until their first ones share a column, then all on the right.

    `min_columns` is for ranks that must make as many passes as others whose rows have more thoughts.
    """
    aligned = max(row.first for row in rows)
    left = [aligned - row.first if row.thoughts else 0 for row in rows]
    return _laid_out(rows, left, tokens, min_columns, pad_to_multiple)


def collate_prompts(prompts: Sequence[Row], tokens: LatentTokens) -> Batch:
    """Padded on the left so that all prompts end together; thoughts then start at different columns."""
    width = max(len(prompt.input_ids) for prompt in prompts)
    return _laid_out(prompts, [width - len(prompt.input_ids) for prompt in prompts], tokens)


def _laid_out(
    rows: Sequence[Row], left: Sequence[int], tokens: LatentTokens, min_columns: int = 0, multiple: int = 1
) -> Batch:
    columns = _columns(rows, left, min_columns)
    width = max(columns.stop, *(shift + len(row.input_ids) for shift, row in zip(left, rows, strict=True)))
    shape = (len(rows), -(-width // multiple) * multiple)
    input_ids, labels = np.full(shape, tokens.pad), np.full(shape, IGNORED)
    mask, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for number, (shift, row) in enumerate(zip(left, rows, strict=True)):
        real = slice(shift, shift + len(row.input_ids))
        input_ids[number, real] = row.input_ids
        labels[number, real] = row.labels
        mask[number, real] = 1
        positions[number, real] = np.arange(len(row.input_ids))
    return Batch(input_ids, mask, labels, positions, columns, np.array([row.index for row in rows]))


def _columns(rows: Sequence[Row], left: Sequence[int], at_least: int) -> range:
    spans = [
        (shift + row.first, shift + row.first + row.thoughts)
        for shift, row in zip(left, rows, strict=True)
        if row.thoughts
    ]
    if not spans:
        return range(1, 1 + at_least) if at_least else range(0)
    first = min(start for start, _ in spans)
    return range(first, max(first + at_least, *(stop for _, stop in spans)))


@dataclass(frozen=True, eq=False)
class Order:
    """The batches of every epoch: a seeded permutation of n examples, cut into batches, the last one short.

    A batch is what all ranks together take for one step, so the order is the same on any number of them.
    With `lengths`, windows of so many batches are sorted by length, then batches shuffled: less padding.
    Without `shuffle`, examples come as they stand, every epoch.
    """

    n: int
    batch_size: int
    seed: int = 0
    lengths: NDArray[np.integer] | None = None
    window: int = 50
    shuffle: bool = True

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self.n // self.batch_size)

    def permutation(self, epoch: int) -> Int:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.n) if self.shuffle else np.arange(self.n)
        return order if self.lengths is None else self._bucketed(order, self.lengths, rng)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Int]:
        """From step `start` on, which is where a run resumes."""
        order = self.permutation(epoch)
        for step in range(start, self.steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]

    def _bucketed(self, order: Int, lengths: NDArray[np.integer], rng: np.random.Generator) -> Int:
        full = self.n - self.n % self.batch_size  # the examples of the short last batch stay where they are
        span = self.window * self.batch_size
        for begin in range(0, full, span):
            part = order[begin : min(begin + span, full)]
            part[:] = part[np.argsort(lengths[part], kind="stable")]
        order[:full] = rng.permutation(order[:full].reshape(-1, self.batch_size)).ravel()
        return order


def shard(batch: Int, rank: int, world: int) -> Int:
    """A rank's part of a batch: disjoint, together the whole, sizes differing by one at most (0 may be)."""
    return batch[rank::world]
