"""A training step: forward, backward and optimizer, against the published algorithm and one plain pass."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from clock import interleaved
from figure import SIDES, Figure, Job
from sides import PLAIN_OURS, Side, build
from workload import MICRO, SMALL, TINY, Work

from coconut_lm.costs import Shape, flops_of_training

TOLERANCE = {False: 1e-4, True: 2e-2}
"""By whether bf16 is on a side: absolute for losses, relative for gradient norms."""
PEAKS = {  # dense bf16 operations a second, as NVIDIA states them; the first name that a device's contains
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}


@dataclass(frozen=True)
class Case:
    """`bf16` holds the sides under autocast; the others compute in float32."""

    work: Work
    bf16: frozenset[str] = frozenset()
    targets: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        both = "reference" in self.bf16
        return f"{self.work}, {'bf16' if self.bf16 else 'fp32'}{' on both sides' if both else ''}"


OURS_BF16 = frozenset({"ours", "plain", PLAIN_OURS})
ALL_BF16 = OURS_BF16 | {"reference"}
PLAIN = {6: 1.05, 24: 1.3}  # times one plain pass, by thoughts, at most


def _case(work: Work, times: float | None = None, bf16: frozenset[str] = frozenset()) -> Case:
    targets = {"reference": times, "plain": PLAIN.get(work.thoughts)}
    return Case(work, bf16, {side: value for side, value in targets.items() if value is not None})


CPU = [
    _case(Work(TINY, 32, 92, 0)),
    _case(Work(TINY, 32, 92, 2)),
    _case(Work(TINY, 32, 92, 4), times=6),
    _case(Work(TINY, 128, 80, 6), times=28),
    _case(Work(TINY, 32, 112, 24), times=30),
    _case(Work(SMALL, 8, 90, 0)),
    _case(Work(SMALL, 8, 90, 2)),
    _case(Work(SMALL, 8, 90, 6), times=2),
    _case(Work(SMALL, 8, 90, 24)),
    _case(Work(SMALL, 8, 90, 6), times=4, bf16=OURS_BF16),
]
GPU = [
    _case(Work(SMALL, 128, 90, 6), times=10),
    _case(Work(SMALL, 128, 90, 6), times=10, bf16=OURS_BF16),
    _case(Work(SMALL, 128, 90, 6), bf16=ALL_BF16),
]
QUICK = [Case(Work(MICRO, 2, 24, 2)), Case(Work(MICRO, 2, 24, 0), OURS_BF16)]


def measure(job: Job) -> Iterator[Figure]:
    for case in QUICK if job.quick else GPU if job.device.type == "cuda" else CPU:
        job.say(f"a training step: {case}")
        yield _measure(case, job)


def _measure(case: Case, job: Job) -> Figure:
    sides = {name: build(name, case.work, job.device, name in case.bf16) for name in (*SIDES, PLAIN_OURS)}
    found = {name: sides[name].loss_and_norm() for name in SIDES[:2]}
    seconds = interleaved({name: side.step for name, side in sides.items()}, job.effort, job.device)
    return Figure(
        "steps",
        str(case),
        "s",
        ours=seconds["ours"],
        reference=seconds["reference"],
        plain=seconds["plain"],
        targets=case.targets,
        same=_same(found["ours"], found["reference"], TOLERANCE[bool(case.bf16)]),
        also={
            "loss, gradient norm": found,
            "of a plain pass with our products": median(seconds["ours"]) / median(seconds[PLAIN_OURS]),
            **_utilization(case.work, sides["ours"], median(seconds["ours"]), job.device),
        },
    )


def _same(ours: tuple[float, float], theirs: tuple[float, float], tolerance: float) -> bool:
    return abs(ours[0] - theirs[0]) < tolerance and abs(ours[1] / theirs[1] - 1) < tolerance


def _utilization(work: Work, side: Side, seconds: float, device: torch.device) -> dict[str, Any]:
    """Operations that the model asks for, and their share of what the card could do, where that is known."""
    shape = Shape.of(side.model.config.get_text_config())
    asked = work.rows * flops_of_training(shape, work.columns, work.supervised)
    found: dict[str, Any] = {"tokens/s": work.rows * work.columns / seconds, "GFLOP/s": asked / seconds / 1e9}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((value for card, value in PEAKS.items() if card in name), None)
    if peak is not None:
        found |= {"MFU": asked / seconds / peak, "bf16 peak, TFLOP/s": peak / 1e12}
    return found
