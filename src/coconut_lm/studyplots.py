"""Plots of studies: branches and what agreement is worth, the battery, and the list of all."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from coconut_lm.drawing import (
    GRID,
    INK,
    MARKS,
    MUTED,
    SERIES,
    Line,
    Plot,
    arms,
    canvas,
    courses,
    curve,
    finish,
    levels,
    measured,
    rates,
    values_of,
    whole_numbers,
)
from coconut_lm.history import STUDIES, History, dig, mappings, number
from coconut_lm.noiseplots import MOST, baselines, noise_plots, own
from coconut_lm.studytables import GROUPS, Named, counted, grouped, named, untold
from coconut_lm.summary import Table, apart, percent, words

ARMS = 10  # of one study that are drawn; all are in the tables


def study_plots(runs: Sequence[History]) -> list[Plot]:
    """All that the runs' studies suffice for."""
    battery, noise, branches = (untold(named(runs, kind)) for kind in STUDIES)
    plots = [_battery(battery), *noise_plots(noise)]
    for place, it in enumerate(branches[:MOST]):
        plots += [_branches(it, place), _risk(it, place)]
    return [plot for plot in plots if plot]


# -- branches --


def _branches(it: Named, place: int) -> Plot | None:
    lines = []
    for number_, arm in enumerate(it.study.all("arms")[:ARMS]):
        lines += measured(words(str(arm.get("name"))), number_, counted(arm.get("by_k")))
    if not lines:
        return None
    figure, axes = canvas("branches", "accuracy, %")
    for at, line in enumerate(lines):
        _beside(axes, line, (at - (len(lines) - 1) / 2) / len(lines))
    whole_numbers(axes, lines)
    known = [each for each in baselines(it) if each[0] != "shortcut"]
    levels(axes, known)
    rates(axes)
    finish(figure, axes)
    shows = "Accuracy of the majority of the first branches, with 95 % intervals."
    shows += " Dashed: greedy answers with clean thoughts, and without any." if known else ""
    table = values_of(lines, "branches", percent)
    title = own("branches", "Majority of branches", it, place)
    return Plot(*title, shows, figure, table, courses(lines, percent))


def _beside(axes: Axes, line: Line, aside: float) -> None:
    """With arms that do not hide each other's."""
    look: dict[str, Any] = {"color": line.colour, "marker": line.mark, "label": line.name}
    look["linestyle"] = line.stroke
    xs = [x + 0.5 * aside for x in line.xs]
    axes.errorbar(xs, line.scaled(100).ys, yerr=arms(line), linewidth=1.2, elinewidth=1, **look)


def _risk(it: Named, place: int) -> Plot | None:
    lines = []
    for number_, arm in enumerate(it.study.all("arms")[:ARMS]):
        area = number(arm.get("aurc"))
        label = words(str(arm.get("name"))) + (f", AURC {area:.3f}" if area is not None else "")
        if points := _risks(arm):
            lines.append(Line(label, number_, points))
    if not lines:
        return None
    figure, axes = canvas("questions answered, %", "wrong of these, %")
    for line in lines:
        curve(axes, Line(line.name, line.number, [(100 * x, 100 * y) for x, y in line.points]))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    finish(figure, axes, longest=44)
    shows = "Errors among the answers given, where only those are given on which most branches agree."
    shows += " AURC is the area below: less is better."
    table = values_of([Line(each.name, 0, _rounded(each)) for each in lines], "answered", percent)
    title = own("risk_coverage", "Risk by coverage", it, place)
    return Plot(*title, shows, figure, table, courses(lines, percent))


def _risks(arm: Mapping[str, Any]) -> list[tuple[float, float]]:
    rows = [(number(p.get("coverage")), number(p.get("risk"))) for p in mappings(arm.get("risk_coverage"))]
    return sorted((x, y) for x, y in rows if x is not None and y is not None)


def _rounded(line: Line) -> list[tuple[float, float]]:
    return [(round(x, 3), y) for x, y in line.points]


# -- battery --


