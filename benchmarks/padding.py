"""What mixed lengths cost: an epoch over rows as long as GSM8K's validation problems, on the trainer's own
way from examples to batches, against as many real tokens in rows that are all of the mean length.

The plain side here is that other epoch, by us: its seconds are scaled to the same number of real tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import recorded
from clock import interleaved
from figure import Figure, Job
from sides import learner
from workload import MICRO, SMALL, TINY, Net, our_model

from coconut_lm.collate import Order
from coconut_lm.feed import Place, Share, Steps
from coconut_lm.methods import Curriculum, Rows

STAGE = 2
CURRICULUM = Curriculum(c_thought=2, max_latent_stage=3)
MOST = 1.05


@dataclass(frozen=True)
class Case:
    """Every `every`-th batch of the epoch, from the shortest to the longest."""

    net: Net
    rows: int = 32
    every: int = 1
    grouped: bool = True

    def __str__(self) -> str:
        order = "like lengths together" if self.grouped else "lengths as they come"
        return f"{self.net.name}, batches of {self.rows}, {order}"


CASES = [Case(TINY), Case(TINY, grouped=False), Case(SMALL, every=4)]
QUICK = [Case(MICRO, rows=8, every=16)]


def measure(job: Job) -> Iterator[Figure]:
    for case in QUICK if job.quick else CASES:
        job.say(f"padding: {case}")
        yield _measure(case, job)


def _measure(case: Case, job: Job) -> Figure:
    mixed = _rows(recorded.gsm8k(), case.net)
    even = _rows(_even(mixed), case.net)
    epochs = [_Epoch(mixed, case), _Epoch(even, case)]
    learn = learner(our_model(case.net, job.device))
    sides = {name: _trains(learn, e) for name, e in zip(("ours", "plain"), epochs, strict=True)}
    seconds = interleaved(sides, job.effort, job.device)
    scale = epochs[0].tokens / epochs[1].tokens
    return Figure(
        "padding",
        str(case),
        "s",
        ours=seconds["ours"],
        plain=[each * scale for each in seconds["plain"]],
        targets={"plain": MOST} if case.grouped else {},
        also={"padding": epochs[0].padding, "real tokens": epochs[0].tokens, "steps": len(epochs[0].chosen)},
    )


def _rows(lengths: recorded.Lengths, net: Net) -> Rows:
    examples = recorded.made(lengths, net.tokens.eos)
    return Rows(examples, net.tokens, "coconut", CURRICULUM)


def _even(rows: Rows) -> list[list[int]]:
    """As many examples whose rows at this stage have the mean lengths of those given."""
    made = [rows.row(index, STAGE) for index in range(len(rows))]
    learned = round(fmean(len(row.input_ids) - row.supervised_from for row in made))
    question = round(fmean(row.first - 1 for row in made))
    return [[question, *[1] * STAGE, learned]] * len(made)


class _Epoch:
    """Its steps as the trainer makes them, and what they hold."""

    def __init__(self, rows: Rows, case: Case) -> None:
        lengths = rows.examples.lengths() if case.grouped else None
        self.made = Steps(rows, Order(len(rows), case.rows, lengths=lengths), STAGE, Place())
        shares = [self.made[step] for step in range(len(self.made))]
        whole = [step for step, share in enumerate(shares) if len(share.batches[0].index) == case.rows]
        self.chosen = sorted(whole, key=lambda step: shares[step].tokens)[:: case.every]
        self.tokens = sum(shares[step].tokens for step in self.chosen)
        masks = [batch.attention_mask for step in self.chosen for batch in shares[step].batches]
        self.padding = 1 - self.tokens / sum(np.size(mask) for mask in masks)

    def __iter__(self) -> Iterator[Share]:
        return (self.made[step] for step in self.chosen)


def _trains(learn: Callable[[Share], None], epoch: _Epoch) -> Callable[[], None]:
    def steps() -> None:
        for share in epoch:
            learn(share)

    return steps
