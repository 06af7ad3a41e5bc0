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
    return max(0.0, low), min(1.0, high)
