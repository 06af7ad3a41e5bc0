"""Many branches over one question, each with noise of its own on the thoughts, and what votes are worth.

After NoisyCoconut (arXiv 2605.08221). Beside the noise stand controls with the same sampling: the same
thoughts without noise; markers with no thoughts between them; the plain question, which is self-consistency.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coconut_lm import noise
from coconut_lm.answer import Read
from coconut_lm.errors import UserError, require_known
from coconut_lm.interventions import branched, noisy, sampled
from coconut_lm.methods import Rows
from coconut_lm.onepass import LAST
from coconut_lm.polls import Count, Poll, answers, polls, summarised, voted, within
from coconut_lm.robustness import CLEAN, WITHOUT
from coconut_lm.runfolder import write_lines
from coconut_lm.study import Study
from coconut_lm.tally import difference, rate
from coconut_lm.trials import Found, Trial, Watch, verdicts

NO_NOISE, NO_THOUGHTS, NO_MARKERS = "no noise", "no thoughts", "no markers"
ANSWERS = "answers.jsonl"
ALONE = "none"  # the schedule: noise on the thought where branches part, and on none after it


@dataclass(frozen=True)
class Branching:
    """What is asked for. Branches part at thought number `step`, from 1 on; a schedule counts from there."""

    branches: int = 5
    noise: str = "gaussian_scaled"
    scales: Sequence[float] = (0.2,)
    step: int = 1
    schedule: str = "constant"
    decay: float = 0.5
    layer: int = LAST
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    controls: bool = True

    def __post_init__(self) -> None:
        within("number of branches", self.branches, 1, math.inf, "1 or more")
        within("step", self.step, 1, math.inf, "1 or more: the first thought with noise")
        within("temperature", self.temperature, 0, math.inf, "0 (greedy) or more")
        within("top-p", self.top_p, math.ulp(0), 1, "more than 0, at most 1")
        require_known("noise type", self.noise, noise.KINDS)
        require_known("noise schedule", self.schedule, noise.SCHEDULES)
        noise.check_scales(self.noise, self.scales)
        if not (self.scales or self.controls):
            raise UserError("nothing to branch over", given="no scales, no controls")

    @property
    def asked(self) -> dict[str, Any]:
        """What tells it from another, as the summary has it."""
        told = {"type": self.noise, "step": self.step, "where": self._where, "schedule": self.schedule}
        return {
            "noise": told | {"decay": self.decay, "layer": self.layer},
            "scales": list(self.scales),
            **{key: getattr(self, key) for key in ("temperature", "top_p", "branches", "seed", "controls")},
        }

    @property
    def _where(self) -> str:
        return "first" if self.schedule == ALONE else "all"

    def read(self, scale: float | None) -> Read:
        """Reads in branches, with noise of this scale or without any."""
        if scale is None:
            return branched(self.branches, self.layer)
        return noisy(
            self.noise,
            scale,
            layer=self.layer,
            branches=self.branches,
            where=self._where,
            start=self.step - 1,
            schedule="constant" if self.schedule == ALONE else self.schedule,
            decay=self.decay,
            seed=self.seed,
        )


class Branches:
    """A branching over a study's examples."""

    def __init__(self, study: Study, branching: Branching) -> None:
        self.study, self.branching = study, branching
        self._check()

    def _check(self) -> None:
        """What can be known before the first answer."""
        most, step = self.study.needs_thoughts("branch at"), self.branching.step
        if step > most:
            raise UserError("no such thought to branch at", given=f"--step {step}", expected=f"1 to {most}")
        self.study.needs_layer(self.branching.layer)

    # -- what is asked --

    @property
    def arms(self) -> dict[str, float | None]:
        """Their names and scales; the controls have none."""
        asked = self.branching
        with_noise: dict[str, float | None] = {
            noise.label(asked.noise, scale): scale for scale in asked.scales
        }
        return with_noise | dict.fromkeys((NO_NOISE, NO_THOUGHTS, NO_MARKERS) if asked.controls else ())

    def trials(self) -> list[Trial]:
        """The greedy baselines, then each arm."""
        clean = Trial(CLEAN, self.study.answers())
        return [
            clean,
            Trial(WITHOUT, clean.generate, thoughts=0),
            *(self._trial(name, scale) for name, scale in self.arms.items()),
        ]

    def _trial(self, name: str, scale: float | None) -> Trial:
        asked, prompts = self.branching, self.study.questions.prompts
        generate = self.study.answers(
            read=asked.read(scale),
            picks=sampled(asked.temperature, asked.top_p, asked.seed),
            branches=asked.branches,
            scored=True,
        )
        plain = Rows(prompts.examples, prompts.tokens, "no_cot", prompts.curriculum)
        bare: dict[str, Any] = {"thoughts": 0} if name in (NO_THOUGHTS, NO_MARKERS) else {}
        bare |= {"prompts": plain} if name == NO_MARKERS else {}
        tags = {"noise_type": None if scale is None else asked.noise, "noise_scale": scale}
        return Trial(name, generate, tags, branches=asked.branches, **bare)

    # -- what it comes to --

    def __call__(
        self, count: Count | None = None, watch: Watch = lambda found, total: found
    ) -> dict[str, Any]:
        """Asks all, and writes what it comes to."""
        found = self.study.carry_out(self.trials(), watch)
        count = count or Count()
        summary = self.summary(found, count)
        told = [row for name in self.arms for row in answers(name, polls(found[name]), count)]
        write_lines(self.study.folder / ANSWERS, told)
        self.study.write(summary)
        return summary

    def summary(self, found: Mapping[str, Sequence[Found]], count: Count) -> dict[str, Any]:
        """branches.json."""
        clean, without = (verdicts(found[name]) for name in (CLEAN, WITHOUT))
        baselines = {CLEAN: rate(clean.values()), WITHOUT: rate(without.values())}
        firsts = [k for k in count.firsts if k <= self.branching.branches] or odd(self.branching.branches)
        polled = {name: polls(found[name]) for name in self.arms}
        noiseless = voted(polled.get(NO_NOISE, ()), "majority")
        arms = [
            {"name": name, "scale": scale, "control": scale is None}
            | summarised(polled[name], clean, count, firsts)
            | {"against_no_noise": self._against(noiseless, name, polled[name])}
            for name, scale in self.arms.items()
        ]
        return self.study.head(found) | {"vote": count.vote, "baselines": baselines, "arms": arms}

    def _against(
        self, noiseless: Mapping[int, bool], name: str, asked: Sequence[Poll]
    ) -> dict[str, Any] | None:
        known = self.branching.controls and name != NO_NOISE
        return difference(noiseless, voted(asked, "majority")) if known else None


def odd(branches: int) -> list[int]:
    """1, 3, 5 and so on, and all of them: a majority of an odd number has fewer ties."""
    return sorted({*range(1, branches + 1, 2), branches})
