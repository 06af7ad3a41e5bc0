"""The commands together. A user's mistake is one message and exit code 2; an interruption 130."""

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coconut_lm.commands import (
    ask,
    battery,
    branches,
    check,
    compare,
    convert,
    data,
    eval,
    plan,
    quickstart,
    report,
    robustness,
    run,
)


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
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: coconut-lm run configs/debug.yaml lr=1e-4")(run.run)
app.command(epilog="Example: coconut-lm check configs/debug.yaml")(check.check)
app.command(epilog="Example: coconut-lm quickstart --out demo --seed 1")(quickstart.quickstart)
app.command(epilog="Example: coconut-lm compare runs/cot runs/coconut data/valid.json --out compared")(
    compare.compare
)
app.command("eval", epilog="Example: coconut-lm eval runs/prosqa data/prosqa_test.json")(eval.evaluate)
app.command(
    epilog="Example: coconut-lm convert checkpoint_33 gsm8k-coconut --to hf --config openai-community/gpt2"
)(convert.convert)
app.command(epilog="Example: coconut-lm report runs/cot runs/coconut --out report.html")(report.report)
app.command(epilog='Example: coconut-lm ask runs/prosqa "Every wumpus is a ..." --thoughts 0-6')(ask.ask)
app.command(epilog="Example: coconut-lm plan configs/gsm8k/coconut.yaml --devices 4 --device a100-80")(
    plan.plan
)
app.command(
    epilog="Example: coconut-lm robustness runs/prosqa data/prosqa_test.json --noise all --scales 0,.1,.5,1"
)(robustness.robustness)
app.command(
    epilog="Example: coconut-lm branches runs/prosqa data/prosqa_test.json --branches 1,3,5,9 --scales .2,.5"
)(branches.branches)
app.command(epilog="Example: coconut-lm battery runs/prosqa data/prosqa_test.json")(battery.battery)
app.add_typer(data.app, name="data")


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


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a letter shall not end the command
    if not sys.stderr.isatty():
        # Of loading and downloading: nobody watches.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app(prog_name="coconut-lm")
