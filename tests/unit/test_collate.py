"""Batches keep what rows say; orders are permutations that can be resumed and shared out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coconut_lm.collate import Batch, Order, collate, collate_prompts, shard
from coconut_lm.methods import Row
from coconut_lm.tokens import LatentTokens

S, E, T, EOS = 90, 91, 92, 99
TOKENS = LatentTokens(S, E, T, None, EOS, EOS)


def row(question: int, thoughts: int, rest: int, index: int = 0) -> Row:
    """So many tokens each; ids tell where they come from."""
    ids = [*range(1, question + 1), S, *[T] * thoughts, E, *range(50, 50 + rest), EOS]
    first = question + 1 if thoughts else -1
    return Row(np.array(ids, np.int32), question + thoughts + 2, thoughts, first, index)


def prompt(question: int, thoughts: int) -> Row:
    whole = row(question, thoughts, 0)
    return Row(whole.input_ids[:-1], whole.supervised_from, thoughts, whole.first, 0)


ROW = st.builds(row, st.integers(1, 6), st.integers(0, 4), st.integers(0, 4), st.integers(0, 99))
PROMPT = st.builds(prompt, st.integers(1, 6), st.integers(0, 4))


def keeps(batch: Batch, rows: list[Row]) -> None:
    """Real tokens, labels and positions are the rows'; everything else is inert padding."""
    assert all(a.dtype == np.int64 for a in (batch.input_ids, batch.attention_mask, batch.labels))
    for number, row in enumerate(rows):
        real = batch.attention_mask[number].astype(bool)
        where = np.flatnonzero(real)
        assert where[-1] - where[0] + 1 == len(where)
        assert batch.input_ids[number, real].tolist() == row.input_ids.tolist()
        assert batch.labels[number, real].tolist() == row.labels.tolist()
        assert batch.position_ids[number, real].tolist() == list(range(len(where)))
        assert set(batch.input_ids[number, ~real]) <= {EOS}
        assert set(batch.labels[number, ~real]) <= {-100}
        assert set(batch.position_ids[number, ~real]) <= {0}
    assert batch.index.tolist() == [row.index for row in rows]
    thoughts = np.flatnonzero((batch.input_ids == T).any(0)).tolist()
    if thoughts:
        assert (batch.columns.start, batch.columns.stop) == (thoughts[0], thoughts[-1] + 1)
    else:
        assert not batch.columns


@settings(deadline=None, max_examples=100)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_a_batch_keeps_its_rows_and_aligns_first_thoughts(rows: list[Row]) -> None:
    batch = collate(rows, TOKENS)
    keeps(batch, rows)
    firsts = {
        int(np.argmax(ids == T)) for ids, row in zip(batch.input_ids, rows, strict=True) if row.thoughts
    }
    assert firsts <= {batch.columns.start}
    assert all(batch.attention_mask[n, 0] for n, row in enumerate(rows) if not row.thoughts)
    assert batch.attention_mask[:, -1].any()


@settings(deadline=None, max_examples=100)
@given(st.lists(PROMPT, min_size=1, max_size=6))
def test_prompts_end_together(prompts: list[Row]) -> None:
    batch = collate_prompts(prompts, TOKENS)
    keeps(batch, prompts)
    assert batch.attention_mask[:, -1].all() and (batch.labels == -100).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(ROW, min_size=1, max_size=4), st.integers(1, 16), st.integers(0, 9))
def test_multiples_and_more_columns(rows: list[Row], multiple: int, more: int) -> None:
    plain = collate(rows, TOKENS)
    batch = collate(rows, TOKENS, pad_to_multiple=multiple, min_columns=more)
    assert batch.input_ids.shape[1] % multiple == 0
    assert len(batch.columns) == max(more, len(plain.columns))
    assert batch.columns.stop <= batch.input_ids.shape[1] and (not more or batch.columns.start >= 1)
    width = plain.input_ids.shape[1]
    for name in ("input_ids", "labels", "attention_mask", "position_ids"):
        assert (getattr(batch, name)[:, :width] == getattr(plain, name)).all()
    assert not batch.attention_mask[:, width:].any()


def test_a_batch_by_hand() -> None:
    batch = collate([row(1, 2, 1, index=7), row(3, 1, 0, index=5)], TOKENS)
    assert batch.input_ids.tolist() == [
        [EOS, EOS, 1, S, T, T, E, 50, EOS],
        [1, 2, 3, S, T, E, EOS, EOS, EOS],
    ]
    assert batch.labels[1].tolist() == [-100] * 6 + [EOS, -100, -100]
    assert batch.attention_mask[1].tolist() == [1] * 7 + [0, 0]
    assert batch.columns == range(4, 6) and batch.index.tolist() == [7, 5]


def order_of(n: int, size: int, seed: int, bucketed: bool) -> Order:
    lengths = np.random.default_rng(n).integers(1, 100, n) if bucketed else None
    return Order(n, size, seed, lengths, window=3)


ORDERS = st.builds(order_of, st.integers(0, 90), st.integers(1, 12), st.integers(0, 3), st.booleans())


@settings(deadline=None, max_examples=100)
@given(ORDERS, st.integers(0, 5))
def test_an_epoch_is_a_permutation_in_batches(order: Order, epoch: int) -> None:
    batches = list(order.batches(epoch))
    assert len(batches) == order.steps
    assert sorted(i for batch in batches for i in batch) == list(range(order.n))
    assert all(len(batch) == order.batch_size for batch in batches[:-1])
    assert all(len(batch) for batch in batches)


@settings(deadline=None, max_examples=60)
@given(ORDERS, st.integers(0, 5), st.integers(0, 95))
def test_resuming_gives_the_rest(order: Order, epoch: int, step: int) -> None:
    again = Order(order.n, order.batch_size, order.seed, order.lengths, order.window)
    rest = [batch.tolist() for batch in again.batches(epoch, start=step)]
    assert rest == [batch.tolist() for batch in order.batches(epoch)][step:]


@settings(deadline=None, max_examples=60)
@given(ORDERS, st.integers(1, 9))
def test_shards_are_the_batch_whatever_the_world(order: Order, world: int) -> None:
    for batch in order.batches(0):
        parts = [shard(batch, rank, world) for rank in range(world)]
        assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("bucketed", [False, True])
def test_epochs_and_seeds_differ(bucketed: bool) -> None:
    orders = [order_of(90, 4, seed, bucketed).permutation(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_without_shuffling_the_file_is_the_order() -> None:
    plain = Order(10, 4, seed=3, shuffle=False)
    for epoch in (0, 1):
        assert [batch.tolist() for batch in plain.batches(epoch)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def padding(order: Order, lengths: NDArray[np.int64]) -> int:
    return sum(int((lengths[b].max() - lengths[b]).sum()) for b in order.batches(0))


def test_bucketing_saves_padding_and_still_shuffles() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    plain, bucketed = Order(1003, 8), Order(1003, 8, lengths=lengths)
    assert padding(bucketed, lengths) < 0.2 * padding(plain, lengths)
    means = [lengths[batch].mean() for batch in bucketed.batches(0)]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4
