"""What runs look like: every plot that their figures suffice for."""

from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from coconut_lm.curves import MONITORS, Runs, accuracy, gradients, loss, window
from coconut_lm.drawing import (
    GRID,
    MUTED,
    PAPER,
    Line,
    Plot,
    arms,
    canvas,
    courses,
    finish,
    measured,
    rates,
    values_of,
    whole_numbers,
)
from coconut_lm.history import Evaluation, History, number
from coconut_lm.paper import FIGURES, NAMES
from coconut_lm.studyplots import study_plots
from coconut_lm.summary import Table, outcome, percent


def plots(runs: Runs) -> list[Plot]:
    makers = (loss, accuracy, lengths, thoughts, tokens, *MONITORS, gradients, window)
    return [plot for make in makers if (plot := make(runs))] + study_plots(runs)


def lengths(runs: Runs) -> Plot | None:
    """Accuracy by the number of steps of the gold reasoning."""
    lines = []
    for place, run in enumerate(runs):
        found = run.chief.get("groups", "steps") if run.chief else None
        rates = [(int(key), rate) for key, rate in (found or {}).items() if str(key).isdigit()]
        lines += measured(run.name, place, rates)
    if len({x for line in lines for x in line.xs}) < 2:  # nothing to tell apart
        return None
    return _dots(
        "lengths",
        "Accuracy by number of steps",
        lines,
        "steps of the written reasoning",
        "Accuracy of the questions whose written reasoning has so many steps, with 95 % intervals.",
    )


def thoughts(runs: Runs) -> Plot | None:
    lines = []
    for place, run in enumerate(runs):
        found: dict[int, Evaluation] = {}
        for each in run.evaluations:
            count, chief = each.get("thoughts"), run.chief
            if isinstance(count, int) and chief and _of_what(each) == _of_what(chief):
                found[count] = each
        if len(found) > 1:
            lines += measured(run.name, place, [(n, found[n].get("accuracy")) for n in sorted(found)])
    return _dots(
        "thoughts",
        "Accuracy by number of thoughts",
        lines,
        "thoughts",
        "Accuracy of one checkpoint with so many thoughts, with 95 % intervals.",
    )


def _of_what(each: Evaluation) -> tuple[Any, ...]:
    """Which weights on which examples; by fingerprints if there are some, for a path has many names."""
    weights, data = each.get("weights"), each.get("data_sha256")
    return weights or each.get("checkpoint"), data or each.get("data"), each.get("n"), each.get("scoring")


def _dots(name: str, title: str, lines: list[Line], across: str, shows: str) -> Plot | None:
    """Rates with their intervals at whole numbers; runs stand side by side."""
    if not lines:
        return None
    figure, axes = canvas(across, "accuracy, %")
    for place, line in enumerate(lines):
        aside = 0.09 * (place - (len(lines) - 1) / 2)
        look: dict[str, Any] = {"color": line.colour, "marker": line.mark, "label": line.name}
        xs, ys = [x + aside for x in line.xs], line.scaled(100).ys
        axes.errorbar(xs, ys, yerr=arms(line), linewidth=1, elinewidth=1.6, **look)
    whole_numbers(axes, lines)
    rates(axes)
    finish(figure, axes)
    table, told = values_of(lines, across, percent), courses(lines, percent)
    return Plot(name, title, shows, figure, table, told)


def tokens(runs: Runs) -> Plot | None:
    """What an answer costs against how often it is right, the paper's methods beside ours."""
    ours = [Line(run.name, place, [point]) for place, run in enumerate(runs) if (point := _costs(run))]
    if not ours:
        return None
    figure, axes = canvas("tokens an answer, thoughts counted", "accuracy, %")
    axes.set_xscale("log")
    axes.grid(axis="x", visible=True, color=GRID)
    tasks = {run.task for run in runs}
    paper = FIGURES.get(str(tasks.pop()), {}) if len(tasks) == 1 else {}
    for each in paper.values():
        look: dict[str, Any] = {"color": MUTED, "markerfacecolor": PAPER, "linestyle": "none"}
        axes.plot(each.tokens, each.accuracy, marker="o", **look)
    for line in ours:
        look = {"color": line.colour, "marker": line.mark, "markersize": 8, "linestyle": "none"}
        axes.errorbar(line.xs, line.scaled(100).ys, yerr=arms(line), label=line.name, elinewidth=1.6, **look)
    _room_for_names(axes)
    axes.margins(y=0.12)
    rates(axes)
    _name_methods(axes, {method: (each.tokens, each.accuracy) for method, each in paper.items()})
    finish(figure, axes)
    rows = [[line.name, f"{x:.1f}", percent(y)] for line in ours for x, y, *_ in line.points]
    rows += [[f"paper: {NAMES[m]}", f"{p.tokens:.1f}", f"{p.accuracy:.1f} %"] for m, p in paper.items()]
    shows = "Accuracy against tokens an answer, thoughts counted. Filled marks are these runs"
    shows += ", hollow ones the paper's methods." if paper else "."
    return Plot("tokens", "Accuracy against tokens", shows, figure, Table(["", "tokens", "accuracy"], rows))


def _costs(run: History) -> list[float]:
    """Tokens, accuracy and its interval, as far as they are known; nothing without the first two."""
    found = outcome(run)
    values = [number(found.accuracy.get(key)) for key in ("rate", "low", "high")] if found else [None]
    tokens = found.tokens if found else None
    return (
        [tokens, *(each for each in values if each is not None)] if tokens and values[0] is not None else []
    )


def _name_methods(axes: Axes, marks: dict[str, tuple[float, float]]) -> None:
    """Labels to the left of the cheapest methods, where close ones share one; to the right of all others, or
    below if another mark is in the way."""
    least = min((x for x, _ in marks.values()), default=0.0)
    low, high = axes.get_ylim()
    near: list[list[str]] = []
    for method in sorted(marks, key=lambda method: marks[method]):
        (x, y), (last_x, last_y) = marks[method], marks[near[-1][-1]] if near else (0.0, 0.0)
        if x == last_x and y - last_y < 0.1 * (high - low):
            near[-1].append(method)
        else:
            near.append([method])
    for together in near:
        label = "\n".join(NAMES[each].replace("Coconut without", "w/o") for each in reversed(together))
        x, y = marks[together[0]][0], fmean(marks[each][1] for each in together)
        crowded = any(x < other and abs(y - beside) < 0.05 * (high - low) for other, beside in marks.values())
        place = "left" if x == least else "below" if crowded else "right"
        look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": MUTED}
        axes.annotate(label, (x, y), linespacing=1.05, **_AT[place], **look)


_AT: dict[str, dict[str, Any]] = {
    "left": {"xytext": (-6, 0), "ha": "right", "va": "center"},
    "right": {"xytext": (6, 0), "ha": "left", "va": "center"},
    "below": {"xytext": (0, -6), "ha": "center", "va": "top"},
}


def _room_for_names(axes: Axes) -> None:
    """Few and plain numbers on a logarithmic axis, with room for labels at both sides."""
    low, high = axes.get_xlim()
    axes.set_xlim(low / 3.5, high * 2.2)
    ticks = [
        value for value in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if low / 3.5 < value < high * 2.2
    ]
    axes.set_xticks(ticks, [str(value) for value in ticks])
    axes.minorticks_off()
