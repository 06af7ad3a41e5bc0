"""What ranks send each other in an optimizer step, and how long that takes.

A ring of N ranks brings S bytes to each of them, or sums S bytes over them and leaves each its part, in N - 1
hops, while every rank sends S (N - 1) / N. Summed and whole on each of them is both, one after the other.
"""

from dataclasses import dataclass
from typing import Literal

from coconut_lm.costs import Precision
from coconut_lm.sizing import Sizes

Sharing = Literal["one", "copies", "step", "shards"]
"""All of a model on one device, a copy on each, or shards, put together once a step or for each pass."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that are brought together and that are summed, and how often: blocks, and what is in no block."""

    gathered: int
    summed: int
    gathers: int
    sums: int
    root_gathered: int = 0
    root_summed: int = 0

    def sent(self, devices: int) -> int:
        """Bytes that every rank sends, and that reach it."""
        blocks = self.gathers * self.gathered + self.sums * self.summed
        return (blocks + self.root_gathered + self.root_summed) * (devices - 1) // devices


def traffic(sizes: Sizes, precision: Precision, sharing: Sharing, passes: int, micro: int = 1) -> Traffic:
    """Of one optimizer step of so many micro-batches."""
    wide = 4 if precision.cast or sizes.adapters else precision.weights  # what is cast is summed in float32
    summed = sizes.trained * wide
    if sharing == "one":
        return Traffic(0, 0, 0, 0)
    if sharing == "copies":  # of a sum's two halves, the second brings it back to all
        return Traffic(summed, summed, 1, 1)
    root = 0 if sizes.adapters else sizes.root
    blocks = (sizes.parameters - sizes.root) * precision.compute
    often = 1 if sharing == "step" else passes * micro
    return Traffic(
        gathered=blocks,
        summed=summed - root * wide,
        gathers=1 if sharing == "step" else 2 * often,
        sums=micro if sharing == "step" else often,
        root_gathered=sizes.root * precision.compute * (1 if sharing == "step" else micro),
        root_summed=root * wide * micro,
    )


@dataclass(frozen=True)
class Network:
    """Bytes a second that a device sends one way, to its neighbours and out of the node; seconds of a hop."""

    node: int
    inside: float
    outside: float
    hop_inside: float = 3.4e-6
    hop_outside: float = 14e-6
    start: float = 8.4e-6

    def ring(self, size: float, ranks: int) -> float:
        """Seconds in which `size` bytes are brought to all of so many ranks, or summed over them. A node has
        as many rings as devices, so what enters it comes through all of its devices at once."""
        if ranks == 1:
            return 0.0
        nodes = -(-ranks // self.node)
        rate = self.inside if nodes == 1 else min(self.inside, self.node * self.outside)
        hops = (ranks - nodes) * self.hop_inside + (nodes - 1) * self.hop_outside
        return self.start + hops + size * (ranks - 1) / ranks / rate

    def across(self, size: float, nodes: int) -> float:
        """Seconds in which each device sums its `size` bytes with those that stand for it in other nodes."""
        if nodes == 1:
            return 0.0
        one_way = size * (nodes - 1) / nodes / self.outside + (nodes - 1) * self.hop_outside
        return self.start + 2 * one_way
