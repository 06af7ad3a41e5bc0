"""Seconds, taken the same way everywhere: after a warm-up, interleaved, the device idle at both ends."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

OFTEN = 5  # runs of a fast side beside one of the slowest, at most


@dataclass(frozen=True)
class Effort:
    """When there are samples enough: so many turns, `least` seconds of them, and no more than `patience`."""

    repeats: int = 3
    least: float = 2.0
    patience: float = 60.0

    def enough(self, turns: int, seconds: float) -> bool:
        if seconds > self.patience and turns >= min(3, self.repeats):
            return True
        return turns >= self.repeats and (seconds > self.least or turns >= 10 * self.repeats)


def finish(device: torch.device) -> None:
    """Waits for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    finish(device)
    begun = time.perf_counter()
    result = work()
    finish(device)
    return time.perf_counter() - begun, result


def interleaved(
    sides: Mapping[str, Callable[[], Any]], effort: Effort, device: torch.device
) -> dict[str, list[float]]:
    """Each turn runs the slowest side once, and the others as often as they fit beside it."""
    warm = {name: timed(work, device)[0] for name, work in sides.items()}
    room = max(warm.values()) / len(sides)
    often = {name: min(OFTEN, max(1, int(room / seconds))) for name, seconds in warm.items()}
    samples: dict[str, list[float]] = {name: [] for name in sides}
    begun, turns = time.perf_counter(), 0
    while not effort.enough(turns, time.perf_counter() - begun):
        for number in range(max(often.values())):
            for name in (name for name in sides if number < often[name]):
                samples[name].append(timed(sides[name], device)[0])
        turns += 1
    return samples


def repeated(work: Callable[[], Any], effort: Effort, device: torch.device) -> list[float]:
    """One side alone, without a warm-up: once at least, and again while there is patience."""
    samples = [timed(work, device)[0]]
    while len(samples) < effort.repeats and sum(samples) < effort.patience:
        samples.append(timed(work, device)[0])
    return samples
