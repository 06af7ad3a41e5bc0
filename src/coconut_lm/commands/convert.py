"""`coconut-lm convert`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint: a file, a folder, or a run's folder.")
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="The folder (hf, mlx) or file to write.")
    ],
    to: Annotated[
        Literal["hf", "official", "mlx", "mlx-file"],
        typer.Option(
            help="hf: our folder; official: the published code's file; mlx: a folder that mlx_lm loads; "
            "mlx-file: mlx-coconut's file."
        ),
    ],
    config: Annotated[
        str | None,
        typer.Option(metavar="BASE", help="The base: config JSON, folder or hub id; or the run's YAML."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The tokenizer; the base's own unless said.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="METHOD", help="Where it shall be of another than the weights are.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Work adapters into the base's weights.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Bring a checkpoint from one format into another, with equal logits."""
    from coconut_lm import export
    from coconut_lm.conversion import open_any
    from coconut_lm.files import refuse_overwrite, refuse_overwrite_folder
    from coconut_lm.terminal import busy, say

    files = {"official": export.to_official, "mlx-file": export.to_mlx_file}
    (refuse_overwrite if to in files else refuse_overwrite_folder)(destination, force)
    with busy(f"reading {source}"):
        opened = open_any(source, config=config, tokenizer=tokenizer, method=method, merge=merge)
    with busy(f"writing {destination}"):
        if to in files:
            files[to](opened.model, destination, force=force)
        else:
            write = export.to_hf if to == "hf" else export.to_mlx
            write(
                opened.model,
                opened.tokenizer,
                destination,
                config=opened.config,
                progress=opened.progress,
                force=force,
            )
    thinks = "thinks" if opened.model.config.thinks else "does not think"
    say(f"{source} ({opened.kind}, {thinks}) is {destination} ({to})")
