"""Runs in tables: how each came out, beside the paper and the shortcuts; pair by pair; what sets them apart.

A table is text throughout, for a page, Markdown and CSV alike.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from coconut_lm.history import Evaluation, History, dig, number
from coconut_lm.paper import FIGURES, NAMES
from coconut_lm.statistics import Pairs, mcnemar, paired_difference

NONE = "–"


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def markdown(self) -> str:
        """GitHub's tables: a cell is one line, and its bars are no borders."""
        marks = ["---"] + ["---:"] * (len(self.head) - 1)
        lines = [self.head, marks, *self.rows]
        return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines) + "\n"

    def csv(self) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.head)
        writer.writerows(self.rows)
        return file.getvalue()


def _cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())


# -- figures in words --


def figure(value: Any, form: str = ".3g") -> str:
    known = number(value)
    return NONE if known is None else format(known, form)


def percent(rate: Any) -> str:
    known = number(rate)
    return NONE if known is None else f"{100 * known:.1f} %"


def with_interval(rate: Any) -> str:
    """A rate of metrics.json, with its interval where it has one."""
    low, high = number(dig(rate, "low")), number(dig(rate, "high"))
    told = percent(dig(rate, "rate"))
    return told if low is None or high is None else f"{told} [{100 * low:.1f}, {100 * high:.1f}]"


def apart(found: Any) -> str:
    """A difference of rates in points, with its interval as far as it has one."""
    known = [number(dig(found, key)) for key in ("difference", "low", "high")]
    told = [f"{100 * each:+.1f}" for each in known if each is not None]
    return (
        f"{told[0]} [{told[1]}, {told[2]}]" if len(told) == 3 else told[0] if known[0] is not None else NONE
    )


def sureness(rate: Any) -> str:
    """How sure it is, in words."""
    low, high, n = (number(dig(rate, key)) for key in ("low", "high", "n"))
    told = [] if low is None or high is None else [f"95 % interval {100 * low:.1f} to {100 * high:.1f}"]
    return ", ".join(told + ([] if n is None else [f"n = {n:.0f}"]))


def words(name: str) -> str:
    return name.replace("_", " ")


# -- how runs came out --


@dataclass(frozen=True)
class Outcome:
    """What stands for a run: its chief evaluation, or else its last validation in training."""

    run: str
    method: str
    where: str
    accuracy: Mapping[str, Any]
    tokens: float | None
    thoughts: Any = None


def outcome(run: History) -> Outcome | None:
    if run.chief:
        chief = run.chief
        tokens = number(chief.get("tokens", "mean"))
        rate = chief.get("accuracy")
        return Outcome(run.name, run.method, chief.name, rate, tokens, chief.get("thoughts"))
    measured = [row for row in run.epochs if number(row.get("val_accuracy")) is not None]
    if not measured:
        return _clean(run)
    last = measured[-1]
    rate = {"rate": last["val_accuracy"], "n": last.get("val_n")}
    rate |= {"low": last.get("val_low"), "high": last.get("val_high")}
    where = f"validation after epoch {last['epoch'] + 1}"
    return Outcome(run.name, run.method, where, rate, number(last.get("val_tokens")))


def _clean(run: History) -> Outcome | None:
    """By a study's clean answers."""
    for study in run.studies:
        for rate in (study.get("baselines", "clean"), study.get("clean")):
            if number(dig(rate, "rate")) is not None:
                where = f"{study.name} ({study.kind})"
                return Outcome(run.name, run.method, where, rate, None, study.get("thoughts"))
    return None


def results(runs: Sequence[History]) -> Table:
    """A row a run."""
    head = [
        "run",
        "accuracy [95 %]",
        "n",
        "tokens",
        "thoughts",
        "passes",
        "s / answer",
        "method",
        "measured on",
    ]
    rows = []
    for run in runs:
        found, chief = outcome(run), run.chief
        if found is None:
            rows.append([run.name, *[NONE] * 6, run.method, "nothing yet"])
            continue
        line = [run.name, with_interval(found.accuracy), figure(found.accuracy.get("n"), ".0f")]
        line += [figure(found.tokens, ".1f"), figure(found.thoughts)]
        line += [figure(chief.get("passes", "mean") if chief else None, ".1f")]
        line += [figure(chief.get("seconds", "per_example") if chief else None)]
        rows.append([*line, run.method, found.where])
    return Table(head, rows)


