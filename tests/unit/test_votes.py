"""Votes: ties, order, length; agreement, abstention and risk against brute force; how branches differ."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations, pairwise, permutations, product
from random import Random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.votes import (
    VOTES,
    Agreement,
    Ballot,
    Outcome,
    Point,
    Spread,
    agreement,
    aurc,
    decide,
    distinct,
    pass_at,
    risk_coverage,
    spread,
)

Vote = Callable[[Sequence[Ballot]], Outcome]
BALLOTS = st.lists(
    st.builds(
        Ballot,
        st.sampled_from(["", "3", "4", "five"]),
        st.sampled_from([0.1, 0.2, 0.3, 0.7]),
        st.sampled_from([-3000.0, -2999.5, -40.0, -1.0]),
        st.sampled_from([0.0, 0.1, 0.5, 3.0]),
    ),
    max_size=9,
)
SCORED = st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.6, 1.0]), st.booleans()), max_size=6)


def say(*answers: str) -> list[Ballot]:
    return [Ballot(answer) for answer in answers]


# -- votes --


def test_each_vote_weighs_what_it_says() -> None:
    ballots = [
        Ballot("few", confidence=0.9, logprob=-2.0, noise=4.0),
        Ballot("many", confidence=0.2, logprob=-3.0, noise=9.0),
        Ballot("many", confidence=0.2, logprob=-3.0, noise=9.0),
        Ballot("", confidence=1.0, logprob=0.0),
        Ballot("calm", confidence=0.1, logprob=-9.0, noise=0.0),
    ]
    won = {name: vote(ballots) for name, vote in VOTES.items()}
    assert won == {
        "majority": Outcome("many", 2 / 5),
        "noise_weighted": Outcome("calm", 1 / 5),
        "confidence_weighted": Outcome("few", 1 / 5),
        "probability_mass": Outcome("few", 1 / 5),  # e^-2 > 2 e^-3
    }


def test_the_mass_of_long_texts_is_neither_nothing_nor_all() -> None:
    long = [Ballot("one", logprob=-5000.0), *[Ballot("two", logprob=-5000.5)] * 2]
    assert VOTES["probability_mass"](long).answer == "two"  # 2 e^-0.5 > 1
    assert VOTES["probability_mass"](long[:2]).answer == "one"
    impossible = [
        Ballot("one", logprob=-math.inf),
        Ballot("two", logprob=-math.inf),
        Ballot("two", logprob=-9e9),
    ]
    assert VOTES["probability_mass"](impossible).answer == "two"


@pytest.mark.parametrize("vote", VOTES.values(), ids=VOTES)
def test_ties_go_to_confidence_then_to_the_earliest(vote: Vote) -> None:
    assert vote(say("b", "a", "a", "b")).answer == "b"
    assert vote([Ballot("b", confidence=0.4), Ballot("a", confidence=0.5)]).answer == "a"
    thirds = [Ballot("b", 0.3), Ballot("b", 0.1), Ballot("a", 0.2), Ballot("a", 0.2)]  # 0.3 + 0.1 == 0.4
    assert vote(thirds).answer == "b"


@pytest.mark.parametrize("vote", VOTES.values(), ids=VOTES)
def test_no_answer_is_no_vote_but_a_branch(vote: Vote) -> None:
    assert vote(say("", "", "7", "")) == Outcome("7", 0.25)
    assert vote(say("", "")) == vote([]) == Outcome("", 0.0)


@pytest.mark.parametrize("name", VOTES)
@settings(deadline=None, max_examples=80)
@given(ballots=BALLOTS, random=st.randoms(use_true_random=False))
def test_the_most_weight_wins_in_whatever_order(name: str, ballots: list[Ballot], random: Random) -> None:
    """Order decides nothing but between equals in weight and in confidence."""
    for order in (ballots, random.sample(ballots, len(ballots))):
        answers = [each.answer for each in order if each.answer]
        best = max((_weights(name, ballots, each) for each in answers), default=None)
        winner = next((each for each in answers if _weights(name, ballots, each) == best), "")
        assert VOTES[name](order).answer == winner


def _weights(name: str, ballots: list[Ballot], answer: str) -> tuple[float, Fraction]:
    """By exact fractions where votes sum; of masses, the sorted logarithms."""
    own = [each for each in ballots if each.answer == answer]
    sure = sum(Fraction(each.confidence) for each in own)
    weight = {
        "majority": lambda: float(len(own)),
        "noise_weighted": lambda: float(sum(Fraction(1 / (1 + each.noise)) for each in own)),
        "confidence_weighted": lambda: float(sure),
        "probability_mass": lambda: float(np.logaddexp.reduce(sorted(each.logprob for each in own))),
    }[name]()
    return round(weight, 9), Fraction(float(sure))


@settings(deadline=None, max_examples=80)
@given(BALLOTS)
def test_a_share_is_of_all_branches(ballots: list[Ballot]) -> None:
    for vote in VOTES.values():
        won = vote(ballots)
        assert won.share == (fmean(each.answer == won.answer for each in ballots) if won.answer else 0)


@pytest.mark.parametrize(
    "broken", [{"confidence": math.nan}, {"logprob": math.nan}, {"noise": -1.0}, {"confidence": math.inf}]
)
def test_what_is_no_number_is_no_ballot(broken: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no ballot"):
        Ballot("7", **broken)


def test_who_is_not_sure_abstains() -> None:
    outcome = VOTES["majority"](say("7", "7", "7", "8", ""))
    assert decide(outcome, 0.6) == "7"
    assert decide(outcome, 0.61) is None
    assert decide(Outcome("", 0.0), 0.0) is None  # nothing to say


# -- agreement --


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("aaaaa", (5, 5, "unanimous")),
        ("aaaab", (4, 5, "strong")),
        ("aaaa-", (4, 5, "strong")),
        ("aaabb", (3, 5, "moderate")),
        ("aabcd", (2, 5, "minimal")),
        ("aabbc", (2, 5, "split")),
        ("abcde", (1, 5, "split")),
        ("a----", (1, 5, "minimal")),
        ("-----", (0, 5, "none")),
        ("a", (1, 1, "unanimous")),
        ("-", (0, 1, "none")),
        ("ab", (1, 2, "split")),
        ("a-", (1, 2, "minimal")),
        ("aab", (2, 3, "moderate")),
        ("aaabbb", (3, 6, "split")),
        ("aaabbc", (3, 6, "minimal")),
        ("aaaaaaaab", (8, 9, "strong")),
        ("aaaaaaabb", (7, 9, "moderate")),
        ("aaaaabbbb", (5, 9, "moderate")),
        ("", (0, 0, "none")),
    ],
)
def test_agreement_has_a_name_for_any_number(answers: str, expected: tuple[int, int, str]) -> None:
    assert agreement([Ballot("" if each == "-" else each) for each in answers]) == Agreement(*expected)


@settings(deadline=None, max_examples=60)
@given(BALLOTS)
def test_agreement_counts_the_majority(ballots: list[Ballot]) -> None:
    found = agreement(ballots)
    assert found.of == len(ballots)
    assert found.votes == round(VOTES["majority"](ballots).share * len(ballots))


@pytest.mark.parametrize("n", [1, 3, 6])
def test_pass_at_is_the_mean_over_all_draws(n: int) -> None:
    for right, k in product(range(n + 1), range(1, n + 1)):
        draws = [any(each) for each in combinations([True] * right + [False] * (n - right), k)]
        assert pass_at(n, right, k) == pytest.approx(fmean(draws))


@pytest.mark.parametrize(("n", "right", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1), (0, 0, 1)])
def test_an_impossible_pass_is_refused(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="no pass@"):
        pass_at(n, right, k)


# -- risk and coverage --


def test_a_curve_by_hand() -> None:
    scores, right = [1.0, 0.6, 1.0, 0.6, 0.2], [True, True, True, False, False]
    assert risk_coverage(scores, right) == [
        Point(2 / 5, 0.0, 1.0, answered=2),
        Point(4 / 5, 1 / 4, 0.6, answered=4),
        Point(1.0, 2 / 5, 0.2, answered=5),
    ]
    assert risk_coverage([], []) == [] and aurc([]) is None
    with pytest.raises(ValueError, match="not a number"):
        risk_coverage([math.nan], [True])


def curve(scored: list[tuple[float, bool]]) -> list[Point]:
    return risk_coverage([score for score, _ in scored], [right for _, right in scored])


@settings(deadline=None, max_examples=80)
@given(SCORED, st.randoms(use_true_random=False))
def test_the_curve_knows_no_order(scored: list[tuple[float, bool]], random: Random) -> None:
    before = curve(scored)
    random.shuffle(scored)
    assert curve(scored) == before
    if scored:
        assert before[-1].coverage == 1
        assert before[-1].risk == pytest.approx(fmean(not right for _, right in scored))


@settings(deadline=None, max_examples=60)
@given(SCORED.filter(len))
def test_the_area_is_the_mean_over_all_orders_within_ties(scored: list[tuple[float, bool]]) -> None:
    """Brute force: every order that the scores allow, each example answered alone."""
    orders = [each for each in permutations(scored) if all(a[0] >= b[0] for a, b in pairwise(each))]
    areas = [
        fmean(sum(not right for _, right in each[:n]) / n for n in range(1, len(each) + 1)) for each in orders
    ]
    assert aurc(curve(scored)) == pytest.approx(fmean(areas))


def test_without_ties_the_area_is_the_mean_risk() -> None:
    right = [True, False, True, True, False, False, True]
    points = risk_coverage(np.linspace(1, 0, 7).tolist(), right)
    assert aurc(points) == pytest.approx(fmean(point.risk for point in points))


# -- how branches differ --


def test_distinct_counts_what_differs() -> None:
    assert distinct(["a", "b", "a", "c"]) == 0.75
    assert distinct(["", "", "7"]) == 2 / 3
    assert distinct(["a"]) == 1.0


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 5), st.integers(0, 99))
def test_spread_is_its_formula(K: int, T: int, seed: int) -> None:
    paths = np.random.default_rng(seed).normal(size=(K, T, 3))
    found = spread(paths)
    assert found

    def apart(t: int) -> float:
        return (
            2
            / (K * (K - 1))
            * sum(math.dist(paths[i, t], paths[j, t]) for i in range(K) for j in range(i + 1, K))
        )

    length = fmean(math.hypot(*thought) for path in paths for thought in path)
    assert found.d_k == pytest.approx(fmean(apart(t) for t in range(T)))
    assert found.d_k_late == pytest.approx(fmean(apart(t) for t in range(T // 2, T)))
    assert found.d_k_relative == pytest.approx(found.d_k / length)
    rotated = spread(paths[::-1] * 7)
    assert rotated and rotated.d_k_relative == pytest.approx(found.d_k_relative)


def test_spread_of_what_cannot_differ() -> None:
    assert spread(np.ones((1, 4, 3))) is None
    assert spread(np.ones((3, 0, 3))) is None
    assert spread(np.ones((3, 4, 3), np.float16)) == Spread(0.0, 0.0, 0.0)
    assert spread(np.zeros((3, 4, 3))) == Spread(0.0, 0.0, 0.0)
