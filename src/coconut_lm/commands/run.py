"""`coconut-lm run`."""

from typing import Annotated

import typer

from coconut_lm import completion


def run(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file, or a run's folder to go on with.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Keys that differ from the file's.",
            autocompletion=completion.overrides,
        ),
    ] = None,
) -> None:
    """Train, or evaluate where the configuration says only_eval. The same command goes on after a stop.

    On several devices: torchrun --nproc_per_node 4 -m coconut_lm run CONFIG
    """
    from coconut_lm import launch
    from coconut_lm.dataview import show
    from coconut_lm.evalview import tables, watched
    from coconut_lm.runfolder import RunFolder
    from coconut_lm.terminal import note, say
    from coconut_lm.trainview import Live, table

    settings = launch.configuration(config, overrides or [])
    if settings.only_eval:
        if found := launch.evaluate_once(settings, watched):
            metrics, folder = found
            show(*tables(metrics))
            note(f"files in {folder}")
        return
    if not launch.is_first():
        launch.run(settings)
        return
    with Live(settings.num_epochs) as watch:
        finished = launch.run(settings, watch)
    if not finished:
        note(f"stopped; to go on: coconut-lm run {settings.run_dir}")
        return
    if not watch.epochs_done:
        note("nothing is left to train; num_epochs=... (and max_steps) say how far to go on")
    say(table(RunFolder(settings.run_dir).logged("epoch")))
    say(f"run folder: {settings.run_dir}")
