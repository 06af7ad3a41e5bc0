"""Rows of branches counted by hand: votes, who abstains, agreement, figures of an arm."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import UserError
from coconut_lm.polls import Count, answers, ballot, polls, summarised, voted
from coconut_lm.votes import VOTES, Ballot, pass_at

GOLD = "7"


def row(index: int, branch: int, answer: str, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"index": index, "branch": branch, "extracted": answer, "correct": answer == GOLD}
    known |= {"id": f"q{index}", "question": "?", "gold": GOLD, "output": f"### {answer}"}
    known |= {"written": 3, "ended": True, "logprob": -2.0, "diagnostics": None, "success": True}
    return known | more


def example(index: int, *given: str) -> list[dict[str, Any]]:
    return [row(index, branch, answer) for branch, answer in enumerate(given)]


# Unanimous and right; strong and wrong; a split; nothing said; a right one outvoted.
ROWS = [
    *example(0, "7", "7", "7", "7", "7"),
    *example(1, "8", "8", "7", "8", "8"),
    *example(2, "7", "7", "9", "9", ""),
    *example(3, "", "", "", "", ""),
    *example(4, "7", "5", "5", "5", "4"),
]
CLEAN = {0: True, 1: True, 2: False, 3: False, 4: True}


def figures(rows: list[dict[str, Any]] = ROWS, **count: Any) -> dict[str, Any]:
    return summarised(polls(rows), CLEAN, Count(**count), [1, 3, 5])


def test_what_a_branch_says_and_what_its_vote_may_be_worth() -> None:
    told = {"noise_norm": 3.0, "original_norm": 12.0}
    assert ballot(row(0, 1, "7", logprob=-2.0, diagnostics=told)) == Ballot("7", math.exp(-0.5), -2.0, 0.25)
    assert ballot(row(0, 1, "7", ended=False, logprob=-3.0)).confidence == pytest.approx(math.exp(-1))
    assert ballot(row(0, 1, "", written=0, ended=False, logprob=0.0)) == Ballot("")
    alone = row(0, 0, "7")
    del alone["logprob"], alone["diagnostics"]
    assert ballot(alone) == Ballot("7")


def test_a_voted_answer_is_right_if_a_branch_that_gave_it_was_judged_so() -> None:
    rows = [row(0, 0, "seven", correct=True), row(0, 1, "8"), row(0, 2, "seven", correct=True)]
    assert voted(polls(rows), "majority") == {0: True}
    assert voted(polls(rows[1:2]), "majority") == {0: False}
    assert voted(polls(ROWS), "majority") == {0: True, 1: False, 2: True, 3: False, 4: False}


def test_the_majority_of_the_first_branches() -> None:
    found = figures()
    assert [found["by_k"][k]["right"] for k in ("1", "3", "5")] == [3, 2, 2]
    assert found["by_k"]["1"] == found["single"] and found["by_k"]["5"] == found["votes"]["majority"]
    assert found["mean_single"] == pytest.approx(9 / 25) == found["pass_at"]["1"]
    assert found["pass_at"]["3"] == pytest.approx(sum(pass_at(5, n, 3) for n in (5, 1, 2, 0, 1)) / 5)


def test_where_so_many_agree() -> None:
    told = [
        (each["votes"], each["of"], each["name"], each["right"], each["n"]) for each in figures()["agreement"]
    ]
    assert told == [
        (5, 5, "unanimous", 1, 1),
        (4, 5, "strong", 0, 1),
        (3, 5, "moderate", 0, 1),
        (2, 5, "split", 1, 1),
        (0, 5, "none", 0, 1),
    ]


def test_who_abstains() -> None:
    found = figures(threshold=0.6)
    assert found["abstention"]["threshold"] == 0.6
    assert (found["abstention"]["coverage"]["right"], found["abstention"]["coverage"]["n"]) == (3, 5)
    assert (found["abstention"]["accuracy"]["right"], found["abstention"]["accuracy"]["n"]) == (1, 3)
    told = {each["index"]: each for each in answers("arm", polls(ROWS), Count(threshold=0.6))}
    assert [told[index]["answer"] for index in range(5)] == ["7", "8", None, None, "5"]
    assert [told[index]["correct"] for index in range(5)] == [True, False, None, None, False]
    assert told[2] == {
        "trial": "arm", "index": 2, "id": "q2", "question": "?", "gold": "7",
        "answer": None, "share": 0.4, "correct": None,
    }  # fmt: skip
    assert figures()["abstention"]["coverage"]["right"] == 4  # who has an answer gives it
    assert figures(threshold=1.0)["abstention"]["accuracy"]["right"] == 1


def test_risk_by_coverage_is_that_of_the_vote_that_decides() -> None:
    found = figures()
    points = [(each["coverage"], each["risk"], each["threshold"]) for each in found["risk_coverage"]]
    assert points == [
        (0.2, 0, 1.0),
        (0.4, 0.5, 0.8),
        (0.6, pytest.approx(2 / 3), 0.6),
        (0.8, 0.5, 0.4),
        (1.0, 0.6, 0.0),
    ]
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2 + 3 / 5) / 5)
    sure = [dict(each, logprob=-90.0 if each["extracted"] == "8" else -1.0) for each in ROWS]
    other = figures(sure, vote="probability_mass")["risk_coverage"]
    assert other[0]["coverage"] == 0.2 and len(other) == 5 and other[-1]["risk"] == pytest.approx(0.4)


def test_how_branches_differ() -> None:
    rows = [dict(each, spread={"d_k": 2.0, "d_k_late": 3.0, "d_k_relative": 0.5}) for each in ROWS[:10]]
    rows += [dict(each, spread=None) for each in ROWS[10:]]
    found = figures(rows)
    assert found["diversity"]["answers"] == pytest.approx((1 + 2 + 3 + 1 + 3) / 25)
    assert found["diversity"]["d_k"] == 2.0 and found["diversity"]["d_k_relative"] == 0.5
    assert figures()["diversity"]["d_k"] is None
    assert found["no_answer"] == pytest.approx(6 / 25)


def test_examples_that_failed_are_left_out() -> None:
    failed = {"index": 1, "success": False, "error": "RuntimeError: no"}
    found = figures([each for each in ROWS if each["index"] != 1] + [failed])
    assert found["single"]["n"] == 4
    assert found["difference"]["majority"]["difference"] == pytest.approx(
        0.0
    )  # one lost, one gained, of four
    nothing = figures([failed])
    assert nothing["mean_single"] is None and nothing["single"]["rate"] is None and nothing["aurc"] is None


@settings(deadline=None, max_examples=40)
@given(st.permutations(ROWS))
def test_figures_do_not_hang_on_the_order_of_rows(rows: list[dict[str, Any]]) -> None:
    assert figures(rows) == figures()


def test_a_vote_and_a_threshold_that_are_none() -> None:
    with pytest.raises(UserError, match="unknown vote(.|\n)*majority"):
        Count("majorty")
    for threshold in (-0.1, 1.5, math.nan, math.inf):
        with pytest.raises(UserError, match="impossible threshold"):
            Count(threshold=threshold)
    assert {Count(vote).vote for vote in VOTES} == set(VOTES)
