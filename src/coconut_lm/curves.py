"""What training was like, epoch by epoch: loss, accuracy, and what became of the thoughts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes

from coconut_lm.drawing import (
    MUTED,
    PAPER,
    Line,
    Plot,
    Span,
    canvas,
    courses,
    curve,
    finish,
    logarithmic,
    rates,
    values_of,
    whole_numbers,
)
from coconut_lm.history import History, dig, number
from coconut_lm.summary import floors_of, percent

POINTS = 300  # of a line: more cannot be seen
Runs = Sequence[History]


def loss(runs: Runs) -> Plot | None:
    trained = [line for place, run in enumerate(runs) for line in _losses(run, place, run.steps, "loss")]
    checked = [line for place, run in enumerate(runs) for line in _losses(run, place, run.epochs, "val_loss")]
    if not trained and not checked:
        return None
    figure, axes = canvas("optimizer steps", "loss")
    alone = len(runs) == 1
    for line in trained:
        smooth = _smooth(line)
        axes.plot(smooth.xs, smooth.ys, color=line.colour, label="training, smoothed" if alone else None)
    for line in checked:
        axes.plot(line.xs, line.ys, color=line.colour, linewidth=0.8, alpha=0.7)
        look: dict[str, Any] = {"marker": line.mark, "markerfacecolor": PAPER}
        look |= {"linestyle": "none", "label": "validation" if alone else line.name}
        axes.plot(line.xs, line.ys, color=line.colour, **look)
    logarithmic(axes, [*trained, *checked])
    finish(figure, axes, _shared(runs, _steps_of_stages))
    shows = "Thick lines are the training loss, smoothed; hollow marks the validation loss after each epoch."
    table = values_of(checked or trained, "step", lambda value: f"{value:.4g}")
    told = courses(checked or trained, lambda value: f"{value:.3g}")
    return Plot("loss", "Loss", shows + _bands(runs), figure, table, told)


def _losses(run: History, place: int, rows: Sequence[Any], key: str) -> Iterator[Line]:
    found = [(row.get("step"), number(row.get(key))) for row in rows]
    known = [(step, value) for step, value in found if isinstance(step, int) and value is not None]
    if known:
        yield Line(run.name, place, known)


def _smooth(line: Line) -> Line:
    """Moving averages over a fortieth of the line, at few enough places to draw."""
    keep = 1 - 1 / max(1.0, len(line.xs) / 40)
    total, weight, points = 0.0, 0.0, []
    for step, value in line.points:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        points.append((step, total / weight))
    every = -(-len(points) // POINTS)
    return replace(line, points=points[::-1][::every][::-1])  # the last one is always there


_RATE = ("val_accuracy", "val_low", "val_high")


def accuracy(runs: Runs) -> Plot | None:
    lines = []
    for place, run in enumerate(runs):
        rows = [(row["epoch"] + 1, *(number(row.get(key)) for key in _RATE)) for row in run.epochs]
        known = [[each for each in row if each is not None] for row in rows if row[1] is not None]
        if known:
            lines.append(Line(run.name, place, known))
    if not lines:
        return None
    figure, axes = canvas("epochs finished", "validation accuracy, %")
    for line in lines:
        curve(axes, line.scaled(100))
    rates(axes)
    _floor(axes, runs)
    whole_numbers(axes, lines)
    finish(figure, axes, _shared(runs, _epochs_of_stages))
    shows = "Validation accuracy after each epoch, with its 95 % interval as a band." + _bands(runs)
    table, told = values_of(lines, "epoch", percent), courses(lines, percent)
    return Plot("accuracy", "Accuracy by epoch", shows, figure, table, told)


def _floor(axes: Axes, runs: Runs) -> None:
    """How far the best rule gets that skips the reasoning; one line, of the first run that knows it."""
    best = next((max(rates.values()) for run in runs if (rates := floors_of(run))), None)
    if best is None:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 100 * best - 3), max(high, min(102.0, 100 * best + 3)))
    axes.axhline(100 * best, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    near: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    look: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 8.5, "color": MUTED}
    axes.annotate("best shortcut", (0.0, 100 * best), (3, -2), **look, **near)


# -- stages --


def _shared(runs: Runs, spans_of: Callable[[History], list[Span]]) -> list[Span]:
    """The stages, where all runs that have several have the same."""
    found = [spans for run in runs if len(spans := spans_of(run)) > 1]
    return found[0] if found and all(_same(spans, found[0]) for spans in found) else []


def _same(some: Sequence[Span], others: Sequence[Span]) -> bool:
    """As far as both got, the same stages began at about the same place."""
    whole = max(some[-1].end, others[-1].end)
    return all(
        a.stage == b.stage and abs(a.start - b.start) < 0.02 * whole
        for a, b in zip(some, others, strict=False)
    )


def _steps_of_stages(run: History) -> list[Span]:
    rows = [(row["step"], row.get("stage")) for row in run.steps if isinstance(row.get("stage"), int)]
    spans, start = [], 0.0
    for stage, members in groupby(rows, key=lambda row: row[1]):
        end = [step for step, _ in members][-1]
        spans.append(Span(int(stage or 0), start, end))
        start = end
    return spans


def _epochs_of_stages(run: History) -> list[Span]:
    rows = [(row["epoch"], row["stage"]) for row in run.epochs if isinstance(row.get("stage"), int)]
    spans = []
    for stage, members in groupby(rows, key=lambda row: row[1]):
        epochs = [epoch for epoch, _ in members]
        spans.append(Span(stage, epochs[0] + 0.5, epochs[-1] + 1.5))
    return spans


def _bands(runs: Runs) -> str:
    return " Bands are the stages of training." if _shared(runs, _epochs_of_stages) else ""


# -- what thoughts are like --


def _monitor(key: str, title: str, up: str, shows: str) -> Callable[[Runs], Plot | None]:
    def make(runs: Runs) -> Plot | None:
        lines = []
        for place, run in enumerate(runs):
            rows = [(row["epoch"] + 1, number(dig(row, "monitors", key))) for row in run.epochs]
            known = [(epoch, value) for epoch, value in rows if value is not None]
            if known:
                lines.append(Line(run.name, place, known))
        return _by_epoch(key, title, up, shows, lines, runs)

    return make


MONITORS = (
    _monitor(
        "norm_ratio",
        "Norm of a thought",
        "norm / embedding norm",
        "Mean norm of a thought over the mean norm of an embedding.",
    ),
    _monitor(
        "cosine",
        "Likeness of thoughts",
        "mean cosine",
        "Mean cosine between the thoughts of one question; near 1 they are all the same.",
    ),
    _monitor(
        "effective_rank",
        "Effective rank of thoughts",
        "effective rank",
        "How many directions the thoughts of a batch spread over; a fall towards 1 is a collapse.",
    ),
)


def _by_epoch(name: str, title: str, up: str, shows: str, lines: list[Line], runs: Runs) -> Plot | None:
    if not lines:
        return None
    figure, axes = canvas("epochs finished", up)
    for line in lines:
        curve(axes, line)
    whole_numbers(axes, lines)
    finish(figure, axes, _shared(runs, _epochs_of_stages))
    table = values_of(lines, "epoch", lambda value: f"{value:.3g}")
    return Plot(
        name, title, shows + _bands(runs), figure, table, courses(lines, lambda value: f"{value:.3g}")
    )


def gradients(runs: Runs) -> Plot | None:
    """The gradient at each thought, in the last epoch that measured it."""
    lines = []
    for place, run in enumerate(runs):
        found = [dig(row, "monitors", "gradient_norms") for row in run.epochs]
        last = next((each for each in reversed(found) if isinstance(each, list) and each), [])
        known = [(k, value) for k, each in enumerate(last, start=1) if (value := number(each)) is not None]
        if known:
            lines.append(Line(run.name, place, known))
    if not lines:
        return None
    figure, axes = canvas("thought", "gradient norm")
    for line in lines:
        curve(axes, line)
    logarithmic(axes, lines)
    whole_numbers(axes, lines)
    finish(figure, axes)
    shows = "Norm of the loss's gradient at each thought, when it was last measured: where none arrives, "
    shows += "nothing is learned."
    table = values_of(lines, "thought", lambda value: f"{value:.3g}")
    return Plot("gradients", "Gradient that reaches each thought", shows, figure, table)


def window(runs: Runs) -> Plot | None:
    """The learned weights of the states that a thought is mixed from, newest first."""
    lines = list(_weights(runs))
    return _by_epoch(
        "window",
        "Weights of the window",
        "weight",
        "Share of each of the last hidden states in a thought; the newest is drawn solid.",
        lines,
        runs,
    )


def _weights(runs: Runs) -> Iterator[Line]:
    for place, run in enumerate(runs):
        rows = [
            (row["epoch"] + 1, row["window"]) for row in run.epochs if isinstance(row.get("window"), list)
        ]
        for back in range(max((len(weights) for _, weights in rows), default=0)):
            known = [(epoch, weights[back]) for epoch, weights in rows if len(weights) > back]
            age = "newest" if back == 0 else f"{back} before"
            name = age if len(runs) == 1 else f"{run.name}: {age}"
            yield Line(name, place, known, back)
