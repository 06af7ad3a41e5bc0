"""Branches' answers made one: votes, agreement, abstention, and how much the branches differ.

A branch is one way through the same question. One without an answer does not vote, but counts among the
branches. Sums are exact before they are rounded, so no vote depends on the branches' order but by the last
rule of a tie.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


# -- votes --


@dataclass(frozen=True)
class Ballot:
    """What a branch says, and what its vote may be worth."""

    answer: str
    """Empty: none was found."""
    confidence: float = 1.0
    """exp of the mean log-probability of its tokens."""
    logprob: float = 0.0
    """The sum of the log-probabilities of its tokens."""
    noise: float = 0.0
    """How long its noise was beside its thoughts, in the mean over thoughts."""

    def __post_init__(self) -> None:
        # What is not a number would win or lose by its place.
        if not (0 <= self.confidence < math.inf and self.logprob < math.inf and self.noise >= 0):
            raise ValueError(f"no ballot: {self}")


@dataclass(frozen=True)
class Outcome:
    """The answer that won, and which part of all branches gave it; "" and 0 where nobody voted."""

    answer: str
    share: float


def _elect(ballots: Sequence[Ballot], weight: Callable[[Sequence[Ballot]], float]) -> Outcome:
    """The answer of most weight; of equals that of more confidence in all, then the earliest branch's."""
    cast: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        if ballot.answer:
            cast.setdefault(ballot.answer, []).append(ballot)
    if not cast:
        return Outcome("", 0.0)
    # max keeps the first of equals
    answer = max(cast, key=lambda each: (weight(cast[each]), _confidence(cast[each])))
    return Outcome(answer, len(cast[answer]) / len(ballots))


def majority(ballots: Sequence[Ballot]) -> Outcome:
    """One branch, one vote."""
    return _elect(ballots, len)


def noise_weighted(ballots: Sequence[Ballot]) -> Outcome:
    """1 / (1 + noise) a branch: by the noise it had, not by its number."""
    return _elect(ballots, lambda given: math.fsum(1 / (1 + each.noise) for each in given))


def confidence_weighted(ballots: Sequence[Ballot]) -> Outcome:
    """Its confidence a branch."""
    return _elect(ballots, _confidence)


def probability_mass(ballots: Sequence[Ballot]) -> Outcome:
    """The probability of its whole text a branch; in logarithms, so that no length is too long."""
    return _elect(ballots, _log_mass)


VOTES: dict[str, Callable[[Sequence[Ballot]], Outcome]] = {
    "majority": majority,
    "noise_weighted": noise_weighted,
    "confidence_weighted": confidence_weighted,
    "probability_mass": probability_mass,
}


def _confidence(given: Sequence[Ballot]) -> float:
    return math.fsum(each.confidence for each in given)


def _log_mass(given: Sequence[Ballot]) -> float:
    most = max(each.logprob for each in given)
    if most == -math.inf:
        return most
    return most + math.log(math.fsum(math.exp(each.logprob - most) for each in given))


def decide(outcome: Outcome, threshold: float) -> str | None:
    """The answer if at least this part of the branches gave it; None is to abstain."""
    return outcome.answer if outcome.answer and outcome.share >= threshold else None


# -- agreement --


@dataclass(frozen=True)
class Agreement:
    """How many of the branches gave the most frequent answer, and the name of that."""

    votes: int
    of: int
    name: str


def agreement(ballots: Sequence[Ballot]) -> Agreement:
    """unanimous (all), strong (4/5 or more), moderate (more than half), minimal (fewer), split (the two most
    frequent are as frequent), none (no answer at all): of five 5, 4, 3, 2."""
    counts = Counter(each.answer for each in ballots if each.answer).most_common(2)
    if not counts:
        return Agreement(0, len(ballots), "none")
    votes, of = counts[0][1], len(ballots)
    if len(counts) == 2 and counts[1][1] == votes:
        return Agreement(votes, of, "split")
    if 2 * votes <= of:
        return Agreement(votes, of, "minimal")
    if votes == of:
        return Agreement(votes, of, "unanimous")
    return Agreement(votes, of, "strong" if 5 * votes >= 4 * of else "moderate")


def pass_at(n: int, right: int, k: int) -> float:
    """The chance that of k branches, drawn from n of which some are right, at least one is: unbiased."""
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"no pass@{k} of {n} branches, {right} right")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


# -- who answers only when sure --


@dataclass(frozen=True)
class Point:
    """Whoever answers from this score on: which part that is, and which part of it is wrong."""

    coverage: float
    risk: float
    threshold: float
    answered: int


def risk_coverage(scores: Sequence[float], right: Sequence[bool]) -> list[Point]:
    """A point for each score there is, from the highest: examples of one score are answered together."""
    if any(map(math.isnan, scores)):
        raise ValueError("a score is not a number")
    wrong: dict[float, list[bool]] = {}
    for score, verdict in zip(scores, right, strict=True):
        wrong.setdefault(float(score), []).append(not verdict)
    points, answered, wrongs = [], 0, 0
    for score in sorted(wrong, reverse=True):
        answered, wrongs = answered + len(wrong[score]), wrongs + sum(wrong[score])
        points.append(Point(answered / len(scores), wrongs / answered, score, answered))
    return points


def aurc(points: Sequence[Point]) -> float | None:
    """The area under the risk-coverage curve; less is better, and no points have none.

    With N examples, answered one by one from the highest score, it is the mean over n = 1 to N of the part
    of the first n that is wrong. Examples of one score come in any order: the mean over all their orders.
    """
    risks, before, wrong_before = [], 0, 0.0
    for point in points:
        wrong = point.risk * point.answered
        each = (wrong - wrong_before) / (point.answered - before)
        risks += [(wrong_before + (n - before) * each) / n for n in range(before + 1, point.answered + 1)]
        before, wrong_before = point.answered, wrong
    return math.fsum(risks) / len(risks) if risks else None


# -- how much branches differ --


def distinct(texts: Sequence[Hashable]) -> float:
    """The part of them that is left without repetitions; no answer is one of them too."""
    return len(set(texts)) / len(texts)


@dataclass(frozen=True)
class Spread:
    """How far apart the thoughts of two branches are, in the mean over all pairs."""

    d_k: float
    """Over all thoughts."""
    d_k_late: float
    """Over the last half of them, the middle one included."""
    d_k_relative: float
    """Over all, beside the mean length of a thought."""


def spread(paths_KTD: "NDArray[Any]") -> Spread | None:
    """D_K = 2 / (K (K - 1)) sum over i < j of the mean over t of |h_t^i - h_t^j|; None without two branches,
    or without thoughts."""
    import numpy as np

    paths = np.asarray(paths_KTD, dtype=np.float64)
    branches, thoughts, _ = paths.shape
    if branches < 2 or not thoughts:
        return None
    apart_T = np.mean([np.linalg.norm(a - b, axis=-1) for a, b in combinations(paths, 2)], axis=0)
    d_k, length = float(apart_T.mean()), float(np.linalg.norm(paths, axis=-1).mean())
    return Spread(d_k, float(apart_T[thoughts // 2 :].mean()), d_k / length if length else 0.0)
