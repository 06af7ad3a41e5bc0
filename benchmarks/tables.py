"""Figures as tables: a section is one, with the columns that its figures fill."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from figure import SIDES, Figure
from rich.table import Table

TITLES = {
    "steps": "A training step",
    "padding": "Mixed lengths: an epoch of real ones (ours), and of their mean (plain)",
    "answers": "Answers",
    "memory": "Peak memory of a training step, above set-up",
    "plumbing": "Beside computing",
    "growth": "How a step's cost grows",
    "mlx": "A training step on MLX (ours), and with torch (plain)",
}
Cell = Callable[[Figure], str]


def table(section: str, figures: Sequence[Figure]) -> Table:
    grid = Table("", title=TITLES.get(section, section), title_justify="left", title_style="bold")
    cells = {name: cell for name, cell in _columns(figures).items() if any(map(cell, figures))}
    for name in cells:
        grid.add_column(name, justify="left" if name == "also" else "right")
    for figure in figures:
        grid.add_row(figure.name, *(cell(figure) for cell in cells.values()))
    return grid


def _columns(figures: Sequence[Figure]) -> dict[str, Cell]:
    faster = any(figure.faster("reference") for figure in figures)
    return {
        **{side: _amount_of(side) for side in SIDES},
        "reference/ours" if faster else "ours/reference": _ratio_to("reference"),
        "ours/plain": _ratio_to("plain"),
        "target": _targets,
        "reached": _reached,
        "same": lambda figure: {None: "", True: "yes", False: "NO"}[figure.same],
        "also": lambda figure: _also(figure.also),
    }


def _amount_of(side: str) -> Cell:
    def cell(figure: Figure) -> str:
        value = figure.value(side)
        return "" if value is None else amount(value, figure.unit)

    return cell


def _ratio_to(side: str) -> Cell:
    def cell(figure: Figure) -> str:
        ratio = figure.ratio(side)
        return "" if ratio is None else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"

    return cell


def _targets(figure: Figure) -> str:
    words = {True: "at least", False: "at most"}
    return "\n".join(f"{words[figure.faster(side)]} {value:g}" for side, value in figure.targets.items())


def _reached(figure: Figure) -> str:
    """A line for each target."""
    words = {None: "-", True: "yes", False: "no"}
    return "\n".join(words[figure.reached(side)] for side in figure.targets)


def amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _also(also: Mapping[str, Any]) -> str:
    """The numbers among it; what has parts is in the JSON alone."""
    numbers = {name: value for name, value in also.items() if isinstance(value, int | float)}
    return "\n".join(f"{name} {_number(value)}" for name, value in numbers.items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def verdict(figures: Sequence[Figure]) -> str:
    """What was aimed at and reached, and what was not, by name."""
    aimed = [(figure, side, figure.reached(side)) for figure in figures for side in figure.targets]
    known = [each for each in aimed if each[2] is not None]
    missed = [
        f"  {figure.section}: {figure.name}: {figure.ratio(side):.2f} to {side}, {_aim(figure, side)}"
        for figure, side, reached in known
        if not reached
    ]
    differing = [f"  {each.section}: {each.name}" for each in figures if each.same is False]
    lines = [f"{len(known) - len(missed)} of {len(known)} targets reached"]
    lines += ["not reached:", *missed] if missed else []
    lines += ["NOT THE SAME as the reference:", *differing] if differing else []
    return "\n".join(lines)


def _aim(figure: Figure, side: str) -> str:
    return f"{'at least' if figure.faster(side) else 'at most'} {figure.targets[side]:g}"
