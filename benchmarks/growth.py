"""How our step's cost grows with thoughts, rows and columns, beside one plain pass over the same tokens."""

from collections.abc import Iterator

from clock import interleaved
from figure import Figure, Job
from sides import build
from workload import MICRO, TINY, Work

GROWTH = {
    "thoughts": [Work(TINY, 32, 96, thoughts) for thoughts in (0, 1, 2, 4, 8, 16, 32)],
    "rows": [Work(TINY, rows, 80, 6) for rows in (1, 4, 16, 32, 64, 128)],
    "columns": [Work(TINY, 32, columns, 6) for columns in (32, 64, 128, 256, 512)],
}
QUICK = {"thoughts": [Work(MICRO, 2, 24, thoughts) for thoughts in (0, 2)]}


def measure(job: Job) -> Iterator[Figure]:
    for what, works in (QUICK if job.quick else GROWTH).items():
        for work in works:
            job.say(f"growth with {what}: {work}")
            sides = {name: build(name, work, job.device) for name in ("ours", "plain")}
            steps = {name: side.step for name, side in sides.items()}
            seconds = interleaved(steps, job.effort, job.device)
            yield Figure("growth", f"{what}: {work}", "s", ours=seconds["ours"], plain=seconds["plain"])
