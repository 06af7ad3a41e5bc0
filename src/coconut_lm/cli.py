"""The commands. A user's mistake is one message and exit code 2; an interruption is one word and 130."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coconut_lm import datacli


class Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        from coconut_lm.errors import UserError
        from coconut_lm.terminal import complain, note

        try:
            return super().invoke(ctx)
        except UserError as error:
            complain(error)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            note("stopped")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(datacli.app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from coconut_lm import __version__

        typer.echo(f"coconut-lm {__version__}")
        raise typer.Exit


@app.callback()
def coconut_lm(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, evaluate, explain and serve language models that reason in a continuous latent space."""


@app.command(epilog="Example: coconut-lm quickstart --out demo --seed 1")
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


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a letter shall not end the command
    app(prog_name="coconut-lm")
