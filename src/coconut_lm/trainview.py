"""What a run looks like: a bar with stage and loss, a line an epoch, a table in the end."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from coconut_lm.evaluate import Prediction
from coconut_lm.train import Watch

SHOWN = 5  # predictions after an epoch


class Live(Watch):
    """On the first rank's terminal; lines and the table go to stdout, the bar to stderr."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.out, err = Console(highlight=False), Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self.task: TaskID | None = None
        self.right = self.asked = 0
        self.epochs_done = 0

    def __enter__(self) -> "Live":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        self._say(text, style="yellow")

    def begins(self, text: str) -> None:
        self._say(text, style="bold")

    def epoch(self, epoch: int, stage: int, steps: int, done: int) -> None:
        self._show(f"epoch {epoch + 1}/{self.epochs}, stage {stage}", steps, done)

    def step(self, record: dict[str, Any]) -> None:
        figures = f"loss {record['loss']:.4f}  {record['tokens_per_second']:,.0f} tokens/s"
        self._advance(figures)

    def answered(self, prediction: Prediction, total: int) -> None:
        if self.asked == 0:
            self._show("validation", total, 0)
        self.asked, self.right = self.asked + 1, self.right + prediction.correct
        self._advance(f"{self.right / self.asked:.1%} right")

    def validated(self, record: dict[str, Any], predictions: Sequence[Prediction]) -> None:
        self.asked = self.right = 0
        self.epochs_done += 1
        self._say(line(record, self.epochs))
        for each in predictions[:SHOWN]:
            verdict = "right" if each.correct else "wrong"
            self._say(f"    {verdict}: {shown(each.output)}  (gold: {each.gold})", style="dim")

    def _show(self, what: str, total: int, done: int) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(what, total=total, completed=done, figures="")

    def _advance(self, figures: str) -> None:
        if self.task is not None:
            self.bar.update(self.task, advance=1, figures=figures)

    def _say(self, text: str, style: str = "") -> None:
        self.out.print(text, markup=False, soft_wrap=True, style=style)


def table(records: Sequence[dict[str, Any]]) -> Table:
    """Of all epochs, those before an interruption too."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("epoch", "stage", "train loss", "val loss", "accuracy", "95 % interval", "n", "tokens"):
        table.add_column(name, justify="right")
    for each in records:
        table.add_row(*cells(each))
    return table


def cells(record: dict[str, Any]) -> list[str]:
    losses = (record["train_loss"], record["val_loss"])
    return [
        str(record["epoch"] + 1),
        str(record["stage"]),
        *("" if loss is None else f"{loss:.4f}" for loss in losses),
        f"{record['val_accuracy']:.1%}",
        f"{record['val_low']:.1%} to {record['val_high']:.1%}",
        str(record["val_n"]),
        f"{record['val_tokens']:.1f}",
    ]


def line(record: dict[str, Any], epochs: int) -> str:
    """An epoch in one line."""
    epoch, stage, train, loss, accuracy, interval, n, tokens = cells(record)
    chains = record.get("val_cot_match")
    return (
        f"epoch {epoch}/{epochs}  stage {stage}  loss {train}  val loss {loss}  accuracy {accuracy}"
        f" ({interval}, n = {n})  {tokens} tokens" + ("" if chains is None else f"  steps match {chains:.1%}")
    )


def shown(text: str) -> str:
    """On one line, not too long."""
    flat = " / ".join(part for part in text.splitlines() if part.strip())
    return flat if len(flat) <= 100 else flat[:97] + "..."
