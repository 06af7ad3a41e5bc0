"""Fits: each family finds itself again; which are left out; weights, limits, files."""

import json
import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.fits import FAMILIES, Fit, first_below, fit

SCALES = [0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0]
# What a user of noise has measured: accuracy falls, and stays.
FALLING = [0.95, 0.94, 0.94, 0.9, 0.81, 0.6, 0.42, 0.33, 0.31, 0.3]

FORMULAS: dict[str, Any] = {
    "exponential": lambda x, a, b: a * math.exp(-b * x),
    "rational": lambda x, a, b, c: a / (1 + b * x**c),
    "linear": lambda x, a, b: a - b * x,
    "logistic": lambda x, L, k, x0, b: L / (1 + math.exp(-k * (x - x0))) + b,
    "logistic_log": lambda x, L, k, x0, b: L / (1 + math.exp(-k * (math.log10(x) - x0))) + b,
}
PARAMETERS = {
    "exponential": {"a": (0.2, 1.0), "b": (0.05, 3.0)},
    "rational": {"a": (0.2, 1.0), "b": (0.1, 4.0), "c": (0.5, 2.5)},
    "linear": {"a": (0.2, 1.0), "b": (-0.1, 0.09)},
    "logistic": {"L": (0.2, 0.9), "k": (-3.0, -0.6), "x0": (0.5, 4.0), "b": (-0.1, 0.3)},
    "logistic_log": {"L": (0.2, 0.9), "k": (-8.0, -2.0), "x0": (-0.6, 0.5), "b": (-0.1, 0.3)},
}


def named(name: str, fits: list[Fit]) -> Fit:
    return next(each for each in fits if each.name == name)


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_exact_points_have_their_parameters(name: str, data: st.DataObject) -> None:
    """By formulas written out here; at scales above 0 too, and with any numbers of examples."""
    drawn = {each: data.draw(st.floats(*limits)) for each, limits in PARAMETERS[name].items()}
    if name == "linear" and abs(drawn["b"]) < 1e-3:
        drawn["b"] = 0.01
    xs = SCALES[1:] if name == "logistic_log" or data.draw(st.booleans()) else SCALES
    ys = [FORMULAS[name](x, **drawn) for x in xs]
    ns = data.draw(st.sampled_from([None, [100] * len(xs), list(range(10, 10 + len(xs)))]))
    found = named(name, fit(xs, ys, ns))
    assert found.parameters == pytest.approx(drawn, rel=1e-4, abs=1e-4)
    assert found.r2 == pytest.approx(1, abs=1e-9)
    assert [found.at(x) for x in xs] == pytest.approx(ys, abs=1e-6)
    assert found.at(np.array(xs)) == pytest.approx(ys, abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(0, 40), min_size=6, max_size=10),
    st.sampled_from([SCALES, [1000.0, 0.01, -3.0, *SCALES]]),
)
def test_whatever_was_measured_nothing_warns_and_no_line_is_beaten(
    rights: list[int], scales: list[float]
) -> None:
    xs, ys = scales[: len(rights)], [right / 40 for right in rights]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = fit(xs, ys)
    for each in fits:
        assert each.r2 <= 1 and all(map(math.isfinite, each.parameters.values()))
    if len(set(ys)) > 1:
        slope, height = np.polyfit(xs, ys, 1)
        line = named("linear", fits)
        assert line.parameters == pytest.approx({"a": height, "b": -slope}, abs=1e-6)
        assert line.r2 == pytest.approx(np.corrcoef(xs, ys)[0, 1] ** 2, abs=1e-6)


def test_a_fall_in_steps_is_a_logistic_and_little_else() -> None:
    fits = fit(SCALES, FALLING)
    assert [each.name for each in fits] == list(FAMILIES)
    r2 = {each.name: each.r2 for each in fits}
    assert max(r2, key=r2.__getitem__) == "logistic_log" and r2["logistic_log"] > 0.995 > 0.7 > r2["linear"]
    turn = 10 ** named("logistic_log", fits).parameters["x0"]
    assert 0.5 < turn < 1.5


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_cliff_is_a_logistic_too(noise: float) -> None:
    """Infinitely steep would be best; the search ends before."""
    ys = [(0.9 if x < 1.5 else 0.3) + noise * (-1) ** i for i, x in enumerate(SCALES)]
    for name in ("logistic", "logistic_log"):
        assert named(name, fit(SCALES, ys)).r2 > 0.99


