"""Is the latent used? One checkpoint, asked with its thoughts dropped, replaced, moved, interchanged.

What others published as experiments of their own (arXiv 2512.21711, 2602.08783, 2604.06374, 2607.20952,
2608.27265) is asked here of the same examples, each against the clean run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coconut_lm.errors import UserError, require_known
from coconut_lm.study import Study
from coconut_lm.tally import rate, swaps
from coconut_lm.treatments import ASKED, CLEAN, Treatment, Treatments
from coconut_lm.trials import Found, Trial, Watch, verdicts
from coconut_lm.verdict import Voices, answers, compared, verdict

GROUPS = ("dropped", "number", "replaced", "moved", "interchanged", "asked")


@dataclass(frozen=True)
class Choice:
    """Names of treatments or of their groups, or nothing for all; another seed draws and pairs otherwise."""

    only: tuple[str, ...] = ()
    seed: int = 0

    @property
    def asked(self) -> dict[str, Any]:
        """What tells it from others, as a study's."""
        return {"seed": self.seed, "only": list(self.only) or None}

    def of(self, possible: Sequence[Treatment]) -> list[Treatment]:
        known = dict.fromkeys([*GROUPS, *(each.name for each in possible)])
        for name in self.only:
            require_known("treatment", name, known)
        return [each for each in possible if not self.only or {each.name, each.group} & {*self.only}]


class Battery:
    """All that is chosen, asked of a study's examples."""

    def __init__(self, study: Study, choice: Choice = Choice()) -> None:
        self.study = study
        study.needs_thoughts("ask about")
        treatments = Treatments(study.examiner, choice.seed)
        possible = sorted(treatments, key=lambda each: GROUPS.index(each.group))
        self.chosen, self.left_out = choice.of(possible), treatments.left_out
        if not self.chosen:
            raise UserError(
                "nothing of this can be done here",
                given=", ".join(choice.only),
                expected="; ".join(self.left_out) or None,
            )
        # Whose answers those with donors are compared with.
        needed = {name for each in self.chosen if each.donors for name in (each.donors.answered, "mean")}
        self.treatments = [each for each in possible if each in self.chosen or each.name in needed]

    def __call__(self, watch: Watch = lambda found, total: found) -> dict[str, Any]:
        """Asks all, and writes what it comes to."""
        trials = [Trial(CLEAN, self.study.answers()), *map(self._trial, self.treatments)]
        summary = self.summary(self.study.carry_out(trials, watch))
        self.study.write(summary)
        return summary

    def _trial(self, each: Treatment) -> Trial:
        how = {} if each.read is None else {"read": each.read}
        return Trial(each.name, self.study.answers(**how), {"group": each.group}, **each.asked)

    def summary(self, found: Mapping[str, Sequence[Found]]) -> dict[str, Any]:
        """battery.json."""
        head, before = self.study.head(found), verdicts(found[CLEAN])
        clean, rows = rate(before.values()), [self._row(each, found) for each in self.chosen]
        twins = verdicts(found.get(ASKED, ()))
        pairs = [(before[i], twins[i]) for i in sorted(before.keys() & twins.keys())]
        body = {"clean": clean, "rows": rows, "swaps": swaps(pairs), "left_out": self.left_out}
        return head | body | {"verdict": verdict(rows, clean, head["floors"])}

    def _row(self, each: Treatment, found: Mapping[str, Sequence[Found]]) -> dict[str, Any]:
        """Of those that have a donor, where donors are what it is about."""
        rows, donors = found[each.name], each.donors
        about = {"name": each.name, "group": each.group, "title": each.title}
        if donors is None:
            return about | compared(rows, found[CLEAN])
        rows = [row for row in rows if donors.of[row["index"]] is not None]
        own, theirs = answers(found[CLEAN]), answers(found.get(donors.answered, ()))
        theirs = {i: theirs[donor] for i, donor in enumerate(donors.of) if donor in theirs}
        if each.keeps_thoughts:
            return about | compared(rows, found[CLEAN], Voices(own, theirs))
        return about | compared(rows, found[CLEAN], Voices(theirs, own), found.get("mean", ()))