def _battery(found: Sequence[Named]) -> Plot | None:
    """What each intervention changes, in points; studies stand one above another in a row."""
    drawn = found[:MOST]
    rows = _rows(drawn)
    if not rows:
        return None
    figure, axes = canvas("difference to clean, points", "", 0.75 + UNIT * sum(row.height for row in rows))
    _name_rows(axes, rows)
    axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
    for place, it in enumerate(drawn):
        _dots(axes, it, rows, (place - (len(drawn) - 1) / 2) * 0.7 / len(drawn))
    if len(drawn) == 1:
        _accuracies(axes, drawn[0], rows)
    finish(figure, axes)
    shows = "What each intervention on the thoughts changes, with 95 % intervals"
    shows += "; to the right the accuracy that is left." if len(drawn) == 1 else "."
    names = [it.name or "difference to clean [95 %]" for it in drawn]
    known = [row for row in rows if row.key is not None]
    table = [[row.label.replace("\n", " "), *(apart(_gap(it, row)) for it in drawn)] for row in known]
    told = "; ".join(f"{label}: {', '.join(values)}" for label, *values in table) + "."
    return Plot("battery", "What interventions change", shows, figure, Table(["", *names], table), told)


UNIT = 0.19  # inches of a line of letters


@dataclass(frozen=True)
class _Row:
    """An intervention by its name, or, without one, a heading; y grows downwards, in lines."""

    key: str | None
    label: str
    y: float
    height: float


def _rows(found: Sequence[Named]) -> list[_Row]:
    titles: dict[str, tuple[str, str]] = {}
    for it in found:
        for group, row in grouped(it.study):
            if number(dig(row, "difference", "difference")) is not None:
                titles.setdefault(str(row.get("name")), (group, str(row.get("title") or row.get("name"))))
    rows, y = list[_Row](), 0.0
    groups = dict.fromkeys([*GROUPS.values(), *(group for group, _ in titles.values())])
    for heading in groups:
        within = [(key, title) for key, (group, title) in titles.items() if group == heading]
        for key, label in [(None, heading), *within] if within else ():
            wrapped = textwrap.fill(label, 32)
            height = 0.5 + 0.75 * (wrapped.count("\n") + 1)
            rows.append(_Row(key, wrapped, y + height / 2, height))
            y += height
    return rows


def _name_rows(axes: Axes, rows: Sequence[_Row]) -> None:
    axes.set_yticks([row.y for row in rows], [row.label for row in rows], fontsize=8.5)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set(color=INK if row.key is not None else MUTED, linespacing=1.0)
        label.set_fontweight("normal" if row.key is not None else "bold")
    axes.set_ylim(rows[-1].y + rows[-1].height / 2, 0)
    axes.grid(axis="x", visible=True, color=GRID)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _dots(axes: Axes, it: Named, rows: Sequence[_Row], aside: float) -> None:
    known = [(row.y, _gap(it, row)) for row in rows if row.key is not None]
    lines = [(y, measured("", 0, [(y, _as_rate(gap))])) for y, gap in known]
    shown = [(y + aside, line.scaled(100).ys[0], arms(line)) for y, found in lines for line in found]
    look: dict[str, Any] = {"color": SERIES[it.number % len(SERIES)], "marker": MARKS[it.number % len(MARKS)]}
    for place, (y, x, reach) in enumerate(shown):
        label = it.name if place == 0 else None
        axes.errorbar([x], [y], xerr=reach, linestyle="none", elinewidth=1.6, label=label, **look)


def _as_rate(gap: Any) -> dict[str, Any]:
    return {"rate": dig(gap, "difference"), "low": dig(gap, "low"), "high": dig(gap, "high")}


def _gap(it: Named, row: _Row) -> Any:
    return dig(_found(it, row), "difference")


def _found(it: Named, row: _Row) -> Any:
    return next((each for each in it.study.all("rows") if str(each.get("name")) == row.key), None)


def _accuracies(axes: Axes, it: Named, rows: Sequence[_Row]) -> None:
    """In a column to the right."""
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    look: dict[str, Any] = {
        "ha": "right",
        "va": "center",
        "fontsize": 8.5,
        "color": INK,
        "annotation_clip": False,
    }
    for row in rows:
        if row.key is not None:
            rate = dig(_found(it, row), "accuracy", "rate")
            axes.annotate(percent(rate), (1.0, row.y), (42, 0), **look, **at)
