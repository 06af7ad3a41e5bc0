"""Peak memory of a training step above set-up: weights, AdamW's moments and the batch were there before.

Of a process's highest resident size, a process for each side; on a GPU, of the tensors there.
"""

import multiprocessing
import os
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from figure import SIDES, Figure, Job
from sides import build
from workload import MICRO, SMALL, TINY, Work

MOST = 0.4  # of the reference's
# Makes glibc return freed tensors at once: left to itself it keeps most, and hides what a step needs.
GIVE_BACK = ("MALLOC_MMAP_THRESHOLD_", "131072")

CPU = [Work(TINY, 128, 80, 6), Work(SMALL, 8, 90, 6), Work(SMALL, 32, 90, 6)]
GPU = [Work(SMALL, 128, 90, 6)]
QUICK = [Work(MICRO, 2, 24, 2)]


def measure(job: Job) -> Iterator[Figure]:
    if job.device.type == "mps":
        return job.say("memory: mps does not tell the highest it took")
    os.environ.setdefault(*GIVE_BACK)
    for work in QUICK if job.quick else GPU if job.device.type == "cuda" else CPU:
        sides = SIDES[:2] if job.quick else SIDES
        found = {}
        for side in sides:
            job.say(f"memory: {work}, {side}")
            found[side] = _elsewhere(side, work, job)
        peaks = {side: [float(sizes["step"])] for side, sizes in found.items()}
        yield Figure(
            "memory",
            str(work),
            "bytes",
            ours=peaks["ours"],
            reference=peaks["reference"],
            plain=peaks.get("plain"),
            targets={"reference": MOST},
            also=found,
        )


def _elsewhere(side: str, work: Work, job: Job) -> dict[str, int]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(memory_of, side, work, str(job.device), job.threads).result()


def memory_of(side: str, work: Work, device: str, threads: int) -> dict[str, int]:
    """Bytes: after imports, once weights and moments are there, at the highest, and the step's share."""
    torch.set_num_threads(threads)
    place = torch.device(device)
    imports = held(place)
    built = build(side, work, place)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    ready = held(place)
    built.step()
    peak = highest(place)
    return {"imports": imports, "ready": ready, "peak": peak, "step": peak - ready}


def held(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def highest(device: torch.device) -> int:
    """The most so far, of this program: what `getrusage` says begins with the size of who started it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
