"""An example's branches as rows tell of them: their votes, what is answered in the end, an arm's figures."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from coconut_lm.errors import UserError, require_known
from coconut_lm.tally import difference, rate
from coconut_lm.trials import Found, succeeded
from coconut_lm.votes import (
    VOTES,
    Ballot,
    Outcome,
    agreement,
    aurc,
    decide,
    distinct,
    pass_at,
    risk_coverage,
)


@dataclass(frozen=True)
class Count:
    """How votes are counted: which one decides, from which part of the branches on, and of how many first
    branches besides. None of it asks the model anew."""

    vote: str = "majority"
    threshold: float | None = None
    firsts: Sequence[int] = ()

    def __post_init__(self) -> None:
        require_known("vote", self.vote, VOTES)
        if self.threshold is not None:
            within("threshold", self.threshold, 0, 1, "0 to 1: the part of the branches that must agree")


def within(what: str, given: float, low: float, high: float, expected: str) -> None:
    """Refuses a number that is none from `low` to `high`, and what is none at all."""
    if not (low <= given <= high and given < math.inf):
        raise UserError(f"impossible {what}", given=given, expected=expected)


# -- an example's branches --


@dataclass(frozen=True)
class Poll:
    """The branches of one example, in their order."""

    rows: Sequence[Found]

    @cached_property
    def ballots(self) -> list[Ballot]:
        """One a branch."""
        return [ballot(row) for row in self.rows]

    def outcome(self, vote: str, first: int | None = None) -> Outcome:
        """Of all branches, or of so many first ones."""
        return VOTES[vote](self.ballots[:first])

    def right(self, answer: str | None) -> bool:
        """As a branch was judged that gave it."""
        return bool(answer) and any(row["correct"] for row in self.rows if row["extracted"] == answer)

    @property
    def index(self) -> int:
        return int(self.rows[0]["index"])


def ballot(row: Found) -> Ballot:
    """What a row of a branch says, and what its vote may be worth."""
    logprob = float(row.get("logprob") or 0.0)
    confidence = math.exp(logprob / max(1, row["written"] + row["ended"]))
    noise = row.get("diagnostics") or {"noise_norm": 0.0, "original_norm": 0.0}
    loud = noise["noise_norm"] / noise["original_norm"] if noise["original_norm"] else 0.0
    return Ballot(row["extracted"], confidence, logprob, loud)


def polls(rows: Iterable[Found]) -> list[Poll]:
    """Of the examples that did not fail, in their order."""
    found = defaultdict[int, list[Found]](list)
    for row in succeeded(rows):
        found[row["index"]].append(row)
    return [Poll(sorted(found[index], key=lambda row: int(row.get("branch", 0)))) for index in sorted(found)]


def voted(asked: Sequence[Poll], vote: str, first: int | None = None) -> dict[int, bool]:
    """Whether each example's vote is right."""
    return {poll.index: poll.right(poll.outcome(vote, first).answer) for poll in asked}


def answers(arm: str, asked: Sequence[Poll], count: Count) -> Iterator[dict[str, Any]]:
    """What is answered in the end: nothing where it abstains."""
    for poll in asked:
        outcome = poll.outcome(count.vote)
        answer = decide(outcome, count.threshold or 0.0)
        known = {key: poll.rows[0][key] for key in ("index", "id", "question", "gold")}
        verdict = None if answer is None else poll.right(answer)
        yield {"trial": arm, **known, "answer": answer, "share": outcome.share, "correct": verdict}


# -- an arm's figures --


def summarised(
    asked: Sequence[Poll], clean: Mapping[int, bool], count: Count, firsts: Sequence[int]
) -> dict[str, Any]:
    """One arm, beside the greedy answers to the same examples."""
    votes = {vote: voted(asked, vote) for vote in VOTES}
    rows = [row for poll in asked for row in poll.rows]
    return {
        "single": rate(poll.rows[0]["correct"] for poll in asked),
        "mean_single": _mean(row["correct"] for row in rows),
        "votes": {vote: rate(right.values()) for vote, right in votes.items()},
        "difference": {vote: difference(clean, right) for vote, right in votes.items()},
        "by_k": {str(k): rate(voted(asked, "majority", k).values()) for k in firsts},
        "pass_at": {str(k): _mean(_pass_at(poll, k) for poll in asked) for k in firsts},
        "agreement": _agreements(asked),
        **_selective(asked, count),
        "no_answer": _mean(not row["extracted"] for row in rows),
        "diversity": _diversity(asked),
    }


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _pass_at(poll: Poll, k: int) -> float:
    return pass_at(len(poll.rows), sum(row["correct"] for row in poll.rows), k)


def _agreements(asked: Sequence[Poll]) -> list[dict[str, Any]]:
    """How right the majority is where so many agree, from those that agree most."""
    found = defaultdict[tuple[int, str], list[Poll]](list)
    for poll in asked:
        told = agreement(poll.ballots)
        found[told.votes, told.name].append(poll)
    return [
        {"votes": votes, "of": len(found[votes, name][0].rows), "name": name}
        | rate(voted(found[votes, name], "majority").values())
        for votes, name in sorted(found, reverse=True)
    ]


def _selective(asked: Sequence[Poll], count: Count) -> dict[str, Any]:
    """What it is worth to answer only where branches agree."""
    outcomes = [poll.outcome(count.vote) for poll in asked]
    right = [poll.right(outcome.answer) for poll, outcome in zip(asked, outcomes, strict=True)]
    points = risk_coverage([outcome.share for outcome in outcomes], right)
    given = [decide(outcome, count.threshold or 0.0) is not None for outcome in outcomes]
    return {
        "risk_coverage": [asdict(point) for point in points],
        "aurc": aurc(points),
        "abstention": {
            "threshold": count.threshold,
            "coverage": rate(given),
            "accuracy": rate(verdict for verdict, is_given in zip(right, given, strict=True) if is_given),
        },
    }


def _diversity(asked: Sequence[Poll]) -> dict[str, float | None]:
    """How far branches differ, in what they say and in what they think."""
    spreads = [told for poll in asked if (told := poll.rows[0].get("spread"))]
    return {
        "answers": _mean(distinct([row["extracted"] for row in poll.rows]) for poll in asked),
        "texts": _mean(distinct([row["output"] for row in poll.rows]) for poll in asked),
        **{key: _mean(each[key] for each in spreads) for key in ("d_k", "d_k_late", "d_k_relative")},
    }
