"""What `battery` looks like: one table, and the verdict in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coconut_lm.studyview import heading
from coconut_lm.studyview import table as studytable
from coconut_lm.summary import apart

USED = {"yes": ("used", "bold green"), "no": ("not used", "bold red"), "unclear": ("unclear", "bold yellow")}
HEAD = ("", "right", "beside clean [95 %]", "changed", "follows")
FOLLOWS = "follows: answers that are those of whom the thoughts are from, where the question has another"


def tables(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield heading(summary, f"its thoughts dropped, replaced, moved, interchanged; seed {summary['seed']}")
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


def _table(summary: Mapping[str, Any]) -> Table:
    table = studytable(*HEAD)
    table.columns[0].no_wrap = False
    table.add_row("as they are", _rate(summary["clean"]), "", "", "", style="bold")
    group = ""
    for row in summary["rows"]:
        if row["group"] != group:
            group = row["group"]
            table.add_section()
        gap, follows = row["difference"], row["follows"]
        line = [row["title"], _rate(row["accuracy"]), apart(gap) if gap else ""]
        table.add_row(*line, _rate(row["changed"]), _rate(follows) if follows else "")
    return table


def _rate(found: Mapping[str, Any]) -> str:
    return "" if found["rate"] is None else f"{found['rate']:.1%}"
