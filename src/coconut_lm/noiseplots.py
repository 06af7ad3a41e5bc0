"""Plots of noise on thoughts.

A signal-to-noise ratio is drawn at its inverse, noise over thought, so that more noise is to the right.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from coconut_lm.drawing import (
    DASHES,
    GRID,
    INK,
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
    logarithmic_across,
    measured,
    rates,
    values_of,
)
from coconut_lm.fits import FAMILIES, Fit
from coconut_lm.history import dig, mappings, number
from coconut_lm.studytables import Named, best_first, parameters
from coconut_lm.summary import Table, percent, words

MOST = 4  # studies that have plots of their own; all are in the tables
ACROSS = "scale"
INVERSE, AT_INVERSE = "snr", " (at 1/scale)"
BANDED = 3  # lines whose intervals are told apart as bands; those of more are arms


def noise_plots(found: Sequence[Named]) -> list[Plot]:
    """Of each of the first studies, and of them together."""
    kinds = list(dict.fromkeys(_kind(each) for it in found for each in it.study.all("curves")))
    plots = [_beside(found, kinds)]
    for place, it in enumerate(found[:MOST]):
        lines = _lines(it, kinds)
        plots += [
            _noise(it, place, lines),
            _noise_log(it, place, lines),
            _fits(it, place),
            _map(it, place, lines),
        ]
    return [plot for plot in plots if plot]


def own(name: str, title: str, it: Named, place: int) -> tuple[str, str]:
    """Name and title of a study's own plot."""
    return name if place == 0 else f"{name}-{place + 1}", f"{title} ({it.name})" if it.name else title


def _kind(found: Mapping[str, Any]) -> str:
    return str(found.get("noise"))


def _lines(it: Named, kinds: Sequence[str]) -> list[Line]:
    """Accuracy by scale, a line for each kind of noise; its number is its place among the kinds."""
    return [line for found in it.study.all("curves") for line in _line(found, kinds.index(_kind(found)))]


def _line(found: Mapping[str, Any], place: int) -> list[Line]:
    points = [
        (_amount(found, each.get("scale")), each.get("accuracy")) for each in mappings(found.get("points"))
    ]
    return measured(_told(found), place, points)


def _told(found: Mapping[str, Any]) -> str:
    return words(_kind(found)) + (AT_INVERSE if _kind(found) == INVERSE else "")


def _amount(found: Mapping[str, Any], scale: Any) -> float | None:
    """How much noise that is."""
    known = number(scale)
    return 1 / known if known and _kind(found) == INVERSE else known


def _positive(lines: Sequence[Line]) -> list[Line]:
    """What can be on a logarithmic axis."""
    some = [replace(each, points=[p for p in each.points if p[0] > 0]) for each in lines]
    return [each for each in some if each.points]


def _far_apart(lines: Sequence[Line]) -> bool:
    """Too far for a linear axis."""
    xs = [x for line in _positive(lines) for x in line.xs]
    return max(xs, default=0.0) >= 20 * min(xs, default=1.0)


def _noise(it: Named, place: int, lines: list[Line]) -> Plot | None:
    shows = "Accuracy with noise on the thoughts, with 95 % intervals. " + _told_levels(it)
    near = _as_far_as_others(lines)
    shows += " What is farther out stands on the logarithmic axis alone." if near != lines else ""
    return _curves(own("noise", "Accuracy by noise", it, place), near, shows, baselines(it), False)


def _as_far_as_others(lines: Sequence[Line]) -> list[Line]:
    """Inverses go far beyond the scales of other kinds, which would be pressed together."""
    others = [x for line in lines if not line.name.endswith(AT_INVERSE) for x in line.xs]
    most = max(others, default=math.inf)
    near = [replace(line, points=[p for p in line.points if p[0] <= most]) for line in lines]
    return [line for line in near if line.points]


def _noise_log(it: Named, place: int, lines: list[Line]) -> Plot | None:
    shows = "The same by the logarithm of the scale. " + _told_levels(it)
    return _curves(
        own("noise_log", "Accuracy by noise, logarithmic", it, place),
        _positive(lines),
        shows,
        baselines(it),
        True,
    )


