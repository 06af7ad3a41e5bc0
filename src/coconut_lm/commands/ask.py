"""`coconut-lm ask`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coconut_lm.commands.eval import Backend

if TYPE_CHECKING:
    from rich.table import Table

    from coconut_lm.assembly import Loaded
    from coconut_lm.lens import Answer, Thought

MOST = 64  # answers to one question


def ask(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, a run folder, or a model's id.")
    ],
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="What is asked; - reads it from stdin.")
    ] = None,
    thoughts: Annotated[
        str | None, typer.Option(metavar="N", help="How many: 3, or 0-6 for each of these in turn.")
    ] = None,
    stage: Annotated[
        int | None, typer.Option(metavar="K", min=0, help="Stage; the checkpoint's own unless said.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens shown of each thought.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")] = 128,
    backend: Backend = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run's YAML, for weights that come alone.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Ask on and on; Ctrl-D ends it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object for each question.")] = False,
) -> None:
    """Ask one question: the answer, and what the thoughts before it say."""
    from coconut_lm.assembly import open_checkpoint
    from coconut_lm.config import load
    from coconut_lm.exam import placed
    from coconut_lm.terminal import busy

    asked = _asked(question, interactive)
    counts = _counts(thoughts)
    with busy("loading"):
        loaded = open_checkpoint(checkpoint, load(config, check_files=False) if config else None)
        loaded = placed(loaded, backend)
    options = {"stage": stage, "top": top, "max_new_tokens": max_new_tokens}
    if interactive:
        _talk(loaded, counts, options, as_json)
    else:
        _answer(loaded, asked, counts, options, as_json)


def _asked(question: str | None, interactive: bool) -> str:
    import sys

    from coconut_lm.errors import UserError

    if interactive == (question is not None):
        given = "a question and --interactive" if interactive else "no question"
        raise UserError("what is asked?", given=given, expected="a question, - or --interactive")
    return sys.stdin.read().strip() if question == "-" else question or ""


def _counts(written: str | None) -> list[int] | None:
    """3 is [3]; 0-6 is from 0 to 6."""
    import re

    from coconut_lm.errors import UserError

    if written is None:
        return None
    found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", written.strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not 0 <= last - first < MOST:
        raise UserError(
            "impossible number of thoughts", given=written, expected=f"3, or 0-6 ({MOST} numbers at most)"
        )
    return list(range(first, last + 1))


def _talk(loaded: "Loaded", counts: list[int] | None, options: dict[str, Any], as_json: bool) -> None:
    """Question after question. What is wrong with one does not end it."""
    from coconut_lm.errors import UserError
    from coconut_lm.terminal import complain, note, typed

    note("a question a line; /thoughts 3 or /thoughts 0-6 sets their number; Ctrl-D ends")
    for line in typed("? "):
        try:
            command, _, rest = line.partition(" ")
            if command == "/thoughts":
                counts = _counts(rest or None)
            elif command.startswith("/"):
                raise UserError("unknown command", given=command, expected="/thoughts N")
            else:
                _answer(loaded, line, counts, options, as_json)
        except UserError as error:
            complain(error)


def _answer(
    loaded: "Loaded", question: str, counts: list[int] | None, options: dict[str, Any], as_json: bool
) -> None:
    import json

    from coconut_lm.lens import ask
    from coconut_lm.terminal import say

    answers = ask(loaded, question, counts, **options)
    if as_json:
        told = {"question": question, "method": loaded.method}
        say(json.dumps(told | {"answers": [each.to_json() for each in answers]}, ensure_ascii=False))
    else:
        _show(answers)


def _show(answers: "Sequence[Answer]") -> None:
    """Every answer, and the thoughts of the one that has most: those of the others are its first ones."""
    from coconut_lm.dataview import show
    from coconut_lm.terminal import say

    for each in answers:
        kind = "thought" if each.thoughts or not each.slots else "pause"
        cut = "" if each.ended else " ..."
        lines = f"{each.output.strip()}{cut}".replace("\n", "\n    ")
        say(f"{each.slots} {kind}{'s' * (each.slots != 1)}: {lines}")
    most = max(answers, key=lambda each: len(each.thoughts)).thoughts
    if most:
        show("", _table(most))


def _table(thoughts: "Sequence[Thought]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("thought", "norm", "of embeddings'", "entropy"):
        table.add_column(name, justify="right")
    table.add_column("would be written as")
    for number, thought in enumerate(thoughts, start=1):
        figures = (f"{thought.norm:.2f}", f"{thought.norm_ratio:.2f}", f"{thought.entropy:.2f}")
        table.add_row(str(number), *figures, Text("  ".join(_words(thought))))
    return table


def _words(thought: "Thought") -> Iterator[str]:
    for text, probability in thought.tokens:
        shown = text if text.isprintable() and text.strip() else repr(text)
        yield f"{shown}\u00a0{probability:.0%}"  # a token is not parted from its share
