"""Intervals of rates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.statistics import wilson


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


@pytest.mark.parametrize(("right", "n"), [(3, 2), (-1, 2), (1, 0)])
def test_impossible_rates_are_refused(right: int, n: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        wilson(right, n)