Levels = Sequence[tuple[str, float, Any]]


def _curves(named: tuple[str, str], lines: list[Line], shows: str, across: Levels, log: bool) -> Plot | None:
    if not lines:
        return None
    alone = f"{ACROSS} of {lines[0].name}" if len(lines) == 1 else ACROSS  # one line has no legend
    figure, axes = canvas(alone, "accuracy, %")
    for line in lines:
        _draw(axes, line, banded=len(lines) <= BANDED)
    if log:
        logarithmic_across(axes, [x for line in lines for x in line.xs])
    levels(axes, across)
    rates(axes)
    finish(figure, axes)
    told = courses(lines, percent)
    return Plot(*named, shows, figure, values_of(lines, ACROSS, percent), told)


def _draw(axes: Axes, line: Line, banded: bool) -> None:
    if banded:
        curve(axes, line.scaled(100))
        return
    look: dict[str, Any] = {"color": line.colour, "marker": line.mark, "markersize": 4, "label": line.name}
    axes.errorbar(
        line.xs, line.scaled(100).ys, yerr=arms(line), linestyle=line.stroke, elinewidth=0.8, **look
    )


def baselines(it: Named) -> list[tuple[str, float, Any]]:
    """What noise is measured by: dashed with clean thoughts and without, dotted the best shortcut."""
    dashed, dotted = (0, (5, 3)), (0, (1, 2))
    get, floors = it.study.get, it.study.get("floors")
    known = [number(dig(rate, "rate")) for rate in floors.values()] if isinstance(floors, Mapping) else []
    found: list[tuple[str, Any, Any]] = [
        ("clean", get("baselines", "clean", "rate"), dashed),
        ("no thoughts", get("baselines", "without thoughts", "rate"), dashed),
        ("shortcut", max((each for each in known if each is not None), default=None), dotted),
    ]
    rates = [(name, number(rate), dash) for name, rate, dash in found]
    return [(name, 100 * rate, dash) for name, rate, dash in rates if rate is not None and 0 <= rate <= 1]


def _told_levels(it: Named) -> str:
    names = [name for name, *_ in baselines(it)]
    told = {
        "clean": "with clean thoughts",
        "no thoughts": "without any",
        "shortcut": "by the best shortcut (dotted)",
    }
    return f"Lines across: accuracy {', '.join(told[name] for name in names)}." if names else ""


# -- several studies --


def _beside(found: Sequence[Named], kinds: Sequence[str]) -> Plot | None:
    """One kind of noise in all of the studies: the one that most have, or of these the first."""
    each = [(it, {line.number: line for line in _lines(it, kinds)}) for it in found[: len(SERIES)]]
    has = {place: sum(place in lines for _, lines in each) for place in range(len(kinds))}
    if len(found) < 2 or max(has.values(), default=0) < 2:
        return None
    kind = max(has, key=lambda place: has[place])
    lines = [Line(it.name, it.number, lines[kind].points) for it, lines in each if kind in lines]
    named = "noise_beside", f"Accuracy by noise, {words(kinds[kind])}"
    shows = "One kind of noise in several studies, with 95 % intervals."
    log = _far_apart(lines)
    return _curves(named, _positive(lines) if log else lines, shows, [], log)


# -- fits --


def _fits(it: Named, place: int) -> Plot | None:
    """The curve that falls farthest, with its best fits. x is the amount of noise, as in the other plots."""
    curves = [(line, each) for each in it.study.all("curves") for line in _line(each, 0)]
    known = [(line, each, best) for line, each in curves if (best := _best(each))]
    if not known:
        return None
    line, found, best = max(known, key=lambda each: max(each[0].ys) - min(each[0].ys))
    figure, axes = canvas(ACROSS if _kind(found) != INVERSE else "1/scale", "accuracy, %")
    _draw_fits(axes, line, best)
    levels(axes, [each for each in baselines(it) if each[0] == "clean"])
    rates(axes)
    _under_half(axes, found)
    finish(figure, axes)
    shows = (
        f"Accuracy with {_told(found)} noise, and the best fits to it. Upright: the first scale under 50 %."
    )
    rows = [[words(each.name), each.formula, parameters(vars(each)), f"{each.r2:.3f}"] for each in best]
    table = Table(["fit", "accuracy at x", "parameters", "R²"], rows)
    named = own("noise_fits", f"Fits to {words(_kind(found))}", it, place)
    return Plot(*named, shows, figure, table, courses([line], percent))