def test_rising_points_have_curves_too() -> None:
    """A ratio of signal to noise: the more the better."""
    xs = [0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 100]
    ys = [FORMULAS["rational"](x, 0.9, 0.5, -1.0) for x in xs]
    assert named("rational", fit(xs, ys)).parameters == pytest.approx(
        {"a": 0.9, "b": 0.5, "c": -1.0}, rel=1e-4
    )
    assert named("logistic_log", fit(xs, ys)).parameters["k"] > 0


def test_what_cannot_be_made_is_left_out() -> None:
    def names(xs: list[float], ys: list[float], ns: list[int] | None = None) -> list[str]:
        return [each.name for each in fit(xs, ys, ns)]

    assert names([], []) == names([0.0, 1.0], [0.9, 0.1]) == []
    assert names(SCALES, [0.5] * len(SCALES)) == []
    assert names(SCALES[:3], FALLING[:3]) == ["exponential", "linear"]
    assert names([1.0, 1.0, 1.0, 2.0], [0.9, 0.8, 0.9, 0.7]) == []  # a scale again is no other scale
    assert names(SCALES[:5], [0.9, 0.5, 0.5, 0.5, 0.5])[-1] == "logistic"  # of those above 0 all are equal
    assert names(SCALES, [math.nan] * 8 + FALLING[:2]) == []
    assert names(SCALES[:3], FALLING[:3], [10, 10, 0]) == []
    with pytest.raises(ValueError):
        fit([1.0, 2.0], [0.1])


def test_scales_that_a_formula_does_not_know_are_not_its_points() -> None:
    with_zero, without = fit(SCALES, FALLING), fit(SCALES[1:], FALLING[1:])
    assert named("logistic_log", with_zero) == named("logistic_log", without)
    below_zero = fit([-1.0, *SCALES], [0.2, *FALLING])
    assert named("rational", below_zero) == named("rational", with_zero)
    assert named("linear", below_zero) != named("linear", with_zero)
    found = named("logistic_log", with_zero)
    assert found.at(0.0) == pytest.approx(found.parameters["L"] + found.parameters["b"])  # its limit


def test_a_point_counts_as_its_examples() -> None:
    """As if a point of twice the examples were there twice."""
    xs, ys, ns = SCALES[:6], FALLING[:6], [1, 2, 1, 3, 1, 2]
    repeated = [(x, y) for x, y, n in zip(xs, ys, ns, strict=True) for _ in range(n)]
    for one, other in zip(fit(xs, ys, ns), fit(*map(list, zip(*repeated, strict=True))), strict=True):
        assert one.name == other.name and one.r2 == pytest.approx(other.r2, abs=1e-6)
    assert named("linear", fit(xs, ys, ns)).parameters != pytest.approx(
        named("linear", fit(xs, ys)).parameters
    )


def test_a_fit_comes_back_from_its_file() -> None:
    for each in fit(SCALES, FALLING, [100] * 10):
        told = json.loads(json.dumps(each.to_json()))
        assert set(told) == {"name", "formula", "parameters", "r2"}
        assert Fit(**told) == each and Fit(**told).at(0.7) == each.at(0.7)


def test_the_first_scale_below() -> None:
    assert first_below(SCALES, FALLING) == 2.0
    assert first_below(SCALES, FALLING, 0.2) is None
    assert first_below([1, 2], [0.5, 0.4]) == 2  # a half is not under a half
    assert first_below([100, 1, 0.1], [0.9, 0.4, 0.1]) == 1  # from the least noise, not the least number
    assert first_below([1, 2], [math.nan, 0.1]) == 2


def test_the_room_is_light() -> None:
    code = "import sys, coconut_lm.fits, coconut_lm.votes; print({'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
