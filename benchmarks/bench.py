"""Ours against the published algorithm (`reference.py`) and against one plain pass, on this machine.

    python benchmarks/bench.py --only steps,answers --threads 2

Sections are measured one after the other, in this process but for memory and start-up; the sides of a figure
are interleaved, and medians are compared. Ctrl-C ends with what was measured so far. The exit code is 1 where
we did not compute what the reference does.
"""

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import answers
import growth
import memory
import onmlx
import padding
import plumbing
import steps
import torch
from clock import Effort
from figure import Figure, Job
from rich.console import Console
from rich.status import Status
from tables import table, verdict

from coconut_lm import backend, environment
from coconut_lm.files import atomic_write

Measure = Callable[[Job], Iterator[Figure]]
SECTIONS: dict[str, Measure] = {
    "steps": steps.measure,
    "padding": padding.measure,
    "answers": answers.measure,
    "memory": memory.measure,
    "plumbing": plumbing.measure,
    "growth": growth.measure,
    "mlx": onmlx.measure,
}
HERE = Path(__file__).parent
INTERRUPTED = 130
PATIENCE = {"cpu": 60.0, "cuda": 15.0, "mps": 60.0}  # seconds for one figure, about


@dataclass
class Report:
    """Tables on the screen as sections end; a file with all there is, written anew with each figure."""

    status: Status
    file: Path
    about: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    whole: bool = False

    def section(self, name: str, coming: Iterable[Figure]) -> None:
        before = len(self.figures)
        try:
            for figure in coming:
                self.figures.append(figure)
                self.write()
                gc.collect()  # models that point at themselves
        finally:
            if self.figures[before:]:
                self.say(table(name, self.figures[before:]))

    def say(self, what: Any) -> None:
        self.status.stop()
        piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        Console(highlight=False, width=160 if piped else None).print(what)
        self.status.start()

    def write(self) -> None:
        with atomic_write(self.file) as file:
            figures = [figure.to_json() for figure in self.figures]
            json.dump(self.about | {"whole": self.whole, "figures": figures}, file, indent=1)

    def end(self) -> int:
        self.write()
        self.say(verdict(self.figures))
        return INTERRUPTED if not self.whole else int(any(each.same is False for each in self.figures))


def main(words: Sequence[str] | None = None) -> int:
    options = command_line(words)
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # tokenizers'
    with Console(stderr=True).status("...", refresh_per_second=1) as status:  # drawing takes time, too
        report = Report(status, options.json, {"machine": machine(options), "options": vars_of(options)})
        report.say(introduction(report.about["machine"]))
        try:
            for name in options.only:
                report.section(name, SECTIONS[name](job(options, status)))
            if "mlx" in options.only and not backend.mlx_is_there():
                report.say("mlx: left out, for it is not installed (coconut-lm[mlx])")
            report.whole = True
        except KeyboardInterrupt:
            report.say("interrupted: this is what was measured so far")
        return report.end()


def job(options: argparse.Namespace, status: Status) -> Job:
    patience = 1.0 if options.quick else PATIENCE[options.device]
    return Job(
        device=torch.device(options.device),
        threads=options.threads,
        effort=Effort(options.repeats, least=0.0 if options.quick else 2.0, patience=patience),
        quick=options.quick,
        tokenizer=options.tokenizer,
        say=lambda text: status.update(f"{text} ..."),
    )


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What is measured on, and how busy it was before."""
    load = round(os.getloadavg()[0], 2)
    return environment.describe() | {"load": load, "threads": options.threads, "device": options.device}


def introduction(machine: dict[str, Any]) -> str:
    there = [name for name in ("torch", "transformers", "mlx") if name in machine["packages"]]
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in there)
    devices = ", ".join(device["name"] for device in machine["devices"])
    return (
        f"{machine['started'][:10]}  {machine['cpu']['name']}, {machine['threads']} of "
        f"{machine['cpu']['cores']} cores, load {machine['load']} before; {devices or 'no GPU'}\n"
        f"{versions}, Python {machine['python']}; computed on: {machine['device']}"
    )


def vars_of(options: argparse.Namespace) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def command_line(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ours against the published algorithm and a plain pass.")
    names = ",".join(SECTIONS)
    parser.add_argument("--only", type=sections, default=list(SECTIONS), help=f"some of {names}")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--threads", type=positive, default=1, help="1, as published figures for one core")
    parser.add_argument("--repeats", type=positive, default=3, help="turns of interleaved runs, at least")
    parser.add_argument("--quick", action="store_true", help="shapes that take no time: does it run?")
    parser.add_argument("--tokenizer", type=Path, help="a folder; else one is trained on the spot")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="every sample")
    options = parser.parse_args(words)
    if options.device != "cpu" and not getattr(torch, options.device).is_available():
        parser.error(f"there is no device {options.device} here")
    return options


def sections(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    return names


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