def beside_paper(runs: Sequence[History]) -> dict[str, Table]:
    """By task, the paper's methods with the runs that use them. It trains GPT-2 on: a model of a run's own,
    which starts from a config JSON, does not stand beside it."""
    whole = [run for run in runs if run.config or run.chief]  # a study alone does not say of which model
    pretrained = [run for run in whole if not str(run.config.get("model_id")).endswith(".json")]
    tables = {}
    for task, figures in FIGURES.items():
        ours = [(run, outcome(run)) for run in pretrained if run.task == task]
        if not ours:
            continue
        rows = []
        for method, paper in figures.items():
            spread = "" if paper.spread is None else f" ± {paper.spread:.1f}"
            published = [f"{paper.accuracy:.1f}{spread} %", f"{paper.tokens:.1f}"]
            same = [found for run, found in ours if run.method == method and found]
            lines = [[with_interval(each.accuracy), figure(each.tokens, ".1f"), each.run] for each in same]
            rows += [[NAMES[method], *published, *line] for line in lines or [[NONE] * 3]]
        head = ["method", "paper: accuracy ± sd", "tokens", "ours [95 %]", "tokens", "run"]
        tables[task] = Table(head, rows)
    return tables


def floors_of(run: History) -> dict[str, float]:
    """The accuracy of every rule that skips the reasoning, on what the run is measured on."""
    found = (run.chief.get("floors") if run.chief else None) or {}
    return {rule: rate["rate"] for rule, rate in found.items() if number(dig(rate, "rate")) is not None}


def floors(runs: Sequence[History]) -> tuple[Table, list[str]]:
    """These rules, and for each run on which side of the best of them it is."""
    rows: dict[tuple[str, ...], None] = {}
    notes = []
    for run in runs:
        rates = floors_of(run)
        if not rates or not run.chief:
            continue
        rows |= {(words(rule), with_interval(run.chief.get("floors", rule))): None for rule in rates}
        best = max(rates, key=lambda rule: rates[rule])
        side = _side(run.chief.get("accuracy"), rates[best])
        notes.append(f"{run.name}: {side} the {percent(rates[best])} of the best rule, {words(best)!r}.")
    return Table(["rule", "accuracy [95 %]"], list(rows)), notes


def _side(rate: Mapping[str, Any], floor: float) -> str:
    low, high = number(dig(rate, "low")), number(dig(rate, "high"))
    told = f"{with_interval(rate)}, its interval"
    if low is not None and low > floor:
        return f"{told} lies above"
    return f"{told} lies below" if high is not None and high < floor else f"{told} holds"


def swaps(runs: Sequence[History]) -> Table:
    """Who is asked about is exchanged for the other entity, which turns the answer over."""
    rows = []
    for run in runs:
        found = run.chief.get("swaps") if run.chief else None
        if found:
            both = [with_interval(found.get("accuracy")), with_interval(found.get("consistency"))]
            rows.append([run.name, figure(found.get("n"), ".0f"), *both])
    return Table(["run", "n", "accuracy after the swap", "right before and after"], rows)


def groups(runs: Sequence[History]) -> Table:
    rows = []
    for run in runs:
        for kind, values in ((run.chief.get("groups") if run.chief else None) or {}).items():
            for name, rate in values.items():
                of = f"{words(kind)}: {name}"
                rows.append([run.name, of, figure(dig(rate, "n"), ".0f"), with_interval(rate)])
    return Table(["run", "group", "n", "accuracy [95 %]"], rows)


# -- pair by pair --


