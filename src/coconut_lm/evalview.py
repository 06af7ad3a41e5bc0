"""What `eval` looks like."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coconut_lm import terminal
from coconut_lm.evaluate import Prediction
from coconut_lm.terminal import follow

FLOORS = 3  # shortcut floors shown, the highest

Metrics = Mapping[str, Any]


def tables(metrics: Metrics) -> Iterator[RenderableType]:
    thoughts = "" if metrics["thoughts"] is None else f", {_many(metrics['thoughts'], 'thought')}"
    yield Text.assemble(
        (metrics["checkpoint"], "bold"),
        f" on {metrics['data']}: {metrics['task']}, {metrics['method']}, stage {metrics['stage']}{thoughts},"
        f" {metrics['scoring']} scoring\n",
    )
    yield Group(_rates(metrics), "")
    yield Group(_costs(metrics), "")
    if (cut := metrics["n"] - metrics["ended"]["right"]) > 0:
        limit = f"{metrics['max_new_tokens']} tokens"
        yield Text(f"{_many(cut, 'output')} did not end within {limit}", "yellow")


def watched(predictions: Iterable[Prediction], total: int) -> Iterator[Prediction]:
    """Predictions as they come, with a bar that tells the accuracy so far."""
    verdicts: list[bool] = []

    def says(prediction: Prediction) -> str:
        verdicts.append(prediction.correct)
        return f"{sum(verdicts)} of {len(verdicts)} right"

    return follow(predictions, total, says)


def _rates(metrics: Metrics) -> Table:
    table = terminal.table("", "right", "95 % interval", "n")
    _add(table, "accuracy", metrics["accuracy"], "bold")
    if metrics["cot_match"]:
        _add(table, "steps as in the data", metrics["cot_match"])
    if swaps := metrics["swaps"]:
        _add(table, "asked of the other entity", swaps["accuracy"])
        _add(table, "right on both", swaps["consistency"])
    for steps, found in metrics["groups"].get("steps", {}).items():
        _add(table, _many(int(steps), "step"), found)
    shortcuts = metrics["groups"].get("shortcut", {})
    for verdict, found in shortcuts.items() if len(shortcuts) > 1 else ():
        _add(table, f"shortcut {verdict}", found)
    for rule, floor in list(metrics["floors"].items())[:FLOORS]:
        _add(table, f"floor: {rule.replace('_', ' ')}", floor, "dim")
    return table


def _add(table: Table, name: str, found: Metrics, style: str = "") -> None:
    interval = f"{found['low']:.1%} to {found['high']:.1%}"
    table.add_row(name, f"{found['rate']:.1%}", interval, f"{found['n']:,}", style=style)


def _costs(metrics: Metrics) -> Table:
    table = terminal.table("of an example", "mean")
    tokens, seconds = metrics["tokens"], metrics["seconds"]
    table.add_row("tokens", f"{tokens['mean']:.1f}")
    table.add_row("  thoughts", f"{tokens['latent']:.1f}")
    table.add_row("  written", f"{tokens['written']:.1f}")
    table.add_row("forward passes", f"{metrics['passes']['mean']:.1f}")
    if metrics["flops"]:
        table.add_row("FLOPs", f"{metrics['flops']['mean']:.3g}")
    together = (
        f"{seconds['batch_size']} at a time" if seconds["batch_size"] else "in batches of several sizes"
    )
    table.add_row(f"seconds, {together}", f"{seconds['per_example']:.4f}")
    if (alone := seconds["per_example_batch_1"]) is not None:
        table.add_row("seconds, one at a time", f"{alone:.4f}")
    if metrics["peak_memory"]:
        table.add_row(
            f"peak memory of all ({metrics['memory_of']})", f"{metrics['peak_memory'] / 2**20:,.0f} MiB"
        )
    return table


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
