"""Two models side by side on the same examples: what B gains and loses against A, and how sure that is."""

import json
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from itertools import chain, zip_longest
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

from coconut_lm.errors import UserError
from coconut_lm.evaluate import Prediction
from coconut_lm.files import read_text
from coconut_lm.runfolder import EVALUATION, lines
from coconut_lm.statistics import (
    MeanDifference,
    NonInferiority,
    Pairs,
    Seeds,
    bootstrap,
    mcnemar,
    non_inferiority,
    paired_bootstrap,
    seeds,
    wilson,
)

SHOWN = 200  # letters of a question in a message
Pair = tuple[Prediction, Prediction]
_NEEDED = [item.name for item in fields(Prediction) if item.default is MISSING]


@dataclass(frozen=True)
class Side:
    """What one of the two does on all examples; means are per example."""

    name: str
    right: int
    rate: float
    low: float
    high: float
    tokens: float  # thoughts count as tokens, end-of-text does not
    written: float
    thoughts: float
    passes: float
    seconds: float

    @classmethod
    def of(cls, name: str, predictions: Sequence[Prediction]) -> "Side":
        """Counted from its predictions, of which there is one at least."""
        right = sum(each.correct for each in predictions)
        low, high = wilson(right, len(predictions))
        return cls(
            name=name,
            right=right,
            rate=right / len(predictions),
            low=low,
            high=high,
            tokens=fmean(map(tokens, predictions)),
            written=fmean(each.written for each in predictions),
            thoughts=fmean(each.thoughts for each in predictions),
            passes=fmean(each.passes for each in predictions),
            seconds=fmean(each.seconds for each in predictions),
        )


@dataclass(frozen=True)
class Gain:
    """The share of A's tokens that B does without, and by how many tokens B differs."""

    share: float | None  # none where A has no tokens
    low: float | None
    high: float | None
    tokens: MeanDifference


@dataclass(frozen=True)
class Comparison:
    """B against A."""

    a: Side
    b: Side
    n: int
    pairs: Pairs
    difference: float  # B's accuracy less A's
    p: float  # McNemar's
    kept: float | None  # B's accuracy as a share of A's
    non_inferiority: NonInferiority
    gain: Gain
    rows: Sequence[Pair]
    apart: Sequence[tuple[str, str, str]] = ()  # how A was asked, and how B, where that differs

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, which is paired."""
        return self.non_inferiority.low, self.non_inferiority.high

    def differing(self, count: int) -> list[Pair]:
        """Examples that one alone got right, from both kinds in turns; then those that read differently."""
        only_a = [pair for pair in self.rows if pair[0].correct and not pair[1].correct]
        only_b = [pair for pair in self.rows if pair[1].correct and not pair[0].correct]
        turns = [pair for turn in zip_longest(only_a, only_b) for pair in turn if pair]
        others = (
            pair
            for pair in self.rows
            if pair[0].correct == pair[1].correct and pair[0].output != pair[1].output
        )
        return [pair for pair, _ in zip(chain(turns, others), range(count), strict=False)]

    def to_json(self, examples: int = 0) -> dict[str, Any]:
        """All figures, and so many examples that differ."""
        told = asdict(replace(self, rows=()))
        del told["rows"]
        shown = [_example(*pair) for pair in self.differing(examples)]
        return told | {"interval": self.interval, "examples": shown}


def compare(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    names: tuple[str, str] = ("A", "B"),
    margin: float = 0.02,
    apart: Sequence[tuple[str, str, str]] = (),
) -> Comparison:
    """B against A on the examples that both were asked; B may lose `margin` and be called not worse."""
    rows = align(a, b)
    verdicts = [(one.correct, other.correct) for one, other in rows]
    pairs = Pairs.of(*zip(*verdicts, strict=True))
    side_a, side_b = (Side.of(name, each) for name, each in zip(names, zip(*rows, strict=True), strict=True))
    return Comparison(
        a=side_a,
        b=side_b,
        n=len(rows),
        pairs=pairs,
        difference=pairs.difference,
        p=mcnemar(pairs.only_a, pairs.only_b),
        kept=side_b.rate / side_a.rate if side_a.right else None,
        non_inferiority=non_inferiority(pairs, margin),
        gain=_gain(rows),
        rows=rows,
        apart=apart,
    )


def tokens(prediction: Prediction) -> int:
    """As the published figures count: thoughts and what was written."""
    return prediction.thoughts + prediction.written


def _gain(rows: Sequence[Pair]) -> Gain:
    before, after = ([tokens(each) for each in side] for side in zip(*rows, strict=True))
    difference = paired_bootstrap(before, after)
    if not any(before):
        return Gain(None, None, None, difference)

    def saved(a: Any, b: Any, axis: int) -> Any:
        return 1 - b.mean(axis) / a.mean(axis)

    low, high = bootstrap(before, after, statistic=saved)
    known = math.isfinite(low) and math.isfinite(high)  # not where a resample of A has no tokens
    return Gain(1 - sum(after) / sum(before), low if known else None, high if known else None, difference)


def _example(a: Prediction, b: Prediction) -> dict[str, Any]:
    told = ("output", "extracted", "correct", "written", "thoughts")
    sides = {name: {key: getattr(each, key) for key in told} for name, each in (("a", a), ("b", b))}
    return {"id": a.id, "question": a.question, "gold": a.gold, **sides}


# -- the same examples --


def align(a: Sequence[Prediction], b: Sequence[Prediction]) -> list[Pair]:
    """Both predictions of each example, in A's order. Examples are known by id, question and truth."""
    waiting: dict[Any, deque[Prediction]] = defaultdict(deque)  # a question may be asked twice
    for each in b:
        waiting[_key(each)].append(each)
    found = [waiting[_key(each)].popleft() if waiting[_key(each)] else None for each in a]
    pairs = [(one, other) for one, other in zip(a, found, strict=True) if other is not None]
    if len(pairs) < max(len(a), len(b)) or not pairs:
        raise UserError(
            "A and B were not asked the same examples",
            given=f"{len(a)} in A, {len(b)} in B, {len(pairs)} in both{_first_apart(a, b, found)}",
            expected="the same questions with the same truths, in any order",
            do="evaluate both on the same file with the same --samples",
        )
    return pairs


