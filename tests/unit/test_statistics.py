"""Intervals and tests: against published figures, scipy and hand calculations; invariants."""

import math
import random
import subprocess
import sys
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coconut_lm.statistics import (
    Pairs,
    bootstrap,
    mcnemar,
    non_inferiority,
    paired_bootstrap,
    paired_difference,
    seeds,
    wilson,
)

CELL = st.integers(0, 400)
PAIRS = st.builds(Pairs, CELL, CELL, CELL, CELL)
NUMBERS = st.lists(st.integers(-50, 50), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_an_interval_holds_its_rate_and_mirrors(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5000))
    right = data.draw(st.integers(0, 2 * n)) / 2
    low, high = wilson(right, n)
    assert 0 <= low <= right / n + 1e-12 and right / n - 1e-12 <= high <= 1
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low))
    wider_low, wider_high = wilson(right, n, 0.99)
    assert wider_low <= low + 1e-12 and high <= wider_high + 1e-12


def test_nothing_measured_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert mcnemar(0, 0) == 1.0
    assert paired_difference(Pairs(0, 0, 0, 0)) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="nothing to resample"):
        bootstrap([])


@pytest.mark.parametrize(("right", "n"), [(3, 2), (-1, 2), (1, 0)])
def test_impossible_rates_are_refused(right: int, n: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        wilson(right, n)


# -- rates of the same examples --


@pytest.mark.parametrize("one, other", list(product((0, 1, 2, 7, 40), repeat=2)))
def test_mcnemar_is_a_fair_coin_counted_out(one: int, other: int) -> None:
    """Twice the binomial tail, by hand."""
    n, few = one + other, min(one, other)
    tail = sum(math.comb(n, k) for k in range(few + 1)) / 2**n
    assert mcnemar(one, other) == pytest.approx(min(1.0, 2 * tail))


@settings(deadline=None, max_examples=60)
@given(CELL, CELL)
def test_mcnemar_is_a_probability_whichever_comes_first(one: int, other: int) -> None:
    assert 0 <= mcnemar(one, other) <= 1
    assert mcnemar(one, other) == pytest.approx(mcnemar(other, one))


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17:2635), table II, method 10; there it is A less B
        (Pairs(36, 2, 12, 0), 0.0569, 0.3404),
        # Fagerland, Lydersen and Laake 2014 (Statistics in Medicine 33:2850), airways before and after
        (Pairs(1, 7, 1, 12), -0.507, -0.026),
    ],
)
def test_published_paired_intervals(pairs: Pairs, low: float, high: float) -> None:
    assert paired_difference(pairs) == pytest.approx((low, high), abs=5e-4)


@settings(deadline=None, max_examples=100)
@given(PAIRS)
def test_a_paired_interval_holds_its_difference_and_mirrors(pairs: Pairs) -> None:
    low, high = paired_difference(pairs)
    assert -1 <= low <= pairs.difference <= high <= 1
    swapped = Pairs(pairs.both, pairs.only_b, pairs.only_a, pairs.neither)
    assert paired_difference(swapped) == pytest.approx((-high, -low))
    wider = paired_difference(pairs, 0.99)
    assert wider[0] <= low + 1e-12 and high <= wider[1] + 1e-12


def covered(n: int, only_a: float, only_b: float, right: float, interval: Any) -> float:
    """How often the interval holds the true difference: all tables of n examples, by their probability."""
    both = max(0.0, right - only_a)
    cells = [both, only_a, only_b, 1 - both - only_a - only_b]
    tables = np.array(
        [(i, j, k, n - i - j - k) for i, j, k in product(range(n + 1), repeat=3) if i + j + k <= n]
    )
    odds = stats.multinomial(n, cells).pmf(tables)
    likely = odds > 1e-7
    return sum(
        odd
        for odd, table in zip(odds[likely], tables[likely].tolist(), strict=True)
        if interval(Pairs(*table))[0] <= only_b - only_a <= interval(Pairs(*table))[1]
    )


def wald(pairs: Pairs) -> tuple[float, float]:
    differing = (pairs.only_a + pairs.only_b) / pairs.n
    half = 1.959964 * math.sqrt(max(0.0, differing - pairs.difference**2) / pairs.n)
    return pairs.difference - half, pairs.difference + half


@pytest.mark.parametrize(
    ("n", "only_a", "only_b", "walds"),
    [(30, 0.0, 0.03, 0.597), (30, 0.01, 0.05, 0.783), (30, 0.1, 0.3, 0.936), (60, 0.0, 0.03, 0.837)],
)
def test_the_interval_covers_what_it_says_where_walds_does_not(
    n: int, only_a: float, only_b: float, walds: float
) -> None:
    assert covered(n, only_a, only_b, 0.6, paired_difference) > 0.945
    assert covered(n, only_a, only_b, 0.6, wald) == pytest.approx(walds, abs=5e-4)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        (Pairs(900, 20, 20, 60), "not worse"),
        (Pairs(880, 80, 10, 30), "worse"),
        (Pairs(30, 5, 5, 10), "undecided"),  # too few to say
    ],
)
def test_non_inferiority(pairs: Pairs, verdict: str) -> None:
    told = non_inferiority(pairs, 0.02)
    assert told.verdict == verdict
    assert (told.low, told.high) == paired_difference(pairs) and told.margin == 0.02


