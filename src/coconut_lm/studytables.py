"""Studies in tables: noise on thoughts, branches over them, and whether an answer needs them at all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coconut_lm.history import History, Study, dig, mappings, number
from coconut_lm.summary import NONE, Table, apart, figure, percent, with_interval, words

VOTES = ("majority", "noise_weighted", "confidence_weighted", "probability_mass")
GROUPS = {
    "dropped": "dropped",
    "number": "another number",
    "replaced": "replaced",
    "moved": "moved",
    "interchanged": "interchanged",
    "asked": "another one asked about",
}
USED = {"yes": "The latent is used.", "no": "The latent is not used.", "unclear": "It is unclear."}
SETTINGS = (
    *("where", "layer", "schedule", "decay", "noise", "temperature", "top_p", "branches"),
    *("checkpoint", "data", "thoughts", "n", "seed"),
)


@dataclass(frozen=True)
class Named:
    """A study, what tells it from the others of its kind, and the number of its colour."""

    name: str
    number: int
    study: Study


def named(runs: Sequence[History], kind: str) -> list[Named]:
    """All studies of a kind. A name says which run, where there are several, and what was asked of the study
    that was not of the run's others."""
    found = []
    for place, run in enumerate(runs):
        studies = [each for each in run.studies if each.kind == kind]
        of = [run.name] if len(runs) > 1 else []
        own = [[each] for each in _told_apart(studies)] if len(studies) > 1 else [[] for _ in studies]
        found += [Named(": ".join(of + told), place, each) for told, each in zip(own, studies, strict=True)]
    alone = len({it.number for it in found}) == len(found)
    return found if alone else [replace(it, number=place) for place, it in enumerate(found)]


def untold(found: Sequence[Named]) -> Sequence[Named]:
    """The only one needs no name."""
    return found if len(found) > 1 else [replace(it, name="") for it in found]


def _told_apart(studies: Sequence[Study]) -> list[str]:
    """By the settings in which they differ, or else by their folders' names."""
    values = {key: [_setting(study.get(key)) for study in studies] for key in SETTINGS}
    differ = {key: each for key, each in values.items() if len(set(each)) > 1}
    names = [", ".join(f"{words(key)} {differ[key][i]}" for key in differ) for i in range(len(studies))]
    return names if len(set(names)) == len(names) else [study.name for study in studies]


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(_setting(each) for each in value.values())
    return Path(value).name if isinstance(value, str) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Without its first column, which says whose a row is, where all are the same one's."""
    rows = list(rows)
    first = 0 if len({row[0] for row in rows}) > 1 else 1
    return Table(head[first:], [row[first:] for row in rows])


def about(it: Named) -> str:
    """What was looked at, in a sentence."""
    get = it.study.get
    where = [Path(str(get(key))).name if get(key) else "?" for key in ("checkpoint", "data")]
    told = [f"{where[0]} on {where[1]}"]
    told += [f"{get('n')} examples"] if get("n") is not None else []
    told += [f"{get('thoughts')} thoughts"] if get("thoughts") is not None else []
    told += _told_noise(get("where"), get("schedule")) if it.study.kind == "robustness" else []
    told += [f"{get('branches')} branches"] if get("branches") is not None else []
    told += [f"temperature {get('temperature')}"] if get("temperature") is not None else []
    told += [f"seed {get('seed')}"] if get("seed") is not None else []
    failed = number(get("failed", "n"))
    told += [f"{failed:.0f} of {figure(get('failed', 'of'), '.0f')} trials failed"] if failed else []
    return (f"{it.name}: " if it.name else "") + ", ".join(told) + "."


def _told_noise(where: Any, schedule: Any) -> list[str]:
    which = {"all": "all thoughts", "first": "the first thought"}.get(str(where), f"thought {where}")
    return [f"noise on {which}"] + ([f"schedule {schedule}"] if schedule is not None else [])


