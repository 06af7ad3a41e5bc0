"""What the demo looks like: what is learned and why, two runs at a time, then what was measured."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from coconut_lm import summary
from coconut_lm.config import Config
from coconut_lm.data.example import Example
from coconut_lm.history import Evaluation, History, Study
from coconut_lm.quickstart import HOPS, Onlooker
from coconut_lm.statistics import mcnemar, paired_difference

WHY = {
    "cot": "writes every step, then the answer. It has to guess the first step: both ways look alike.",
    "no_cot": "writes the answer at once.",
    "coconut": "goes on from cot: step after step becomes a thought, which may hold both ways.",
    "no_thoughts": "goes on from cot too: the same steps go and nothing comes in their place, as a control.",
}
STUDIED = {"robustness": "bears noise on its thoughts", "battery": "gets other thoughts than its own"}
SHOWN = ("dropped", "zero", "gaussian", "swap", "twin_swap")  # of all interventions
GUESSING = 0.5
OPENERS = {"darwin": "open", "win32": "start"}


class Demo(Onlooker):
    """On a terminal: lines and tables to stdout, bars to stderr."""

    def __init__(self) -> None:
        self.out, err = Console(highlight=False), Console(stderr=True)
        columns = ("{task.fields[run]:<12}", "{task.description:<34}", "{task.fields[figures]}")
        texts = [TextColumn(column, markup=False) for column in columns]
        self.bar = Progress(
            texts[0],
            BarColumn(24),
            TimeRemainingColumn(compact=True),
            *texts[1:],
            console=err,
            disable=not err.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.configs: Mapping[str, Config] = {}
        self.question = ""

    def __enter__(self) -> "Demo":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    # -- on the way --

    def begins(self, example: Example, graphs: int, configs: Mapping[str, Config]) -> None:
        self.configs, self.question = configs, example.question
        self._say(
            f"A graph of {len(example.extra['edges'])} edges. From the node after [R], which of the two"
        )
        self._say("nodes after [Q] is reached?\n")
        self._say(f"  {example.question}", style="cyan")
        self._say(f"  the way is {' '.join(example.steps)}, so the answer is {example.answer}\n")
        self._say(f"Small models learn this from scratch on {graphs:,} graphs: single chains with few")
        self._say("symbols first, longer ones, then graphs like this one.\n")
        for name in configs:
            self._say(f"  {name:<12} {WHY[name]}")
        self._say("")

    def told(self, run: str, what: str, figures: Any) -> None:
        if what == "epoch":
            self._epoch(run, **figures)
        elif what == "step":
            self._update(run, advance=1, figures=f"loss {figures['loss']:.3f}")
        elif what == "validated":
            self._say(self._line(run, figures))
        elif what == "examined":
            self._update(run, description="is examined", figures="")
        elif what == "studied":
            self._update(run, description=STUDIED[figures])
        elif what == "note":
            self._say(f"{run:<12} {figures}", style="yellow")

    def _epoch(self, run: str, epoch: int, stage: int, steps: int, done: int) -> None:
        config = self.configs[run]
        if run not in self.tasks:
            total = (config.num_epochs - config.resume) * steps
            self.tasks[run] = self.bar.add_task("", total=total, run=run, figures="")
        completed = (epoch - config.resume) * steps + done
        self._update(run, completed=completed, description=manner(run, stage))

    def _update(self, run: str, **changes: Any) -> None:
        if run in self.tasks:
            self.bar.update(self.tasks[run], **changes)

    def _line(self, run: str, record: Mapping[str, Any]) -> str:
        epochs = self.configs[run].num_epochs
        told = f"{run:<12} epoch {record['epoch'] + 1}/{epochs}  {manner(run, record['stage']):<34}"
        told += f"loss {summary.figure(record['train_loss'], '.3f')}  right {record['val_accuracy']:6.1%} "
        return told + f"({record['val_low']:.1%} to {record['val_high']:.1%}, n = {record['val_n']})"

    # -- in the end --

    def ends(self, out: Path, runs: Mapping[str, History], page: Path) -> None:
        found = list(runs.values())
        self.bar.stop()
        n = max(_chief(run).get("n") for run in found)
        self.out.print(
            f"\n[bold]{n:,} unseen graphs of {HOPS} steps, and the same asked of the other root[/]"
        )
        self.out.print(results(found))
        for line in (*floors(found), "", *verdicts(runs), "", *inside(found), ""):
            self._say(line)
        self.out.print(used(runs["coconut"]))
        self.out.print(noise(runs["coconut"]))
        opener = OPENERS.get(sys.platform, "xdg-open")
        self._say(f"\nAll of it, with curves and answers to leaf through: {opener} {page}", style="bold")
        self._say(f'Ask it yourself: coconut-lm ask {out / "coconut"} "{self.question}" --thoughts 0-{HOPS}')

    def _say(self, text: str, style: str = "") -> None:
        self.out.print(text, markup=False, soft_wrap=True, style=style)


def manner(run: str, stage: int) -> str:
    """How a run answers at a stage, in words."""
    if run == "no_cot":
        return "the answer alone"
    if stage == 0:
        return "every step written"
    gone = {1: "first step", HOPS: "all steps"}.get(stage, f"first {stage} steps")
    return f"{gone} {'thought' if run == 'coconut' else 'left out'}"


def _chief(run: History) -> Evaluation:
    assert run.chief is not None, "every run was examined"
    return run.chief


def results(runs: Sequence[History]) -> Table:
    """A row a run. Most can be had by guessing, so what counts is to be right whichever root is asked."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "thoughts", "tokens", "right [95 %]", "other root asked", "right on both [95 %]"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=name == "run")
    for run in runs:
        chief = _chief(run)
        table.add_row(
            run.name,
            summary.figure(chief.get("tokens", "latent"), ".0f"),
            summary.figure(chief.get("tokens", "mean"), ".1f"),
            summary.with_interval(chief.get("accuracy")),
            summary.percent(chief.get("swaps", "accuracy", "rate")),
            summary.with_interval(chief.get("swaps", "consistency")),
        )
    return table