def keys(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """What tells which question a prediction answers; a repeated one has its number too."""
    seen: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        key = tuple(str(row.get(name)) for name in ("id", "question", "gold"))
        yield *key, seen[key]
        seen[key] += 1


def verdicts(run: History) -> dict[tuple[Any, ...], bool]:
    """Was each question answered right."""
    rows = run.predictions
    return {key: bool(row.get("correct")) for key, row in zip(keys(rows), rows, strict=True)}


def pairs_of(a: Mapping[Any, bool], b: Mapping[Any, bool]) -> Pairs:
    """The verdicts of A and B on the questions that both answered."""
    shared = [key for key in a if key in b]
    return Pairs.of([a[key] for key in shared], [b[key] for key in shared])


def paired(runs: Sequence[History]) -> Table:
    """Every two runs, on the questions that both answered."""
    head = ["A", "B", "n", "both right", "only A", "only B", "both wrong", "B – A [95 %]", "McNemar p"]
    rows = []
    judged = [(run.name, verdicts(run)) for run in runs]
    for (first, a), (second, b) in combinations(judged, 2):
        pairs = pairs_of(a, b)
        if not pairs.n:
            continue
        low, high = paired_difference(pairs)
        gap = f"{100 * pairs.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        counts = [pairs.n, pairs.both, pairs.only_a, pairs.only_b, pairs.neither]
        p = mcnemar(pairs.only_a, pairs.only_b)
        rows.append([first, second, *map(str, counts), gap, f"{p:.2g}"])
    return Table(head, rows)


# -- configurations --


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Keys and sections in one: lora.r."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{above}{key}.")
        else:
            found[above + str(key)] = "" if value is None else str(value)
    return found


def configurations(runs: Sequence[History]) -> tuple[Table, Table]:
    """The keys that differ between runs, and all of them."""
    flattened = [flat(run.config) for run in runs]
    keys = sorted({key for each in flattened for key in each})
    rows = [[key, *(each.get(key, NONE) for each in flattened)] for key in keys]
    differ = [row for row in rows if len(set(row[1:])) > 1 and row[0] not in ("name", "save_path")]
    head = ["key", *(run.name for run in runs)]
    return Table(head, differ), Table(head, rows)


def environments(runs: Sequence[History]) -> Table:
    """What the runs were made with."""
    flattened = [flat(run.environment) for run in runs]
    names = {name: None for each in flattened for name in each}
    rows = [[name, *(each.get(name, NONE) for each in flattened)] for name in names]
    return Table(["", *(run.name for run in runs)], rows)


def evaluations(runs: Sequence[History]) -> Table:
    """All of them, in short."""
    rows = []
    for run in runs:
        for each in run.evaluations:
            line = [run.name, each.name, figure(each.get("stage")), figure(each.get("thoughts"))]
            line += [figure(each.get("n"), ".0f"), with_interval(each.get("accuracy"))]
            rows.append(
                [*line, percent(each.get("cot_match", "rate")), figure(each.get("tokens", "mean"), ".1f")]
            )
    head = ["run", "evaluation", "stage", "thoughts", "n", "accuracy [95 %]", "steps as written", "tokens"]
    return Table(head, rows)


def everything(runs: Sequence[History]) -> Table:
    """A row an evaluation, for other programs: figures as they are."""
    head = ["run", "method", "task", "evaluation", "checkpoint", "data", "stage", "thoughts", "n", "right"]
    head += ["accuracy", "low", "high", "cot_match", "tokens", "passes", "flops", "seconds_per_example"]
    head += ["epochs", "train_loss", "val_loss"]
    rows = []
    for run in runs:
        last: Mapping[str, Any] = run.epochs[-1] if run.epochs else {}
        ends = [len(run.epochs), last.get("train_loss"), last.get("val_loss")]
        for each in run.evaluations or [Evaluation("", {})]:
            line: list[Any] = [run.name, run.method, run.task, each.name]
            line += [each.get(key) for key in ("checkpoint", "data", "stage", "thoughts", "n")]
            line += [each.get("accuracy", key) for key in ("right", "rate", "low", "high")]
            line += [each.get("cot_match", "rate"), each.get("tokens", "mean"), each.get("passes", "mean")]
            line += [each.get("flops", "mean"), each.get("seconds", "per_example"), *ends]
            rows.append(["" if value is None else str(value) for value in line])
    return Table(head, rows)