def _p(found: Any) -> str:
    return figure(dig(found, "p"), ".2g")


# -- noise --


def robustness(found: Sequence[Named]) -> Table:
    """Every kind of noise at every scale."""
    head = [
        "run",
        "noise",
        "scale",
        "accuracy [95 %]",
        "difference to clean [95 %]",
        "p",
        "answers changed",
        "failed",
    ]
    return _table(head, (row for it in found for row in _points(it)))


def _points(it: Named) -> Iterator[list[str]]:
    for name in ("clean", "without thoughts"):
        if (rate := it.study.get("baselines", name)) is not None:
            yield [it.name, name, NONE, with_interval(rate), *[NONE] * 4]
    for curve in it.study.all("curves"):
        for point in mappings(curve.get("points")):
            line = [it.name, words(str(curve.get("noise"))), figure(point.get("scale"), "g")]
            line += [with_interval(point.get("accuracy")), apart(point.get("difference"))]
            line += [_p(point.get("difference")), percent(dig(point, "changed", "rate"))]
            yield [*line, figure(point.get("failed"), ".0f")]


def fits(found: Sequence[Named]) -> Table:
    """The curves as formulas, the best fit first; x is the scale, of a signal-to-noise ratio its inverse."""
    head = ["run", "noise", "first scale under 50 %", "fit", "accuracy at x", "parameters", "R²"]
    rows = []
    for it in found:
        for curve in it.study.all("curves"):
            first = figure(curve.get("first_below_half"), "g")
            for fit in best_first(curve):
                line = [it.name, words(str(curve.get("noise"))), first, words(str(fit.get("name")))]
                rows.append([*line, str(fit.get("formula", "")), parameters(fit), figure(fit["r2"], ".3f")])
    return _table(head, rows)