def test_more_margin_never_turns_the_verdict_down() -> None:
    order = {"worse": 0, "undecided": 1, "not worse": 2}
    verdicts = [non_inferiority(Pairs(500, 60, 30, 100), m / 100).verdict for m in range(20)]
    assert [order[v] for v in verdicts] == sorted(order[v] for v in verdicts)
    assert len(set(verdicts)) > 1
    with pytest.raises(ValueError, match="margin"):
        non_inferiority(Pairs(1, 1, 1, 1), 2)


def test_pairs_are_counted_by_example() -> None:
    pairs = Pairs.of([True, True, False, False, False], [True, False, True, False, True])
    assert pairs == Pairs(both=1, only_a=1, only_b=2, neither=1)
    assert pairs.n == 5 and pairs.difference == pytest.approx(0.2)
    with pytest.raises(ValueError):
        Pairs.of([True], [])


# -- means and all else --


def test_the_bootstrap_is_scipys() -> None:
    values = np.sort(np.random.default_rng(1).gamma(2, 10, 200))
    expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(5)).confidence_interval
    assert bootstrap(values.tolist(), seed=5) == pytest.approx(tuple(expected))


def test_the_bootstrap_of_many_is_students() -> None:
    values = np.random.default_rng(2).normal(3, 2, 2000)
    student = stats.ttest_1samp(values, 0).confidence_interval()
    assert bootstrap(values.tolist()) == pytest.approx(tuple(student), abs=0.01)


@settings(deadline=None, max_examples=25)
@given(NUMBERS, st.randoms(use_true_random=False))
def test_a_bootstrap_interval_holds_its_mean_in_any_order(values: list[int], order: random.Random) -> None:
    low, high = bootstrap(values)
    assert (
        min(values) - 1e-9 <= low <= fmean(values) + 1e-9
        and fmean(values) - 1e-9 <= high <= max(values) + 1e-9
    )
    order.shuffle(values)
    assert bootstrap(values) == (low, high)


def test_columns_are_resampled_together() -> None:
    """A ratio of columns that go together is known exactly, however they vary."""
    values = np.random.default_rng(3).gamma(2, 10, 50)

    def ratio(a: Any, b: Any, axis: int) -> Any:
        return b.mean(axis) / a.mean(axis)

    assert bootstrap(values.tolist(), (values / 2).tolist(), statistic=ratio) == pytest.approx((0.5, 0.5))
    mixed = np.random.default_rng(4).permutation(values / 2)
    low, high = bootstrap(values.tolist(), mixed.tolist(), statistic=ratio)
    assert low < 0.45 and high > 0.55


def test_a_paired_difference_of_means() -> None:
    random = np.random.default_rng(6)
    before = random.gamma(2, 10, 300)
    after = before + random.normal(-1, 3, 300)
    told = paired_bootstrap(before.tolist(), after.tolist())
    student = stats.ttest_rel(after, before)
    assert told.difference == pytest.approx(np.mean(after - before))
    assert (told.low, told.high) == pytest.approx(tuple(student.confidence_interval()), abs=0.03)
    assert told.p == pytest.approx(student.pvalue, abs=2e-4) and told.p < 0.001


@pytest.mark.parametrize(("only_a", "only_b"), [(30, 15), (9, 9), (4, 0), (60, 55)])
def test_of_rights_and_wrongs_sign_flips_are_mcnemars_test(only_a: int, only_b: int) -> None:
    a = [1] * only_a + [0] * only_b + [1] * 200
    b = [0] * only_a + [1] * only_b + [1] * 200
    assert paired_bootstrap(a, b).p == pytest.approx(mcnemar(only_a, only_b), abs=0.015)


@settings(deadline=None, max_examples=25)
@given(NUMBERS, st.data())
def test_a_paired_difference_mirrors_in_any_order(a: list[int], data: st.DataObject) -> None:
    b = data.draw(st.lists(st.integers(-50, 50), min_size=len(a), max_size=len(a)))
    told, turned = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert told.low - 1e-9 <= told.difference <= told.high + 1e-9 and 0 < told.p <= 1
    assert turned.difference == pytest.approx(-told.difference) and turned.p == told.p
    order = data.draw(st.permutations(range(len(a))))
    assert paired_bootstrap([a[i] for i in order], [b[i] for i in order]) == told


def test_one_example_proves_nothing() -> None:
    assert paired_bootstrap([1.0], [9.0]).p == 1.0
    assert bootstrap([9.0]) == (9.0, 9.0)


# -- seeds --


def test_seeds() -> None:
    told = seeds([0.31, 0.35, 0.33])
    assert (told.n, told.mean, told.sd) == (3, pytest.approx(0.33), pytest.approx(0.02))
    half = 4.302653 * 0.02 / math.sqrt(3)  # Student's 97.5 % quantile at two degrees of freedom
    assert (told.low, told.high) == (pytest.approx(0.33 - half), pytest.approx(0.33 + half))


def test_one_seed_has_no_interval() -> None:
    told = seeds([0.5])
    assert (told.n, told.mean, told.sd, told.low, told.high) == (1, 0.5, None, None, None)


def test_scipy_waits_until_it_is_needed() -> None:
    code = (
        "import sys, coconut_lm.statistics as s; s.wilson(1, 2); print({'scipy', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
