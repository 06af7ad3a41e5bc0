"""`coconut-lm report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Folders of runs: save_path/name. Or of an evaluation, or a study."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PAGE|DIR",
            help="X.html, or a folder for report.html. RUN/report.html, or ./report.html for several.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Heading of the page.")] = None,
) -> None:
    """Turn runs into one page: results, curves, thoughts and examples. Never loads a model."""
    from coconut_lm import report
    from coconut_lm.terminal import busy, say

    with busy("drawing"):
        page, pieces = report.write(runs, out, title)
    say(f"wrote {page}")
    say(f"wrote {pieces}/summary.md, summary.csv, and each plot as PNG and SVG")
