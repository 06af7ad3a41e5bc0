"""How plots are drawn: a plot is a figure, what it shows in words, and its numbers as a table.

Drawn small, so that letters stay readable on a phone. Every colour of a figure is one of `COLOURS`, so that a
page can put its own in their places.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coconut_lm.files import atomic_write
from coconut_lm.history import dig, number
from coconut_lm.summary import Table

# Okabe and Ito's colours, which the colour-blind tell apart; the page has lighter ones for the dark.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5c5c5c")
INK, MUTED, GRID, BAND, PAPER = "#1c1f24", "#5a6169", "#dfe2e6", "#f1f3f5", "#ffffff"
COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band", PAPER: "panel"}
COLOURS |= {colour: f"series-{number}" for number, colour in enumerate(SERIES)}
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
MARKS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH, HEIGHT = 4.7, 3.0  # inches of 72 units: on a phone a unit is about a pixel
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 2.6,
    "legend.borderpad": 0.1,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a run may be called $a_b$
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Plot:
    name: str
    title: str
    shows: str
    figure: Figure
    table: Table
    told: str = ""
    """What the lines do, for those who do not see them."""

    @cached_property
    def svg(self) -> str:
        """The same for the same runs: no date, no random names."""
        text = StringIO()
        with _style(**{"svg.hashsalt": self.name}):
            told = {"Date": None, "Title": self.title, "Description": f"{self.shows} {self.told}".strip()}
            self.figure.savefig(text, format="svg", metadata=told)
        return text.getvalue()

    def inline(self) -> str:
        """To stand within a page: in the page's colours and letters, with names that are no other plot's."""
        drawn = re.sub(r"^.*?<svg", "<svg", self.svg, flags=re.S)
        drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
        drawn = re.sub(r"<title>.*?</title>", "", drawn, count=1, flags=re.S)
        drawn = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), drawn)
        drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", drawn)
        drawn = drawn.replace("'DejaVu Sans'", "var(--letters)")
        opening = f'<svg role="img" aria-labelledby="{self.name}-title" aria-describedby="{self.name}-shows"'
        told = f'<title id="{self.name}-title">{escape(self.title)}</title>'
        told += f'<desc id="{self.name}-shows">{escape(f"{self.shows} {self.told}".strip())}</desc>'
        head, rest = drawn.split(">", 1)
        head = re.sub(r' (width|height)="[^"]*"', "", head.replace("<svg", opening, 1))
        return f"{head}>{told}{rest}"

    def save(self, folder: Path) -> None:
        """FOLDER/NAME.svg and .png."""
        with atomic_write(folder / f"{self.name}.svg") as file:
            file.write(self.svg)
        with _style(), atomic_write(folder / f"{self.name}.png") as file:
            self.figure.savefig(file.buffer, format="png", dpi=200, metadata={"Software": None})


def _style(**more: Any) -> AbstractContextManager[Any]:
    settings: Any = STYLE | more
    return matplotlib.rc_context(settings)


def _variable(colour: str) -> str:
    return f"var(--{COLOURS[colour]})" if colour in COLOURS else colour


# -- parts --


@dataclass(frozen=True)
class Line:
    """Points of one run, or of one part of it: x and y, or x, y and y's interval."""

    name: str
    number: int  # of the run: its colour and mark
    points: Sequence[Sequence[float]]
    dash: int = 0

    @property
    def xs(self) -> list[float]:
        return [point[0] for point in self.points]

    @property
    def ys(self) -> list[float]:
        return [point[1] for point in self.points]

    @property
    def interval(self) -> tuple[list[float], list[float]] | None:
        """Its lower and its upper ends."""
        if any(len(point) < 4 for point in self.points):
            return None
        return [point[2] for point in self.points], [point[3] for point in self.points]

    def scaled(self, by: float) -> "Line":
        return replace(self, points=[(x, *(by * y for y in ys)) for x, *ys in self.points])

    @property
    def colour(self) -> str:
        return SERIES[self.number % len(SERIES)]

    @property
    def stroke(self) -> Any:
        """Its dash, or that by which it differs from another of its colour."""
        return DASHES[(self.dash or self.number // len(SERIES)) % len(DASHES)]

    @property
    def mark(self) -> str:
        return MARKS[self.number % len(MARKS)]


@dataclass(frozen=True)
class Span:
    """From where to where a stage lasts."""

    stage: int
    start: float
    end: float


def canvas(across: str, up: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    with _style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(axis="x", visible=False)
        axes.tick_params(length=0)
    return figure, axes


def finish(figure: Figure, axes: Axes, stages: Sequence[Span] = (), longest: int = 30) -> None:
    """What needs to know where the lines ended up: stages behind them, and who is who above."""
    low, high = axes.get_xlim()
    shown = [Span(each.stage, max(each.start, low), min(each.end, high)) for each in stages]
    _shade(axes, [each for each in shown if each.end > each.start], high - low)
    axes.set_xlim(low, high)
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        short = [shortened(label, longest) for label in labels]
        columns = max(1, min(len(short), 56 // (max(map(len, short)) + 5)))
        rows = -(-len(short) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * max(0, rows - 2))  # not at the lines' expense
        with _style():
            figure.legend(handles, short, loc="outside upper left", ncols=columns)


def shortened(label: str, longest: int) -> str:
    """Its beginning and its end, which tell most names apart."""
    half = longest // 2 - 1
    return label if len(label) <= longest else f"{label[:half]}…{label[-half:]}"


def _shade(axes: Axes, stages: Sequence[Span], whole: float) -> None:
    """Every second stage on a band, each with its number above."""
    for span in stages:
        if span.stage % 2:
            axes.axvspan(span.start, span.end, color=BAND, linewidth=0, zorder=0)
        middle = ((span.start + span.end) / 2, 1.0)
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        share = (span.end - span.start) / whole
        label = f"stage {span.stage}" if share > 0.15 else str(span.stage) if share > 0.04 else ""
        axes.annotate(label, middle, (0, 3), ha="center", va="bottom", fontsize=8.5, color=MUTED, **above)


def whole_numbers(axes: Axes, lines: Iterable[Line]) -> None:
    """Ticks where the points are, or at round places if these are many; never between whole numbers."""
    from matplotlib.ticker import MaxNLocator

    places = sorted({x for line in lines for x in line.xs})
    if len(places) <= 10:
        axes.set_xticks(places)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    if len(places) == 1:
        axes.set_xlim(places[0] - 0.5, places[0] + 0.5)


def logarithmic(axes: Axes, lines: Iterable[Line]) -> None:
    """A logarithmic axis, where the values are far apart; its ticks read as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [value for line in lines for value in line.ys]
    if min(values) <= 0 or max(values) < 6 * min(values):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", length=0)


def curve(axes: Axes, line: Line) -> None:
    look: dict[str, Any] = {"color": line.colour, "marker": line.mark, "markersize": 4}
    axes.plot(line.xs, line.ys, linestyle=line.stroke, label=line.name, **look)
    if line.interval:
        axes.fill_between(line.xs, *line.interval, color=line.colour, alpha=0.14, linewidth=0)


def arms(line: Line) -> Any:
    """How far the interval reaches down and up, in percent."""
    known = [(100 * (y - low), 100 * (high - y)) for _, y, low, high in line.points] if line.interval else []
    return [[max(0.0, each) for each in side] for side in zip(*known, strict=True)] or None


def levels(axes: Axes, known: Sequence[tuple[str, float, Any]]) -> None:
    """Lines across, in percent and a style each, with their names at the right ends, one above another."""
    low, high = axes.get_ylim()
    values = [value for _, value, _ in known]
    margin = 0.04 * (max([high, *values]) - min([low, *values]))
    axes.set_ylim(
        min([low, *(each - margin for each in values)]), max([high, *(each + margin for each in values)])
    )
    low, high = axes.get_ylim()
    place, near = low - high, 0.075 * (high - low)
    for name, value, dash in sorted(known, key=lambda each: each[1]):
        axes.axhline(value, color=MUTED, linewidth=1, linestyle=dash, zorder=1.5)
        place = max(value, place + near)
        at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        look: dict[str, Any] = {"ha": "left", "va": "center", "fontsize": 8.5, "color": MUTED}
        axes.annotate(name, (1.0, place), (4, 0), annotation_clip=False, **look, **at)


def logarithmic_across(axes: Axes, places: Sequence[float]) -> None:
    """A logarithmic axis below, its ticks at round numbers that have room."""
    low, high = min(places) / 1.25, max(places) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    round_ones = [float(f"{digit}e{power}") for power in range(-9, 9) for digit in (1, 2, 5)]
    within = [each for each in round_ones if low <= each <= high]
    if len(within) > 8:
        within = [each for each in within if f"{each:e}".startswith("1")]
    axes.set_xticks(within, [f"{each:g}" for each in within])
    axes.minorticks_off()


def values_of(lines: Iterable[Line], across: str, show: Callable[[float], str]) -> Table:
    """What was drawn, a row for each place."""
    lines = list(lines)
    places = sorted({x for line in lines for x in line.xs})
    known = [dict(zip(line.xs, line.ys, strict=True)) for line in lines]
    rows = [[f"{x:g}", *(show(each[x]) if x in each else "–" for each in known)] for x in places]
    return Table([across, *(line.name for line in lines)], rows)


def courses(lines: Iterable[Line], show: Callable[[float], str]) -> str:
    """In words, from where to where each line goes."""
    ends = [(line.name, line.xs[0], show(line.ys[0]), line.xs[-1], show(line.ys[-1])) for line in lines]
    return (
        "; ".join(f"{name}: {y} at {x:g}, {last_y} at {last_x:g}" for name, x, y, last_x, last_y in ends)
        + "."
    )


def measured(name: str, place: int, rates: Iterable[tuple[float | None, Any]]) -> list[Line]:
    """A line of these rates by their places, with their intervals; none where nothing is known. What is more
    than everything is no rate."""
    rows = [[x, *(number(dig(rate, key)) for key in ("rate", "low", "high"))] for x, rate in rates]
    whole = [[each for each in row if each is not None] for row in rows if None not in row]
    whole = [row for row in whole if all(abs(each) <= 1 for each in row[1:])]
    whole.sort(key=lambda each: each[0])
    return [Line(name, place, whole)] if whole else []


def rates(axes: Axes) -> None:
    """Percent, with a little room and never past what a rate can be."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(-2.0, low), min(102.0, high))
