"""`coconut-lm quickstart`."""

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where it all goes.")] = Path(
        "demo"
    ),
    minutes: Annotated[
        float,
        typer.Option(
            metavar="M", min=0.05, help="How much is learned: about so long on two cores, longer on one."
        ),
    ] = 8.0,
    seed: Annotated[
        int,
        typer.Option("--seed", "-s", metavar="S", min=0, max=2**32 - 1, help="Seed of everything random."),
    ] = 0,
) -> None:
    """Watch small models learn on this CPU to follow a graph, one of them without writing its steps.

    The same command goes on after a stop.
    """
    from coconut_lm import quickstart
    from coconut_lm.demoview import Demo

    with Demo() as onlooker:
        quickstart.run(out=out, minutes=minutes, seed=seed, onlooker=onlooker)
