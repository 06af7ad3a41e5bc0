"""`coconut-lm quickstart`."""

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where it all goes.")] = Path(
        "demo"
    ),
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may train.")] = 2.0,
    seed: Annotated[
        int, typer.Option("--seed", "-s", metavar="S", min=0, help="Seed of everything random.")
    ] = 0,
) -> None:
    """Watch a small model learn on this CPU to follow a graph without writing its steps."""
    from coconut_lm import quickstart

    quickstart.run(out=out, minutes=minutes, seed=seed)
