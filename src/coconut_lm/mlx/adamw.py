"""torch's AdamW on MLX: with its correction of both biases, and epsilon behind it.

Weight decay is decoupled and of every weight. A weight without a gradient stays as it is and keeps its own
count of steps, as torch's do. What is computed is float32; weights and moments keep their types.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

BETAS, EPSILON = (0.9, 0.999), 1e-8
Arrays = Mapping[str, mx.array]


class AdamW:
    def __init__(self, weights: Arrays, decay: float) -> None:
        self.decay = decay
        self.first = {name: mx.zeros_like(weight) for name, weight in weights.items()}
        self.second = {name: mx.zeros_like(weight) for name, weight in weights.items()}
        self.counts = dict.fromkeys(weights, 0)

    def step(self, weights: Arrays, gradients: Arrays, rate: float, scale: mx.array) -> dict[str, mx.array]:
        """All weights, those with a gradient moved; gradients are multiplied by `scale`."""
        moved = dict(weights)
        before = dict(self.counts)
        for count in sorted({before[name] for name in gradients}):
            names = [name for name in gradients if before[name] == count]
            self.counts |= dict.fromkeys(names, count + 1)
            given = [{name: each[name] for name in names} for each in (weights, gradients)]
            kept = [{name: each[name] for name in names} for each in (self.first, self.second)]
            new, first, second = _COMPILED(*given, *kept, scale, self._factors(rate, count + 1))
            moved, self.first, self.second = moved | new, self.first | first, self.second | second
        return moved

    def _factors(self, rate: float, count: int) -> mx.array:
        """As float64 has them, and one array, so that no rate makes a graph of its own."""
        one, two = (1 - beta**count for beta in BETAS)
        return mx.array([1 - rate * self.decay, rate / one, two**0.5])


def _moved(
    weights: dict[str, mx.array],
    gradients: dict[str, mx.array],
    first: dict[str, mx.array],
    second: dict[str, mx.array],
    scale: mx.array,
    factors: mx.array,
) -> tuple[dict[str, mx.array], dict[str, mx.array], dict[str, mx.array]]:
    left, pace, root = factors[0], factors[1], factors[2]
    moved, means, squares = {}, {}, {}
    for name, gradient in gradients.items():
        precise = gradient.astype(mx.float32) * scale
        before = first[name].astype(mx.float32)
        mean = before + (1 - BETAS[0]) * (precise - before)
        square = BETAS[1] * second[name].astype(mx.float32) + (1 - BETAS[1]) * precise * precise
        weight = weights[name].astype(mx.float32) * left - pace * mean / (mx.sqrt(square) / root + EPSILON)
        moved[name] = weight.astype(weights[name].dtype)
        means[name], squares[name] = mean.astype(first[name].dtype), square.astype(second[name].dtype)
    return moved, means, squares


_COMPILED: Callable[..., Any] = mx.compile(_moved)