def _key(prediction: Prediction) -> tuple[str, str, str]:
    return json.dumps(prediction.id, sort_keys=True), prediction.question, prediction.gold


def _first_apart(a: Sequence[Prediction], b: Sequence[Prediction], found: Sequence[Prediction | None]) -> str:
    """The first example that the other does not have, in words."""
    taken = {id(each) for each in found}
    alone = [("A", "B", each, b) for each, other in zip(a, found, strict=True) if other is None]
    alone += [("B", "A", each, a) for each in b if id(each) not in taken]
    if not alone:
        return ""
    side, across, first, others = alone[0]
    told = f"; first in {side} alone: example {first.index}, {_short(first.question)}"
    if twin := next((each for each in others if each.question == first.question), None):
        if twin.gold != first.gold:
            return f"{told}, whose truth is {first.gold!r} in {side} and {twin.gold!r} in {across}"
        if twin.id != first.id:
            return f"{told}, whose id is {first.id!r} in {side} and {twin.id!r} in {across}"
    return told


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}")


def read(path: Path, limit: int | None = None) -> list[Prediction]:
    """A predictions.jsonl, or the first `limit` of its examples."""
    return [_prediction(path, number, row) for number, row in _first(path, limit)]


def _first(path: Path, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = list(lines(path))
    if not rows:
        raise UserError(f"{path} holds no predictions", expected="one object a line, as `eval` writes them")
    yield from enumerate(rows[:limit], start=1)


_ASKED = {"task": "task", "method": "method", "stage": "stage", "scoring": "scoring"}
_ASKED |= {"max_new_tokens": "longest output", "batch_size": "questions at a time"}


def apart(a: Path, b: Path) -> list[tuple[str, str, str]]:
    """What two files of predictions were asked differently, as far as the figures beside them say."""
    one, other = _asked(a), _asked(b)
    return [
        (_ASKED[key], str(one[key]), str(other[key])) for key in one if one[key] != other.get(key, one[key])
    ]


def _asked(path: Path) -> dict[str, Any]:
    beside = path.parent / EVALUATION
    try:
        found = json.loads(read_text(beside)) if beside.is_file() else {}
    except json.JSONDecodeError:  # no figures, then
        return {}
    told = {**found.get("seconds", {}), **found}
    return {key: told[key] for key in _ASKED if told.get(key) is not None}


def _prediction(path: Path, number: int, row: Any) -> Prediction:
    missing = [name for name in _NEEDED if name not in row] if isinstance(row, dict) else _NEEDED
    if missing:
        raise UserError(
            f"{path} holds no predictions",
            given=f"line {number} has no {', '.join(missing)}",
            expected="a predictions.jsonl, as `eval` writes it",
        )
    return Prediction.from_json(row)


def short_names(a: str, b: str) -> tuple[str, str]:
    """What tells two places apart: without the folders that they begin or end with alike."""
    here = Path.cwd()
    paths = [PurePath(place) for place in (a, b)]
    one, other = (list((p.relative_to(here) if p.is_relative_to(here) else p).parts) for p in paths)
    for end in (0, -1):
        while min(len(one), len(other)) > 1 and one[end] == other[end]:
            one.pop(end), other.pop(end)
    names = str(PurePath(*one)), str(PurePath(*other))
    return names if names[0] != names[1] else (f"{names[0]} (A)", f"{names[1]} (B)")


# -- several seeds --


@dataclass(frozen=True)
class OverSeeds:
    """Pairs of runs that differ in their seed: what both reach, and B less A within each pair."""

    a: Seeds
    b: Seeds
    difference: Seeds
    tokens_a: Seeds
    tokens_b: Seeds


def over_seeds(comparisons: Sequence[Comparison]) -> OverSeeds:
    """What pairs of runs, one pair a seed, come to together."""
    return OverSeeds(
        a=seeds([each.a.rate for each in comparisons]),
        b=seeds([each.b.rate for each in comparisons]),
        difference=seeds([each.difference for each in comparisons]),
        tokens_a=seeds([each.a.tokens for each in comparisons]),
        tokens_b=seeds([each.b.tokens for each in comparisons]),
    )
