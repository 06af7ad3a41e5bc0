"""What `battery` looks like: one table, and the verdict in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coconut_lm.verdict import points

USED = {"yes": ("used", "bold green"), "no": ("not used", "bold red"), "unclear": ("unclear", "bold yellow")}
HEAD = ("", "right", "beside clean [95 %]", "changed", "follows")
FOLLOWS = "follows: answers that are those of whom the thoughts are from, where the question has another"


def tables(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text.assemble((summary["checkpoint"], "bold"), f" on {summary['data']}: {_about(summary)}\n")
    yield Group(_table(summary), "")
    if any(row["follows"] for row in summary["rows"]):
        yield Text(FOLLOWS + "\n", "dim")
    if summary["left_out"]:
        yield Text("left out: " + "; ".join(summary["left_out"]) + "\n", "dim")
    verdict = summary["verdict"]
    word, style = USED[verdict["used"]]
    yield Text.assemble("Is the latent used? ", (word, style))
    for sentence in verdict["sentences"]:
        yield Padding(Text(sentence), (0, 0, 0, 2))


def _about(summary: Mapping[str, Any]) -> str:
    thoughts = summary["thoughts"]
    many = "" if thoughts is None else f", {thoughts} thought{'s' * (thoughts != 1)}"
    many += f", {summary['n']:,} examples"
    return f"{summary['task']}, {summary['method']}, stage {summary['stage']}{many}, seed {summary['seed']}"


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, column in enumerate(HEAD):
        table.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
    table.add_row("as they are", _rate(summary["clean"]), "", "", "", style="bold")
    group = ""
    for row in summary["rows"]:
        if row["group"] != group:
            group = row["group"]
            table.add_section()
        gap, follows = row["difference"], row["follows"]
        line = [row["title"], _rate(row["accuracy"]), points(gap).replace(" points", "") if gap else ""]
        table.add_row(*line, _rate(row["changed"]), _rate(follows) if follows else "")
    return table


def _rate(found: Mapping[str, Any]) -> str:
    return "" if found["rate"] is None else f"{found['rate']:.1%}"