def best_first(curve: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The fits of a curve whose R² is known."""
    known = [(r2, fit) for fit in mappings(curve.get("fits")) if (r2 := number(fit.get("r2"))) is not None]
    return [fit for _, fit in sorted(known, key=lambda each: -each[0])]


def parameters(fit: Mapping[str, Any]) -> str:
    found = fit.get("parameters")
    known = found.items() if isinstance(found, Mapping) else ()
    return ", ".join(f"{key} = {figure(value)}" for key, value in known)


# -- branches --


def votes(found: Sequence[Named]) -> Table:
    """What one branch reaches, and what their votes do."""
    head = ["run", "arm", "first branch", "branches' mean", *map(words, VOTES)]
    head += ["majority – clean [95 %]", "p", "majority – no noise [95 %]"]
    rows = []
    for it in found:
        rows += [[it.name, name, with_interval(rate), *[NONE] * 8] for name, rate in _greedy(it)]
        for arm in it.study.all("arms"):
            line = [it.name, words(str(arm.get("name"))), with_interval(arm.get("single"))]
            line += [percent(arm.get("mean_single")), *(with_interval(dig(arm, "votes", v)) for v in VOTES)]
            gap = dig(arm, "difference", "majority")
            rows.append([*line, apart(gap), _p(gap), apart(arm.get("against_no_noise"))])
    return _table(head, rows)


def _greedy(it: Named) -> list[tuple[str, Any]]:
    rates = [(name, it.study.get("baselines", name)) for name in ("clean", "without thoughts")]
    return [(f"{name}, greedy", rate) for name, rate in rates if rate is not None]


def selection(found: Sequence[Named]) -> Table:
    """What it is worth to answer only where branches agree, and how far they differ."""
    head = ["run", "arm", "AURC", "asks for", "answered [95 %]", "right of these [95 %]", "no answer"]
    head += ["pass@k", "unlike answers", "unlike texts", "D_K", "D_K late", "D_K relative"]
    rows = []
    for it in found:
        for arm in it.study.all("arms"):
            line = [it.name, words(str(arm.get("name"))), figure(arm.get("aurc"), ".4f")]
            line += [percent(dig(arm, "abstention", "threshold"))]
            line += [with_interval(dig(arm, "abstention", key)) for key in ("coverage", "accuracy")]
            line += [percent(arm.get("no_answer")), _pass_at(arm)]
            line += [percent(dig(arm, "diversity", key)) for key in ("answers", "texts")]
            line += [figure(dig(arm, "diversity", key)) for key in ("d_k", "d_k_late", "d_k_relative")]
            rows.append(line)
    return _table(head, rows)


def _pass_at(arm: Mapping[str, Any]) -> str:
    """At the largest k."""
    found = counted(arm.get("pass_at"))
    return f"{percent(found[-1][1])} (k = {found[-1][0]})" if found else NONE


def counted(values: Any) -> list[tuple[int, Any]]:
    """What stands under whole numbers, in their order."""
    known = values.items() if isinstance(values, Mapping) else ()
    return sorted(((int(key), each) for key, each in known if str(key).isdecimal()), key=lambda each: each[0])


def agreement(found: Sequence[Named]) -> Table:
    """How right the majority is where so many branches agree."""
    rows = []
    for it in found:
        for arm in it.study.all("arms"):
            for level in mappings(arm.get("agreement")):
                share = f"{figure(level.get('votes'), '.0f')} of {figure(level.get('of'), '.0f')}"
                line = [it.name, words(str(arm.get("name"))), str(level.get("name")), share]
                rows.append([*line, figure(level.get("n"), ".0f"), with_interval(level)])
    return _table(["run", "arm", "agreement", "votes", "questions", "accuracy [95 %]"], rows)


# -- battery --


def battery(found: Sequence[Named]) -> Table:
    """Every intervention against the clean run, group by group."""
    head = ["run", "thoughts are", "what was done", "accuracy [95 %]", "difference to clean [95 %]", "p"]
    head += ["answers changed", "follows the thoughts (by chance)"]
    rows = []
    for it in found:
        rows += [[it.name, "as they are", "clean", with_interval(it.study.get("clean")), *[NONE] * 4]]
        for group, row in grouped(it.study):
            gap = row.get("difference")
            line = [
                it.name,
                group,
                str(row.get("title") or row.get("name")),
                with_interval(row.get("accuracy")),
            ]
            line += [apart(gap), _p(gap), percent(dig(row, "changed", "rate"))]
            rows.append([*line, _follows(row)])
    return _table(head, rows)


def _follows(row: Mapping[str, Any]) -> str:
    chance = dig(row, "follows_by_chance", "rate")
    return percent(dig(row, "follows", "rate")) + (f" ({percent(chance)})" if chance is not None else "")


def grouped(study: Study) -> list[tuple[str, Mapping[str, Any]]]:
    """Each with its group's title, in the order of the groups."""
    order = list(GROUPS)
    rows = [(str(row.get("group")), row) for row in study.all("rows")]
    rows.sort(key=lambda each: order.index(each[0]) if each[0] in order else len(order))
    return [(GROUPS.get(group, words(group)), row) for group, row in rows]


def verdicts(found: Sequence[Named]) -> list[tuple[str, str, list[str]]]:
    """Whose it is, whether the latent is used, and the sentences that say why."""
    told = []
    for it in found:
        reasons = it.study.get("verdict", "sentences")
        used = USED.get(str(it.study.get("verdict", "used")), "")
        if used:
            told.append((it.name, used, [str(each) for each in reasons] if isinstance(reasons, list) else []))
    return told


def swaps(found: Sequence[Named]) -> Table:
    """The other entity is asked about, with the thoughts that come of that."""
    rows = []
    for it in found:
        if isinstance(known := it.study.get("swaps"), Mapping):
            both = [with_interval(known.get(key)) for key in ("accuracy", "consistency")]
            rows.append([it.name, figure(known.get("n"), ".0f"), *both])
    return _table(["run", "n", "accuracy after the swap", "right before and after"], rows)
