"""How much noise on its thoughts does a checkpoint bear? Kinds of noise at many scales, beside clean runs.

The clean runs are made once. Scale 0 is the clean run. Which noise an example meets hangs on the seed, the
example, the scale and the thought alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from coconut_lm import fits, noise, publishedsweep
from coconut_lm.answer import Read, read
from coconut_lm.errors import UserError, require_known
from coconut_lm.interventions import noisy
from coconut_lm.onepass import LAST
from coconut_lm.study import Study
from coconut_lm.tally import difference, rate
from coconut_lm.trials import Found, Trial, Watch, succeeded, verdicts

CLEAN, WITHOUT = "clean", "without thoughts"
ABSOLUTE = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
RELATIVE = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Those that the guide of the noise kinds recommends, and our own for dropout, which it does not name.
RECOMMENDED: dict[str, tuple[float, ...]] = {
    "gaussian": ABSOLUTE,
    "gaussian_scaled": RELATIVE,
    "snr": (100.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.01),
    "uniform": ABSOLUTE,
    "orthogonal": RELATIVE,
    "targeted_same": RELATIVE,
    "targeted_opposite": (0.0, 0.1, 0.2, 0.5, 0.9, 1.0),
    "dropout": (0.0, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0),
}


@dataclass(frozen=True)
class Sweep:
    """What is asked for; `where` is "all", "first", or the number of a thought, from 1 on."""

    curves: Mapping[str, Sequence[float]]  # scales of each kind
    where: str | int = "all"
    layer: int = LAST
    schedule: str = "constant"
    decay: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not any(self.curves.values()):
            raise UserError("no noise to try", expected="at least one kind with one scale")
        for kind, scales in self.curves.items():
            require_known("noise type", kind, noise.KINDS)
            noise.check_scales(kind, scales)
        require_known("noise schedule", self.schedule, noise.SCHEDULES)

    @property
    def asked(self) -> dict[str, Any]:
        """What tells it from another sweep."""
        return {**vars(self), "curves": {kind: list(scales) for kind, scales in self.curves.items()}}

    @property
    def clean(self) -> Read:
        """Reads without noise: thoughts of the same layer."""
        return read if self.layer == LAST else partial(read, thought_layer=self.layer)

    def read(self, kind: str, scale: float) -> Read:
        """Reads with this noise."""
        where = self.where - 1 if isinstance(self.where, int) else self.where
        return noisy(
            kind,
            scale,
            where=where,
            layer=self.layer,
            schedule=self.schedule,
            decay=self.decay,
            seed=self.seed,
        )


def _trial(kind: str, scale: float) -> str:
    """Its name. Without noise it is the clean run."""
    return noise.label(kind, scale) if scale > 0 else CLEAN


class Robustness:
    """A sweep over a study's examples."""

    def __init__(self, study: Study, sweep: Sweep) -> None:
        self.study, self.sweep = study, sweep
        self._check()

    def _check(self) -> None:
        """What can be known before the first answer."""
        most, where = self.study.needs_thoughts("put noise on"), self.sweep.where
        if isinstance(where, int) and not 1 <= where <= most:
            raise UserError("no such thought", given=f"--where {where}", expected=f"1 to {most}, first, all")
        self.study.needs_layer(self.sweep.layer)

    def trials(self) -> list[Trial]:
        """The clean runs, then each kind of noise at each scale."""
        study = self.study
        clean = Trial(CLEAN, study.answers(read=self.sweep.clean), {"noise_type": None, "noise_scale": 0.0})
        bare = Trial(WITHOUT, study.answers(), clean.tags, thoughts=0)
        return [clean, bare] + [
            Trial(
                _trial(kind, scale),
                study.answers(read=self.sweep.read(kind, scale)),
                {"noise_type": kind, "noise_scale": scale},
            )
            for kind, scales in self.sweep.curves.items()
            for scale in scales
            if scale > 0
        ]

    def __call__(self, watch: Watch = lambda found, total: found) -> dict[str, Any]:
        """Asks all, and writes what it comes to."""
        found = self.study.carry_out(self.trials(), watch)
        summary = self.summary(found)
        by_curve: dict[Any, Sequence[Found]] = {CLEAN: found[CLEAN], WITHOUT: found[WITHOUT]}
        for kind, scales in self.sweep.curves.items():
            by_curve |= {(kind, scale): found[_trial(kind, scale)] for scale in scales}
        device = str(self.study.examiner.answerer.model.device)
        publishedsweep.write(self.study.folder, summary, by_curve, device)
        self.study.write(summary)
        return summary

    def summary(self, found: Mapping[str, Sequence[Found]]) -> dict[str, Any]:
        """robustness.json."""
        baselines = {name: rate(verdicts(found[name]).values()) for name in (CLEAN, WITHOUT)}
        curves = [self._curve(kind, scales, found) for kind, scales in self.sweep.curves.items()]
        return self.study.head(found) | {"baselines": baselines, "curves": curves}

    def _curve(
        self, kind: str, scales: Sequence[float], found: Mapping[str, Sequence[Found]]
    ) -> dict[str, Any]:
        """Its points, and the curves through them; every curve begins at the clean run."""
        points = [point(scale, found[_trial(kind, scale)], found[CLEAN]) for scale in scales]
        clean = {"scale": 0.0, "accuracy": rate(verdicts(found[CLEAN]).values())}
        known = [each for each in (clean, *points) if each["accuracy"]["n"]]
        by_amount = {amount(kind, each["scale"]): each for each in known}
        xs = sorted(by_amount)
        ys, ns = ([by_amount[x]["accuracy"][key] for x in xs] for key in ("rate", "n"))
        below = fits.first_below([by_amount[x]["scale"] for x in xs], ys)
        fitted = [each.to_json() for each in fits.fit(xs, ys, ns)]
        return {"noise": kind, "points": points, "fits": fitted, "first_below_half": below}


def amount(kind: str, scale: float) -> float:
    """How much noise that is: of snr, the noise beside the signal. Curves are fitted to amounts."""
    return 1 / scale if kind == "snr" and scale else scale


def point(scale: float, rows: Sequence[Found], clean: Sequence[Found]) -> dict[str, Any]:
    """One scale, beside the clean run on the same examples."""
    before = {row["index"]: row["extracted"] for row in succeeded(clean)}
    both = [row for row in succeeded(rows) if row["index"] in before]
    return {
        "scale": scale,
        "accuracy": rate(verdicts(rows).values()),
        "difference": difference(verdicts(clean), verdicts(rows)),
        "changed": rate(row["extracted"] != before[row["index"]] for row in both),
        "failed": len(rows) - len(succeeded(rows)),
        "diagnostics": _mean([row["diagnostics"] for row in both if row.get("diagnostics")]),
    }


def _mean(told: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Figures averaged over examples; words are the same in all."""
    if not told:
        return None
    return {
        key: fmean(each[key] for each in told) if isinstance(value, float) else value
        for key, value in told[0].items()
    }
