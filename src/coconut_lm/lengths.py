"""Rows that are longer than a run allows: left out, shortened, or refused, and said so."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coconut_lm.errors import UserError
from coconut_lm.methods import ALL, Rows, as_scheduled
from coconut_lm.tokens import EncodedSet

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """The examples whose rows fit at every stage, their places among those given, and what was done."""

    examples: EncodedSet
    kept: Lengths
    account: str = ""


def fit(
    rows: Rows,
    max_seq_length: int | None,
    overlong: Literal["drop", "truncate", "error"] = "drop",
    *,
    positions: int | None = None,
    opening: int = 0,
) -> Fitted:
    """What of `rows` can be trained on; `positions` are those of the model, a limit too.

    Truncating takes tokens from the left of the question, behind its first `opening` (such as <s>): what is
    asked stands at its end, and the steps and the answer are what is learned. Rows that no shorter question
    makes fit are dropped.
    """
    limit = min((each for each in (max_seq_length, positions) if each is not None), default=None)
    examples, whole = rows.examples, np.arange(len(rows))
    excess = np.zeros(len(rows), np.int64) if limit is None else np.maximum(longest(rows, limit) - limit, 0)
    if limit is None or not excess.any():
        return Fitted(examples, whole)
    over = int((excess > 0).sum())
    if overlong == "error":
        raise _refused(rows, over, limit, int(excess.argmax()), int(excess.max()))
    shortened = np.zeros(len(rows), bool)
    if overlong == "truncate":
        room = np.diff(examples.pieces)[examples.firsts[:-1]] - opening - 1  # something is always asked
        shortened = (excess > 0) & (excess <= room)
    kept = (excess == 0) | shortened
    if not kept.any():
        raise _refused(rows, over, limit, int(excess.argmax()), int(excess.max()))
    cut = np.where(shortened, excess, 0)
    account = _account(int(shortened.sum()), int((~kept).sum()), len(rows), limit)
    return Fitted(_remade(examples, kept, cut, opening), whole[kept], account)


def longest(rows: Rows, unless_below: int = 0) -> Lengths:
    """Every example's longest row over the stages it can have; an upper bound where that is small enough."""
    stages, method = stages_of(rows), rows.method
    slots = max(method.slots(rows.curriculum, ALL, stage, False) for stage in stages)
    lengths = rows.examples.lengths() + slots + 2 * method.markers
    for index in np.flatnonzero(lengths > unless_below).tolist():
        lengths[index] = max(len(rows.row(index, stage).input_ids) for stage in stages)
    return lengths


def stages_of(rows: Rows) -> range:
    """The stages at which a row can be drawn: a method without a schedule has one."""
    if rows.method.draw is as_scheduled:
        return range(rows.stage(0), rows.stage(0) + 1)
    return range(rows.curriculum.last_stage + 1)


def opening_of(tokenizer: Any) -> int:
    """The special tokens that a tokenizer puts before every text."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    return tokenizer.encode("a").index(plain[0])


def _account(shortened: int, dropped: int, total: int, limit: int) -> str:
    done = [("shortened the questions of", shortened), ("dropped", dropped)]
    parts = " and ".join(f"{what} {count:,}" for what, count in done if count)
    return f"{parts} of {total:,} examples, whose rows are longer than {limit:,} tokens"


def _refused(rows: Rows, over: int, limit: int, worst: int, excess: int) -> UserError:
    return UserError(
        f"{over:,} of {len(rows):,} examples have rows that are too long",
        given=f"{limit + excess:,} tokens in example {worst + 1}",
        expected=f"at most {limit:,}",
        do="raise max_seq_length (a model's positions are its end), or set overlong to drop or truncate",
    )


def _remade(examples: EncodedSet, kept: NDArray[np.bool_], cut: Lengths, opening: int) -> EncodedSet:
    """The kept examples, each without `cut` tokens of its question behind the opening ones."""
    counts = np.diff(examples.firsts)
    ids = np.ones(len(examples.ids), bool)
    for index in np.flatnonzero(cut):
        start = examples.pieces[examples.firsts[index]] + opening
        ids[start : start + cut[index]] = False
    ids &= np.repeat(kept, examples.lengths())
    sizes = np.diff(examples.pieces)
    sizes[examples.firsts[:-1]] -= cut
    return EncodedSet(
        examples.ids[ids],
        _bounds(sizes[np.repeat(kept, counts)]),
        _bounds(counts[kept]),
    )


def _bounds(sizes: Lengths) -> Lengths:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
