"""`coconut-lm plan`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from coconut_lm import completion


def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Keys that differ from the file's.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    devices: Annotated[int, typer.Option(metavar="N", min=1, help="GPUs, of all machines together.")] = 1,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", min=0.001, help="Memory of one; that of --device if given.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its kind, for memory and time: a100-80, h100, ...")
    ] = None,
    length: Annotated[
        int | None, typer.Option(metavar="T", min=2, help="Tokens of a row; those of the data unless given.")
    ] = None,
    model_config: Annotated[
        Path | None, typer.Option("--model-config", metavar="FILE", help="config.json of the model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Memory, passes and operations of a run, computed before it is started; and what would take less."""
    from coconut_lm import plan as room
    from coconut_lm.config import load
    from coconut_lm.dataview import show
    from coconut_lm.planview import as_json as for_machines
    from coconut_lm.planview import tables
    from coconut_lm.terminal import busy, say

    kind = room.device_named(device) if device else None
    given = memory if memory is not None else kind.memory if kind else None
    limit = None if given is None else given * room.GIB
    with busy("counting"):
        found = room.plan(
            load(config, overrides or (), check_files=False),
            devices=devices,
            memory_bytes=limit,
            length=length,
            device=kind,
            model_config=model_config,
        )
        helps = room.remedies(found, model_config)
    if as_json:
        say(json.dumps(for_machines(found, helps, limit), indent=2))
    else:
        fitting = limit is not None and found.fits(limit)
        show(*tables(found, [] if fitting else helps, limit))
