"""A figure: what one measurement found on each side, and whether that is what was aimed at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from clock import Effort

SIDES = ("ours", "reference", "plain")


@dataclass(frozen=True)
class Job:
    """What is measured where, and how long."""

    device: torch.device
    threads: int = 1
    effort: Effort = Effort()
    quick: bool = False
    """A shape that takes no time: to see that everything runs."""
    tokenizer: Path | None = None
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Figure:
    """Samples of each side, in seconds ("s"), "bytes", or as a "share".

    Of seconds, `targets` says how many times faster than the reference we should be at least, and how many
    times the plain pass's time we may take at most; of bytes, which part of the other side's at most.
    """

    section: str
    name: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float] | None = None
    plain: Sequence[float] | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    same: bool | None = None
    """Whether both sides computed the same; None where nothing was compared."""
    also: Mapping[str, Any] = field(default_factory=dict)

    def value(self, side: str) -> float | None:
        samples: Sequence[float] | None = getattr(self, side)
        return median(samples) if samples else None

    def ratio(self, side: str) -> float | None:
        """How many times faster than the reference; how many times the plain pass, or the other's bytes."""
        ours, other = self.value("ours"), self.value(side)
        if not ours or not other:
            return None
        return other / ours if self.faster(side) else ours / other

    def faster(self, side: str) -> bool:
        """Whether more is better in the ratio to that side."""
        return side == "reference" and self.unit == "s"

    def reached(self, side: str) -> bool | None:
        """None where nothing was aimed at, or measured."""
        target, ratio = self.targets.get(side), self.ratio(side)
        if target is None or ratio is None:
            return None
        return ratio >= target if self.faster(side) else ratio <= target

    def to_json(self) -> dict[str, Any]:
        sides = {
            side: {"median": self.value(side), "samples": list(getattr(self, side))}
            for side in SIDES
            if getattr(self, side)
        }
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            **sides,
            "ratios": {side: self.ratio(side) for side in SIDES[1:] if self.ratio(side) is not None},
            "targets": dict(self.targets),
            "reached": {side: self.reached(side) for side in self.targets},
            "same": self.same,
            "also": dict(self.also),
        }
