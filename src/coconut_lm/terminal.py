"""What commands print: results to stdout, progress and complaints to stderr."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
_LABELS = r"^  (given|expected|do):"


def say(*results: Any) -> None:
    """Results, as they are: brackets are no markup, and lines are left to the terminal to break."""
    Console(highlight=False).print(*results, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A word beside the results."""
    Console(stderr=True, highlight=False).print(text, style="dim", markup=False, soft_wrap=True)


def complain(problem: object) -> None:
    """An error that is the user's to mend."""
    text = Text.assemble(("error: ", "bold red"), str(problem))
    text.highlight_regex(_LABELS, "dim")
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a bar where someone watches."""
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


def follow(items: Iterable[T], total: int, says: Callable[[T], str]) -> Iterator[T]:
    """The items, with a bar that says something new with each, where someone watches."""
    from rich.progress import Progress

    console = Console(stderr=True)
    columns = Progress.get_default_columns()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        for item in items:
            bar.update(task, advance=1, description=says(item))
            yield item


def table(*columns: str, **more: Any) -> Table:
    """Its first column names what the others measure; `more` is what rich takes."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **more)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def typed(prompt: str) -> Iterator[str]:
    """Lines as someone types them, to the end of input; blank ones are passed over."""
    console = Console(stderr=True)
    while True:
        try:
            line = console.input(prompt)
        except EOFError:
            console.print()  # what follows shall not stand behind the prompt
            return
        if line.strip():
            yield line.strip()


def busy(what: str) -> AbstractContextManager[Any]:
    """A sign of life during work of unknown length."""
    return Console(stderr=True).status(f"{what} ...")


@contextmanager
def downloads() -> Iterator[Callable[[str, int, int | None], None]]:
    """Takes the name of a file, how many bytes have come, and how many will: a bar for each file."""
    from rich import progress as bars

    console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def update(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name)
            shown.update(tasks[name], completed=done, total=total)

        yield update
