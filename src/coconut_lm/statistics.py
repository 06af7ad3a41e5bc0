"""How sure a measured figure is, and whether two differ. docs/statistics.md says which is for what.

Differences are B - A: A is what was there before, and the i-th value of both belongs to the i-th example.
scipy loads when it is first needed.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal

RESAMPLES = 9999
RESAMPLED_AT_ONCE = 2_000_000  # values; all resamples together would fill the memory


def wilson(right: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of the rate `right` / `n`; a tie may count one half."""
    if not 0 <= right <= n or not 0 < confidence < 1:
        raise ValueError(f"no rate: {right} of {n} at confidence {confidence}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, spread = right / n, z * z / n
    middle = rate + spread / 2
    half = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    # Rounding must not part the interval from its rate: none of n begins at 0, all of n ends at 1.
    return max(0.0, min(low, rate)), min(1.0, max(high, rate))


# -- rates of the same examples --


@dataclass(frozen=True)
class Pairs:
    """How often A and B were right on the same examples."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, a: Sequence[bool], b: Sequence[bool]) -> "Pairs":
        """The i-th verdicts of both are on the same example."""
        count = Counter((bool(one), bool(other)) for one, other in zip(a, b, strict=True))
        return cls(count[True, True], count[True, False], count[False, True], count[False, False])

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """B's rate less A's."""
        return (self.only_b - self.only_a) / self.n if self.n else 0.0


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of "neither is right more often", from the examples that one alone got right."""
    from scipy.stats import binomtest

    differing = only_a + only_b
    return float(binomtest(only_a, differing, 0.5).pvalue) if differing else 1.0


def paired_difference(pairs: Pairs, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of B's rate less A's: Newcombe's hybrid score, with his correction of the correlation.

    Unlike Wald's it does not shrink to nothing where A and B seldom differ, nor leave -1 to 1.
    """
    n, right_a, right_b = pairs.n, pairs.both + pairs.only_a, pairs.both + pairs.only_b
    if n == 0:
        return -1.0, 1.0
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n, confidence), wilson(right_b, n, confidence)
    down_a, up_a, down_b, up_b = (
        right_a / n - low_a,
        high_a - right_a / n,
        right_b / n - low_b,
        high_b - right_b / n,
    )
    phi = _correlation(pairs)
    down = math.sqrt(max(0.0, down_b**2 - 2 * phi * down_b * up_a + up_a**2))
    up = math.sqrt(max(0.0, up_b**2 - 2 * phi * up_b * down_a + down_a**2))
    return max(-1.0, pairs.difference - down), min(1.0, pairs.difference + up)


def _correlation(pairs: Pairs) -> float:
    """Between being right here and there; a positive one is taken half an example smaller."""
    right_a, right_b = pairs.both + pairs.only_a, pairs.both + pairs.only_b
    spread = right_a * (pairs.n - right_a) * right_b * (pairs.n - right_b)
    agree = pairs.both * pairs.neither - pairs.only_a * pairs.only_b
    if spread == 0:
        return 0.0
    return (max(0.0, agree - pairs.n / 2) if agree > 0 else agree) / math.sqrt(spread)


@dataclass(frozen=True)
class NonInferiority:
    """Whether B is at most `margin` worse than A, from the interval of the difference."""

    margin: float
    low: float
    high: float
    verdict: Literal["not worse", "worse", "undecided"]


def non_inferiority(pairs: Pairs, margin: float, confidence: float = 0.95) -> NonInferiority:
    """B is "not worse" if the interval lies above -margin, "worse" if below, "undecided" if it holds it."""
    if not 0 <= margin <= 1:
        raise ValueError(f"a margin is a difference of rates, 0 to 1: {margin}")
    low, high = paired_difference(pairs, confidence)
    verdict: Literal["not worse", "worse", "undecided"] = "undecided"
    if low > -margin:
        verdict = "not worse"
    elif high < -margin:
        verdict = "worse"
    return NonInferiority(margin, low, high, verdict)


# -- means and all else --


def bootstrap(
    *columns: Sequence[float],
    statistic: Callable[..., Any] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The BCa bootstrap interval of a statistic of examples: of their mean, if nothing else is asked.

    Several columns are resampled together; `statistic` takes them and an `axis`. The examples' order is of no
    account. It knows only the spread that it is shown: equal examples have an interval of no width.
    """
    import numpy as np

    samples = np.asarray(columns, dtype=float)
    if samples.size == 0:
        raise ValueError("nothing to resample")
    measure: Callable[..., Any] = statistic or np.mean
    samples = samples[:, np.lexsort(samples)]  # a resample is drawn by place: any order of examples is one
    estimate = float(measure(*samples, axis=-1))
    if (samples == samples[:, :1]).all():
        return estimate, estimate
    low, high = _bca(samples, measure, confidence, seed)
    return min(low, estimate), max(high, estimate)


def _bca(samples: Any, statistic: Callable[..., Any], confidence: float, seed: int) -> tuple[float, float]:
    import numpy as np
    from scipy.stats import bootstrap as resample

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of degenerate data, which are asked for below
        done = resample(
            tuple(samples),
            statistic,
            n_resamples=RESAMPLES,
            batch=max(1, RESAMPLED_AT_ONCE // samples.shape[1]),
            vectorized=True,
            paired=True,
            confidence_level=confidence,
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, done.confidence_interval)
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    # Too few distinct values to correct for bias and skew: plain percentiles.
    low, high = np.quantile(done.bootstrap_distribution, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class MeanDifference:
    """B's mean less A's, its interval, and the two-sided p of its being chance."""

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> MeanDifference:
    """The difference of two means over the same examples, its bootstrap interval, and the p of sign flips."""
    differences = [after - before for before, after in zip(a, b, strict=True)]
    low, high = bootstrap(differences, confidence=confidence, seed=seed)
    return MeanDifference(fmean(differences), low, high, _flipped(differences, seed))


def _flipped(differences: Sequence[float], seed: int) -> float:
    """How often chance differs as much, had each example's A and B been as likely the other way round.

    Of rights and wrongs this is McNemar's test, drawn instead of counted.
    """
    import numpy as np

    sizes = np.sort(np.abs(differences))
    least = abs(math.fsum(differences)) * (1 - 1e-12)  # the sum itself may be rounded otherwise
    random, as_much, left = np.random.default_rng(seed), 0, RESAMPLES
    while left:
        draws = min(left, max(1, RESAMPLED_AT_ONCE // len(sizes)))
        signs = random.integers(0, 2, (draws, len(sizes)), dtype=np.int8) * 2 - 1
        as_much += int((np.abs(signs @ sizes) >= least).sum())
        left -= draws
    return (as_much + 1) / (RESAMPLES + 1)


# -- seeds --


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in their seed: mean, standard deviation, and the interval of the mean.

    One run has neither deviation nor interval.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def seeds(values: Sequence[float], confidence: float = 0.95) -> Seeds:
    """Student's interval: the seeds, not the examples, are what is sampled."""
    if len(values) < 2:
        return Seeds(len(values), fmean(values), None, None, None)
    from scipy.stats import t

    mean, sd = fmean(values), stdev(values)
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Seeds(len(values), mean, sd, mean - half, mean + half)
