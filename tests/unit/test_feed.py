"""What ranks take of a step: together all of it, each row once, with as many passes for every one of them."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coconut_lm.feed import Place, fixed, share
from coconut_lm.methods import IGNORED, Curriculum, Row, Rows
from coconut_lm.tokens import EncodedSet, LatentTokens

TOKENS = LatentTokens(start=90, end=91, latent=92, pause=None, eos=0, pad=0)


def row(index: int, question: int, thoughts: int, answer: int) -> Row:
    middle = [TOKENS.start, *[TOKENS.latent] * thoughts, TOKENS.end]
    ids = np.array([*range(1, question + 1), *middle, *range(1, answer + 1)], np.int32)
    return Row(ids, question + len(middle), thoughts, question + 1 if thoughts else -1, index)


ROWS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=13)


@given(ROWS, st.integers(1, 4), st.integers(1, 3))
def test_together_the_ranks_take_each_row_once(
    shapes: list[tuple[int, int, int]], world: int, m: int
) -> None:
    rows = [row(index, *shape) for index, shape in enumerate(shapes)]
    shares = [share(rows, TOKENS, Place(rank, world, m)) for rank in range(world)]
    assert {(part.supervised, part.tokens) for part in shares} == {
        (sum(shape[2] for shape in shapes), sum(len(each.input_ids) for each in rows))
    }
    learned: Counter[int] = Counter()
    for batches in zip(*(part.batches for part in shares), strict=True):
        assert len({len(batch.columns) for batch in batches}) == 1, "every rank makes as many passes"
        for batch in batches:
            assert batch.columns.stop <= batch.input_ids.shape[1]
            latent = (batch.input_ids == TOKENS.latent).any(0).nonzero()[0]
            assert set(latent.tolist()) <= set(batch.columns)
            for index, labels in zip(batch.index, batch.labels, strict=True):
                learned[int(index)] += int((labels != IGNORED).sum())
    assert learned == Counter({index: shape[2] for index, shape in enumerate(shapes)})


def test_a_rank_without_a_row_makes_the_passes_and_learns_nothing() -> None:
    rows = [row(7, 3, 2, 2)]
    one, other = (share(rows, TOKENS, Place(rank, 2, 1)) for rank in range(2))
    assert len(other.batches) == 1 and other.supervised == one.supervised == 2
    (idle,) = other.batches
    assert len(idle.columns) == 2 and (idle.labels == IGNORED).all()


def test_a_micro_batch_that_no_rank_has_a_row_of_is_left_out() -> None:
    assert len(share([row(0, 3, 0, 2)], TOKENS, Place(0, 1, 4)).batches) == 1


def test_rows_that_are_as_long_behind_their_first_thought_stand_together() -> None:
    """Attention sees them in groups."""
    rows = [row(index, 3 + index % 4, 2, 1 + 5 * index % 7) for index in range(7)]
    (batch,) = share(rows, TOKENS, Place()).batches
    behind = batch.attention_mask[:, batch.columns.start :].sum(1).tolist()
    assert behind == sorted(behind) and len(set(behind)) > 3


def test_a_short_step_has_fewer_micro_batches_and_not_smaller_ones() -> None:
    rows = [row(index, 3, index % 3, 2) for index in range(9)]
    ranks = [share(rows, TOKENS, Place(rank, 2, 4), full=16).batches for rank in range(2)]
    assert [sorted(batch.index.tolist()) for batch in ranks[0]] == [[0, 2], [4, 6], [8]]
    assert [sorted(batch.index.tolist()) for batch in ranks[1]] == [[1, 3], [5, 7], [8]]
    assert (ranks[1][2].labels == IGNORED).all(), "the ninth row is the other rank's"


def encoded(n: int) -> EncodedSet:
    """n examples of a question of growing length, one step and an answer."""
    sizes = np.array([size for i in range(n) for size in (2 + i % 5, 2, 2)])
    pieces = np.concatenate([[0], sizes.cumsum()])
    return EncodedSet(np.ones(pieces[-1], np.int32), pieces, np.arange(0, 3 * n + 1, 3))


@given(st.integers(1, 17), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2))
def test_what_a_loss_is_measured_on_is_all_rows_once(n: int, batch: int, world: int, stage: int) -> None:
    rows = Rows(encoded(n), TOKENS, "coconut", Curriculum(max_latent_stage=1))
    ranks = [list(fixed(rows, stage, batch, Place(rank, world))) for rank in range(world)]
    assert len({len(parts) for parts in ranks}) == 1
    counts: Counter[int] = Counter()
    for parts in ranks:
        for part in parts:
            (one,) = part.batches
            own = (one.labels != IGNORED).any(1)
            counts.update(one.index[own].tolist())
    assert counts == Counter(range(n))
    assert sum(part.supervised for part in ranks[0]) == n * (2 if stage else 4)
