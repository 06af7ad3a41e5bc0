"""`coconut-lm check`."""

from typing import Annotated

import typer

from coconut_lm import completion


def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file that trains.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Keys that differ from the file's.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="The checklist alone, without what it is of.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Look at a run before it is trained: data, rows, passes, losses, gradients, a first answer, memory.

    The exit code is 1 where something is off.
    """
    import json

    from rich.text import Text

    from coconut_lm.checkup import Checkup
    from coconut_lm.dataview import show
    from coconut_lm.launch import configuration
    from coconut_lm.terminal import busy, say

    with busy("loading"):
        checkup = Checkup.of(configuration(config, overrides or []))
    findings = []
    for finding in checkup:
        findings.append(finding)
        if not as_json:
            mark = ("ok   ", "green") if finding.ok else ("OFF  ", "bold red")
            show(Text.assemble(mark, (finding.name, "bold"), "  ", finding.detail))
            if finding.shown and not brief:
                show("", *finding.shown, "")
    if as_json:
        say(json.dumps([each.to_json() for each in findings], indent=2, ensure_ascii=False))
    if not all(each.ok for each in findings):
        raise typer.Exit(1)