def floors(runs: Sequence[History]) -> list[str]:
    """What can be had without following the graph."""
    rates = next((each for run in runs if (each := summary.floors_of(run))), {})
    if not rates:
        return []
    best = max(rates, key=lambda rule: rates[rule])
    return [
        f"Guessing is right {GUESSING:.0%} of the time; the best of {len(rates)} rules that skip the steps, "
        f"{summary.words(best)!r}, {rates[best]:.1%}."
    ]


def verdicts(runs: Mapping[str, History]) -> list[str]:
    """What the figures say, for better or worse."""
    thinks = runs["coconut"]
    lines = [_against(thinks, runs[other]) for other in ("cot", "no_thoughts", "no_cot")]
    if _chief(thinks).get("accuracy", "low") <= GUESSING:
        lines.append(
            "This run has not learned to think. It happens: more --minutes or another --seed may help."
        )
    return lines


def _against(thinks: History, other: History) -> str:
    pairs = summary.pairs_of(summary.verdicts(other), summary.verdicts(thinks))
    low, high = paired_difference(pairs)
    told = f"{100 * pairs.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    p = mcnemar(pairs.only_a, pairs.only_b)
    return f"coconut against {other.name:<12} {told}, paired on the same graphs, McNemar p = {p:.1g}"


def inside(runs: Sequence[History]) -> list[str]:
    """What the output layer reads in the thoughts about one graph."""
    decoded = next((run.thoughts for run in runs if run.thoughts), ())
    if not decoded:
        return []
    first = decoded[0]
    lines = [f"What the output layer reads in the thoughts about  {first['question']}"]
    for place, thought in enumerate(first["thoughts"], start=1):
        read = "  ".join(f"{word.strip() or word!r} {share:.0%}" for word, share in thought["tokens"][:4])
        lines.append(f"  thought {place}: {read}")
    return [*lines, f"  it writes: {str(first['output']).strip()}  (gold: {first['gold']})"]


def _study(run: History, kind: str) -> Study:
    """The newest is what this demo has just made."""
    return [each for each in run.studies if each.kind == kind][-1]


def used(run: History) -> Table:
    """What became of the answers with other thoughts, and what that says."""
    battery = _study(run, "battery")
    verdict = str(battery.get("verdict", "used"))
    rows, n = len(battery.all("rows")), battery.get("n")
    told = f"Are the thoughts used? [bold]{verdict}[/], by {rows} interventions on {n:,} graphs, such as:"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=told, title_justify="left", title_style="")
    for name in ("", "right [95 %]", "follows the thoughts"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("its own thoughts", summary.with_interval(battery.get("clean")), "")
    for row in battery.all("rows"):
        if row["name"] in SHOWN:
            follows = summary.percent(row["follows"]["rate"]) if row["follows"] else ""
            table.add_row(row["title"], summary.with_interval(row["accuracy"]), follows)
    return table


def noise(run: History) -> Table:
    """Right answers by kind and scale of noise on the thoughts."""
    study = _study(run, "robustness")
    curves = study.all("curves")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("noise on thoughts, right")
    table.add_column("none", justify="right")
    for point in curves[0]["points"]:
        table.add_column(f"{point['scale']:g}", justify="right")
    clean = summary.percent(study.get("baselines", "clean", "rate"))
    for curve in curves:
        rates = [summary.percent(point["accuracy"]["rate"]) for point in curve["points"]]
        table.add_row(summary.words(curve["noise"]), clean, *rates)
    return table