def _draw_fits(axes: Axes, line: Line, best: Sequence[Fit]) -> None:
    """What was measured, and the curves through it, as far as that goes."""
    log = _far_apart([line])
    shown = _positive([line])[0] if log else line
    data: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": "none", "zorder": 3}
    axes.errorbar(shown.xs, shown.scaled(100).ys, yerr=arms(shown), **data)
    low, high = shown.xs[0], shown.xs[-1]
    shares = [step / 120 for step in range(121)]
    xs = [low * (high / low) ** each if log else low + (high - low) * each for each in shares]
    for place, fit in enumerate(best):
        dash: Any = DASHES[place]
        look: dict[str, Any] = {"color": SERIES[place], "label": f"{words(fit.name)}, R² {fit.r2:.3f}"}
        axes.plot(xs, [100 * fit.at(x) for x in xs], linestyle=dash, **look)
    if log:
        logarithmic_across(axes, shown.xs)


def _best(found: Mapping[str, Any]) -> list[Fit]:
    """Up to three of which all is known."""
    fits = []
    for each in best_first(found):
        name, values = str(each.get("name")), each.get("parameters")
        names = FAMILIES[name].names if name in FAMILIES else ()
        known = {key: value for key in names if (value := number(dig(values, key))) is not None}
        if names and len(known) == len(names):
            fits.append(Fit(name, FAMILIES[name].formula, known, each["r2"]))
    return fits[:3]


def _under_half(axes: Axes, found: Mapping[str, Any]) -> None:
    first, (low, high) = _amount(found, found.get("first_below_half")), axes.get_xlim()
    if first is not None and low <= first <= high:
        axes.axvline(first, color=MUTED, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
        near: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(
            f"under 50 % at {first:g}", (first, 1.0), (0, 3), ha="center", fontsize=8.5, color=MUTED, **near
        )


# -- kind by scale --


def _map(it: Named, place: int, lines: list[Line]) -> Plot | None:
    """Numbers on fields that are fuller the higher, and never so full that they cannot be read."""
    lines = _positive(lines)
    cells = {(line.name, _short(x)): y for line in lines for x, y, *_ in line.points}
    scales = sorted({scale for _, scale in cells}, key=float)
    if len(cells) < 2:
        return None
    figure, axes = canvas(ACROSS, "", 0.9 + 0.27 * len(lines))
    least, most = min(cells.values()), max(cells.values())
    crowded = len(scales) > 9
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "fontsize": 7.5 if crowded else 9}
    for row, line in enumerate(lines):
        for column, scale in enumerate(scales):
            if (rate := cells.get((line.name, scale))) is not None:
                full = 0.04 + 0.44 * (rate - least) / ((most - least) or 1)
                at = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(at, 1, 1, facecolor=SERIES[0], alpha=full, linewidth=0))
                axes.text(column, row, f"{100 * rate:.0f}", **look)
    axes.set_xticks(range(len(scales)), scales, rotation=90 if crowded else 0)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set(xlim=(-0.5, len(scales) - 0.5), ylim=(len(lines) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.spines[:].set_color(GRID)
    finish(figure, axes)
    shows = "Accuracy in percent by kind of noise and scale; the fuller, the higher. Blank: not measured."
    rows = [[line.name, *(percent(cells.get((line.name, scale))) for scale in scales)] for line in lines]
    named = own("noise_map", "Kinds of noise by scale", it, place)
    return Plot(*named, shows, figure, Table(["noise", *scales], rows))


def _short(x: float) -> str:
    return f"{float(f'{x:.2g}'):g}"
