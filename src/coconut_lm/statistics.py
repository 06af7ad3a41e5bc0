"""How sure a measured rate is."""

import math
from statistics import NormalDist


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
