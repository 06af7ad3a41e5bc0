"""How accuracy decays with a scale: curves through measured points, and how well each goes through them.

numpy and scipy load when they are first needed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

TRIED = 3  # starts that are followed: those that lie nearest to the points
CLOSE = 1e-12  # exact points have exact parameters
STILL = 1e-7  # but who gains so little in a step is on the way to a cliff, infinitely steep
INF = float("inf")


@dataclass(frozen=True)
class Fit:
    """A curve through points, and the part of their variance that it explains."""

    name: str
    formula: str
    parameters: dict[str, float]
    r2: float

    def to_json(self) -> dict[str, Any]:
        """What Fit(**it) is again."""
        return asdict(self)

    def at(self, x: Any) -> Any:
        """How high the curve is at a number, or at each of an array."""
        import numpy as np

        family = FAMILIES[self.name]
        with np.errstate(all="ignore"):  # a limit is a height too
            return family.curve(
                np.asarray(x, dtype=float), *(self.parameters[each] for each in family.names)
            )[()]


def fit(xs: Sequence[float], ys: Sequence[float], ns: Sequence[int] | None = None) -> list[Fit]:
    """The least squares of each family, by scales and what was measured there, of `ns` examples each.

    A point counts as much as it has examples, in R2 too. Left out is a family that has no more scales than
    parameters, does not converge, or of which all points are equally high.
    """
    import numpy as np

    points = np.array([xs, ys, np.ones(len(xs)) if ns is None else ns], dtype=float)
    points = points[:, np.isfinite(points).all(axis=0) & (points[2] > 0)]
    with np.errstate(all="ignore"):  # a bad step is only a bad step
        fits = [_fit(name, *points[:, family.knows(points[0])]) for name, family in FAMILIES.items()]
    return [each for each in fits if each]


def _fit(name: str, x: Any, y: Any, n: Any) -> Fit | None:
    import numpy as np
    from scipy.optimize import least_squares

    family = FAMILIES[name]
    if len(np.unique(x)) <= len(family.names) or y.min() == y.max():
        return None
    weights = np.sqrt(n / n.mean())

    def misses(parameters: Sequence[float]) -> Any:
        return weights * (family.curve(x, *parameters) - y)

    def miss(parameters: Sequence[float]) -> float:
        return float(np.square(misses(parameters)).sum())

    starts = sorted(filter(lambda each: np.isfinite(miss(each)), family.starts(x, y)), key=miss)[:TRIED]
    found = [
        least_squares(
            misses, each, bounds=family.bounds(x, y), x_scale="jac", ftol=STILL, xtol=CLOSE, gtol=CLOSE
        )
        for each in starts
    ]
    best = min((each for each in found if each.success), key=lambda each: each.cost, default=None)
    if best is None:
        return None
    total = float(np.square(weights * (y - np.average(y, weights=n))).sum())
    parameters = dict(zip(family.names, map(float, best.x), strict=True))
    return Fit(name, family.formula, parameters, 1 - 2 * float(best.cost) / total)


def first_below(xs: Sequence[float], ys: Sequence[float], level: float = 0.5) -> float | None:
    """The first scale, in the order given, whose accuracy is under the level; None where none is."""
    return next((x for x, y in zip(xs, ys, strict=True) if y < level), None)


# -- families --


@dataclass(frozen=True)
class Family:
    """A formula, where it is looked for from and within, by the points, and at which scales it is known."""

    formula: str
    names: tuple[str, ...]
    curve: Callable[..., Any]
    starts: Callable[[Any, Any], Iterable[tuple[float, ...]]]
    bounds: Callable[[Any, Any], tuple[Any, Any]] = lambda x, y: (-INF, INF)
    knows: Callable[[Any], Any] = lambda x: x == x


def _exponential(x: Any, a: float, b: float) -> Any:
    import numpy as np

    return a * np.exp(-b * x)


def _exponential_starts(x: Any, y: Any) -> Iterable[tuple[float, ...]]:
    first = float(y[x.argmin()])
    return [(first, sign / away) for away in abs(x[x != 0]) for sign in (1, -1)]


def _rational(x: Any, a: float, b: float, c: float) -> Any:
    return a / (1 + b * x**c)


def _rational_starts(x: Any, y: Any) -> Iterable[tuple[float, ...]]:
    """A half of the highest is left at one of the scales."""
    powers = (-2.0, -1.0, 0.5, 1.0, 2.0, 4.0)
    return [(float(abs(y).max()), half**-power, power) for half, power in product(x[x > 0], powers)]


def _logistic(x: Any, L: float, k: float, x0: float, b: float) -> Any:
    import numpy as np

    return L * (1 + np.tanh(k * (x - x0) / 2)) / 2 + b  # the same, and nothing overflows


def _logistic_starts(x: Any, y: Any) -> Iterable[tuple[float, ...]]:
    steep = [sign * rise / float(x.max() - x.min()) for rise in (2, 8, 32) for sign in (1, -1)]
    return [(float(y.max() - y.min()), k, x0, float(y.min())) for k, x0 in product(steep, x)]


def _logistic_bounds(x: Any, y: Any) -> tuple[Any, Any]:
    """L is positive, so that k alone has the sign; the turn is among the points.

    Without that, any exponential is a logistic of any height, far enough away.
    """
    height = y.max() - y.min()
    return (0, -INF, x.min(), y.min() - 10 * height), (10 * height, INF, x.max(), y.max())


def _in_log10(function: Callable[..., Any]) -> Callable[..., Any]:
    def of_log10(x: Any, *rest: Any) -> Any:
        import numpy as np

        return function(np.log10(x), *rest)

    return of_log10


FAMILIES = {
    "exponential": Family("a exp(-b x)", ("a", "b"), _exponential, _exponential_starts),
    "rational": Family(
        "a/(1+b x^c)",
        ("a", "b", "c"),
        _rational,
        _rational_starts,
        bounds=lambda x, y: ((-INF, 0, -20), (INF, INF, 20)),
        knows=lambda x: x >= 0,
    ),
    "linear": Family("a - b x", ("a", "b"), lambda x, a, b: a - b * x, lambda x, y: [(float(y.mean()), 0.0)]),
    "logistic": Family(
        "L/(1+exp(-k(x-x0)))+b", ("L", "k", "x0", "b"), _logistic, _logistic_starts, _logistic_bounds
    ),
    "logistic_log": Family(
        "L/(1+exp(-k(log10 x-x0)))+b",
        ("L", "k", "x0", "b"),
        _in_log10(_logistic),
        _in_log10(_logistic_starts),
        _in_log10(_logistic_bounds),
        knows=lambda x: x > 0,
    ),
}
