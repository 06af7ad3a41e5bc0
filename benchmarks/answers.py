"""Seconds of a set of answers: ours through the evaluation's own way, the published one prompt at a time.

The reference answers a few prompts of about mean cost; the rest is scaled by the tokens that it would read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

import torch
from clock import timed
from figure import Figure, Job
from quiz import SHORTEST, Quiz
from workload import MICRO, SMALL, TINY, Net, our_model, plain_model


@dataclass(frozen=True)
class Case:
    """Faster than the reference by so many `times`, at least. `bf16` is on our side alone."""

    net: Net
    times: float | None = None
    ends: bool = False
    bf16: bool = False
    prompts: int = 300
    most: int = 64
    batch: int = 32
    measured: int = 2

    def __str__(self) -> str:
        written = f"{SHORTEST} to {self.most} tokens" if self.ends else f"{self.most} tokens"
        return f"{self.net.name}, {self.prompts} answers of {written}, {'bf16' if self.bf16 else 'fp32'}"


CPU = [
    Case(TINY, times=50, batch=16),  # so few that their keys fit into a processor's cache
    Case(TINY, ends=True, batch=16),
    Case(SMALL, times=100),
    Case(SMALL, ends=True),
    Case(SMALL, bf16=True),
]
GPU = [
    Case(SMALL, times=200, batch=300),
    Case(SMALL, ends=True, batch=300),
    Case(SMALL, times=200, bf16=True, batch=300),
]
QUICK = [Case(MICRO, ends=ends, prompts=3, most=7, batch=2, measured=1) for ends in (False, True)]


def measure(job: Job) -> Iterator[Figure]:
    for case in QUICK if job.quick else GPU if job.device.type == "cuda" else CPU:
        job.say(f"answers: {case}")
        yield _Round(case, job).figure()


class _Round:
    """Both sides' models, and what they have answered so far."""

    def __init__(self, case: Case, job: Job) -> None:
        self.case, self.job = case, job
        self.quiz = Quiz(case.net, case.prompts, case.most, case.ends)
        self.model, self.theirs = our_model(case.net, job.device), plain_model(case.net, job.device)
        self.quiz.prepare(self.model, ours=True)
        self.quiz.prepare(self.theirs.eval(), ours=False)
        self.asked = self.quiz.near_mean(case.measured)
        self.seconds: list[float] = []
        self.scaled: list[float] = []
        self.same: list[bool] = []

    def figure(self) -> Figure:
        self._answers(self.asked[:1])  # what is loaded or compiled at the first call
        effort, found = self.job.effort, self._ask_us()
        for turn in range(max(effort.repeats, len(self.asked))):
            if turn < len(self.asked):
                self._ask_reference(self.asked[turn], found)
            if len(self.seconds) < effort.repeats and sum(self.seconds) < effort.patience:
                self._ask_us()
        return Figure(
            "answers",
            str(self.case),
            "s",
            self.seconds,
            reference=self.scaled,
            targets={"reference": self.case.times} if self.case.times else {},
            same=all(self.same),
            also=self._also(),
        )

    def _ask_us(self) -> dict[int, list[int]]:
        took, found = timed(self._answers, self.job.device)
        self.seconds.append(took)
        self.same.append([len(found[index]) for index in range(len(found))] == self.quiz.written)
        return found

    def _answers(self, asked: list[int] | None = None) -> dict[int, list[int]]:
        with torch.autocast(self.job.device.type, torch.bfloat16, enabled=self.case.bf16):
            return self.quiz.answers(self.model, self.case.batch, asked)

    def _ask_reference(self, index: int, found: dict[int, list[int]]) -> None:
        took, text = timed(partial(self.quiz.reference, self.theirs, index), self.job.device)
        self.scaled.append(took / self.quiz.share(index))
        if not self.case.bf16:
            self.same.append(text == found[index])

    def _also(self) -> dict[str, Any]:
        lengths = [len(prompt.input_ids) for prompt in self.quiz.prompts]
        return {
            "examples/s": self.case.prompts / median(self.seconds),
            "batch": self.case.batch,
            "tokens of a prompt": fmean(lengths),
            "tokens of an answer": fmean(self.quiz.written),
            "prompts asked of the reference": len(self.scaled),
        }
