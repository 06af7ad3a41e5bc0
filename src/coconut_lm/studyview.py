"""What studies look like while they are carried out, and a sweep at its end."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coconut_lm import terminal
from coconut_lm.dataview import show
from coconut_lm.summary import apart, with_interval
from coconut_lm.tally import rate
from coconut_lm.terminal import complain, follow, note, say
from coconut_lm.trials import Found, too_many

Summary = Mapping[str, Any]


def watched(found: Iterable[Found], total: int) -> Iterator[Found]:
    """The rows of one trial as they come, with a bar; then a line of what it came to."""
    verdicts: list[bool] = []
    name, failed = "", 0

    def says(row: Found) -> str:
        return f"{row['trial']}: {sum(verdicts)} of {len(verdicts)} right"

    def counted() -> Iterator[Found]:
        nonlocal name, failed
        for row in found:
            name = row["trial"]
            if not row["success"]:
                failed += 1
            elif not row.get("branch"):  # those of one example are no further examples
                verdicts.append(row["correct"])
            yield row

    yield from follow(counted(), total, says)
    lost = f", {failed} failed" if failed else ""
    note(f"{name:<28} {with_interval(rate(verdicts)):>22}{lost}")


def told(summary: Summary, things: Iterable[RenderableType], folder: Path, as_json: bool) -> None:
    """What a study came to. Exit code 1 where too much of it failed."""
    if as_json:
        say(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        show(*things)
    note(f"files in {folder}")
    lost = summary["failed"]
    if lost["n"]:
        failed = f"{lost['n']:,} of {lost['of']:,} answers failed: predictions.jsonl says why"
        if too_many(lost):
            complain(f"{failed}\n  do:      mend it and give the same command again: it asks only these")
            raise typer.Exit(1)
        note(failed)


def heading(summary: Summary, what: str) -> Text:
    """What was asked of whom."""
    thoughts = summary["thoughts"]
    slots = "thoughts as many as each example has" if thoughts is None else f"{thoughts} thoughts"
    told = f" on {summary['data']}: {summary['task']}, n = {summary['n']:,}, {slots}\n{what}\n"
    return Text.assemble((summary["checkpoint"], "bold"), told)


def table(*columns: str) -> Table:
    """As narrow as its figures are."""
    made = terminal.table(*columns, collapse_padding=True)
    for column in made.columns:
        column.no_wrap = True
    return made


def sweep(summary: Summary) -> Iterator[RenderableType]:
    """A sweep: its curves, and where they fall."""
    where = summary["where"] if isinstance(summary["where"], str) else f"thought {summary['where']}"
    layer = "" if summary["layer"] == -1 else f", thoughts of layer {summary['layer']}"
    schedule = "" if summary["schedule"] == "constant" else f", schedule {summary['schedule']}"
    yield heading(summary, f"noise on thoughts ({where}{layer}{schedule}), seed {summary['seed']}")
    made = table("", "accuracy [95 %]", "beside clean [95 %]", "p", "noise")
    for name, found in summary["baselines"].items():
        made.add_row(name, with_interval(found))
    for curve in summary["curves"]:
        made.add_section()
        made.add_row(f"[bold]{curve['noise']}[/]")
        for point in curve["points"]:
            made.add_row(f"  {point['scale']:g}", *_point(point))
    yield made
    yield Text("p: McNemar's, each scale by itself; noise: how long beside the thought\n", "dim")
    yield from (Text(line) for line in _falls(summary["curves"]))
    best = max(summary["floors"].items(), key=lambda each: each[1]["rate"], default=None)
    if best:
        yield Text(f"best shortcut: {best[0].replace('_', ' ')}, {with_interval(best[1])}", "dim")


def _point(point: Mapping[str, Any]) -> Sequence[str]:
    told = point["diagnostics"]
    ratio = f"{told['noise_norm'] / told['original_norm']:.2f}" if told and told["original_norm"] else ""
    against = (apart(point["difference"]), f"{point['difference']['p']:.1g}") if told else ("", "")
    return [with_interval(point["accuracy"]), *against, ratio]


def _falls(curves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for curve in curves:
        below = curve["first_below_half"]
        fits = sorted(curve["fits"], key=lambda each: -each["r2"])[:1]
        fitted = "".join(f"; best fit {each['formula']}, R2 {each['r2']:.3f}" for each in fits)
        yield (
            f"{curve['noise']}: "
            + (f"under 50 % from {below:g} on" if below is not None else "never under 50 %")
            + fitted
        )
