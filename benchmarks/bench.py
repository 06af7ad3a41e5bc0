"""Ours against the published algorithm (`reference.py`), on this machine: seconds and memory of a training
step, and seconds of a set of answers.

Each side has a model of its own with the same random weights, without dropout, in float32: the reference's as
transformers builds it, ours as `coconut_lm` takes it over. Nothing is downloaded. Seconds are medians of
interleaved runs after a warm-up. Memory is measured in a process for each side: its highest resident size in
one step, less what it held once weights and AdamW's moments were there.

Shapes: B rows, T columns.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import reference
import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel
from workload import SHAPES, Work, build_base, build_model, make_prompts, training_batch

from coconut_lm.files import atomic_write

SIDES = ("ours", "reference")
NEVER = -1  # an end token that no model writes: every answer gets its full length
LOSS_TOLERANCE = 1e-4  # absolute for losses, relative for gradient norms
# Makes glibc return freed tensors at once: left to itself it keeps most, and hides what a step needs.
GIVE_BACK = ("MALLOC_MMAP_THRESHOLD_", "131072")
TARGETS = {"step": ("at least", 1.7), "memory": ("at most", 0.5), "answers": ("at least", 50.0)}


# A training step


def build(side: str, work: Work) -> PreTrainedModel:
    return build_model(work) if side == "ours" else build_base(work)


def forward_of(side: str, model: PreTrainedModel, work: Work) -> Callable[[], Any]:
    """A side's forward: what it returns begins with the loss, and is held until the step ends."""
    batch = training_batch(work)
    if side == "reference":
        return lambda: reference.reference_loss(model, work.latent, **batch)
    first = work.question + 1
    return lambda: model(**batch, columns=range(first, first + work.thoughts))


def train_step(forward: Callable[[], Any], optimizer: torch.optim.Optimizer) -> None:
    outputs = forward()
    outputs[0].backward()
    optimizer.step()
    optimizer.zero_grad()


def settled_adamw(side: str, model: PreTrainedModel) -> torch.optim.AdamW:
    """Torch's default for the reference, its fused one for us. It has its moments already, made one parameter
    at a time to leave no peak behind."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if side == "ours" else None)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        parameter.grad = None
    return optimizer


def same_loss(models: dict[str, PreTrainedModel], work: Work) -> dict[str, Any]:
    """Both sides' loss and gradient norm on the same weights."""
    figures: dict[str, Any] = {}
    for side, model in models.items():
        loss = forward_of(side, model, work)()[0]
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        figures[side] = {"loss": loss.item(), "gradient_norm": norm.item()}
    ours, theirs = figures["ours"], figures["reference"]
    close = abs(ours["loss"] - theirs["loss"]) < LOSS_TOLERANCE
    gradients = abs(ours["gradient_norm"] / theirs["gradient_norm"] - 1) < LOSS_TOLERANCE
    return figures | {"same": close and gradients}


def time_steps(models: dict[str, PreTrainedModel], work: Work, repeats: int) -> dict[str, list[float]]:
    steps = {
        side: (forward_of(side, model, work), settled_adamw(side, model)) for side, model in models.items()
    }
    for step in steps.values():
        train_step(*step)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, step in steps.items():
            seconds[side].append(timed(train_step, *step)[0])
    return seconds


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


# Its memory


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def highest() -> int:
    """The process's largest resident size so far, in bytes (Linux counts in KiB)."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def memory_of(side: str, work: Work, threads: int) -> dict[str, int]:
    """Bytes: after imports, once weights and moments are there, at the highest, and the step's share."""
    torch.set_num_threads(threads)
    imports = resident()
    model = build(side, work)
    optimizer = settled_adamw(side, model)
    forward = forward_of(side, model, work)
    ready, before = resident(), highest()
    train_step(forward, optimizer)
    peak = highest()
    return {"imports": imports, "ready": ready, "setup_peak": before, "peak": peak, "step": peak - ready}


def measure_memory(work: Work, threads: int) -> dict[str, dict[str, int]]:
    """Must come before this process grows: a child's highest size starts at that of its parent."""
    os.environ.setdefault(*GIVE_BACK)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        return {side: pool.submit(memory_of, side, work, threads).result() for side in SIDES}


# Answers


def generate(model: PreTrainedModel, prompts: Sequence[list[int]], work: Work) -> list[list[int]]:
    """The new tokens of every prompt: padded on the left, like lengths together."""
    answers: dict[int, list[int]] = {}
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), work.generate_batch):
        numbers = order[start : start + work.generate_batch]
        length = max(len(prompts[number]) for number in numbers)
        pads = [length - len(prompts[number]) for number in numbers]
        fill = model.config.pad_token_id
        ids_BT = torch.tensor([[fill] * pad + prompts[n] for pad, n in zip(pads, numbers, strict=True)])
        mask_BT = (torch.arange(length) >= torch.tensor(pads)[:, None]).long()
        out_BT = model.generate(
            ids_BT, attention_mask=mask_BT, max_new_tokens=work.new_tokens, do_sample=False
        )
        answers |= zip(numbers, out_BT[:, length:].tolist(), strict=True)
    return [answers[number] for number in range(len(prompts))]


def near_mean(prompts: Sequence[list[int]], number: int) -> list[int]:
    """Which prompts stand for all: those nearest to the mean length."""
    mean = statistics.mean(len(ids) for ids in prompts)
    return sorted(range(len(prompts)), key=lambda n: abs(len(prompts[n]) - mean))[:number]


def measure_answers(
    models: dict[str, PreTrainedModel], work: Work, measured: int, repeats: int
) -> dict[str, Any]:
    """Ours on all prompts, the reference on `measured` of them, scaled; what both wrote must be the same."""
    ours, theirs = (models[side].eval() for side in SIDES)
    prompts = make_prompts(work)
    # Prompts that stand for all are alike: a median bears a stall. All of them differ: their mean counts.
    middle = statistics.mean if measured == work.prompts else statistics.median
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    same = True
    generate(ours, prompts[:2], replace(work, new_tokens=2))
    reference.reference_generate(theirs, work.latent, NEVER, prompts[0], 2)
    chosen = near_mean(prompts, measured)
    for turn in range(max(repeats, measured)):
        if turn < repeats:
            took, answers = timed(generate, ours, prompts, work)
            seconds["ours"].append(took)
        ids = prompts[chosen[turn % measured]]
        took, text = timed(reference.reference_generate, theirs, work.latent, NEVER, ids, work.new_tokens)
        seconds["reference"].append(took)
        same = same and text[len(ids) :] == answers[chosen[turn % measured]]
    return {
        "ours_seconds": statistics.median(seconds["ours"]),
        "reference_seconds": middle(seconds["reference"]) * work.prompts,
        "reference_prompts_measured": measured,
        "samples": seconds,
        "same": same,
    }


# The report


@dataclass
class Result:
    machine: dict[str, Any]
    shape: str
    work: Work
    memory: dict[str, dict[str, int]]
    same_loss: dict[str, Any]
    step_seconds: dict[str, list[float]]
    answers: dict[str, Any]

    @property
    def same(self) -> bool:
        return self.same_loss["same"] and self.answers["same"]

    def lines(self) -> dict[str, tuple[float, float, float]]:
        """What is compared: ours, the reference, and the ratio that the target speaks of."""
        step = [statistics.median(self.step_seconds[side]) for side in SIDES]
        memory = [self.memory[side]["step"] for side in SIDES]
        answers = [self.answers[f"{side}_seconds"] for side in SIDES]
        return {
            "step": (step[0], step[1], step[1] / step[0]),
            "memory": (memory[0], memory[1], memory[0] / max(memory[1], 1)),
            "answers": (answers[0], answers[1], answers[1] / answers[0]),
        }


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "date": date.today().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def to_json(result: Result) -> dict[str, Any]:
    step, memory, answers = map(compared, result.lines().values())
    return {
        "machine": result.machine,
        "shape": result.shape,
        "work": asdict(result.work),
        "step": step | {"unit": "seconds", "samples": result.step_seconds},
        "memory": memory | {"unit": "bytes", "processes": result.memory},
        "answers": answers | {"unit": "seconds"} | result.answers,
        "same_loss": result.same_loss,
        "same": result.same,
    }


def compared(line: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("ours", "reference", "ratio"), line, strict=True))


def show(console: Console, result: Result) -> None:
    work, machine = result.work, result.machine
    console.print(
        f"{machine['date']}  {machine['processor']}, {machine['threads']} of {machine['cores']} cores, "
        f"load {machine['load']} before\n"
        f"torch {machine['torch']}, transformers {machine['transformers']}\n"
        f"{result.shape}: {work.layers} layers, width {work.width}, {work.heads} heads, "
        f"vocabulary {work.vocabulary} + 3, {work.thoughts} thoughts, float32"
    )
    console.print(table(result))
    loss, answers = result.same_loss, result.answers
    console.print(
        f"same: {'yes' if result.same else 'NO'}\n"
        f"  loss {loss['ours']['loss']:.6f} and {loss['reference']['loss']:.6f}, gradient norm "
        f"{loss['ours']['gradient_norm']:.6f} and {loss['reference']['gradient_norm']:.6f}\n"
        f"  every token of {answers['reference_prompts_measured']} greedy answers: "
        f"{'yes' if answers['same'] else 'NO'}"
    )


def table(result: Result) -> Table:
    work, measured = result.work, result.answers["reference_prompts_measured"]
    scaled = "" if measured == work.prompts else f"\n{measured} of {work.prompts} prompts measured, scaled"
    names = {
        "step": f"training step, {work.batch} x {work.columns}",
        "memory": "its memory, above set-up",
        "answers": f"{work.prompts} answers of {work.new_tokens} tokens" + scaled,
    }
    grid = Table("", "ours", "reference", "ratio", "target")
    for column in grid.columns[1:]:
        column.justify = "right"
    for key, (ours, theirs, ratio) in result.lines().items():
        said = " ".join(map(str, TARGETS[key])) if result.shape == "small" else ""
        grid.add_row(names[key], figure(key, ours), figure(key, theirs), f"{ratio:.2f}", said)
    for key, name in {"imports": "set-up: imports", "ready": "and weights, optimizer"}.items():
        grid.add_row(name, *(figure("memory", result.memory[side][key]) for side in SIDES), "", "")
    return grid


def figure(key: str, value: float) -> str:
    return f"{value / 2**20:,.0f} MiB" if key == "memory" else f"{value:.3g} s"


def command_line() -> tuple[argparse.Namespace, Work]:
    """The command line, and the shape it names with what it changes."""
    parser = argparse.ArgumentParser(description="Ours against the published algorithm, on this machine.")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    for name in (entry.name for entry in fields(Work)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="instead of the shape's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--reference-prompts", type=int, default=2, help="measured; the rest is scaled")
    parser.add_argument("--json", type=Path, help="a file for the same figures and every sample")
    options = parser.parse_args()
    changes = {entry.name: getattr(options, entry.name) for entry in fields(Work)}
    work = replace(SHAPES[options.shape], **{key: new for key, new in changes.items() if new is not None})
    low = min(*asdict(work).values(), options.threads, options.repeats, options.reference_prompts)
    if low < 1 or work.question < 2 or options.reference_prompts > work.prompts:
        parser.error("numbers must be positive, columns leave room for a question, and prompts be enough")
    return options, work


def main() -> int:
    options, work = command_line()
    torch.set_num_threads(options.threads)
    console = Console()
    where = machine() | {"threads": options.threads}
    with console.status("memory, a process for each side"):
        memory = measure_memory(work, options.threads)
    models = {side: build(side, work) for side in SIDES}
    with console.status("a training step"):
        loss = same_loss(models, work)
        seconds = time_steps(models, work, options.repeats)
    models = {side: build(side, work) for side in SIDES}  # training has driven the others apart
    with console.status("answers"):
        answers = measure_answers(models, work, options.reference_prompts, options.repeats)
    result = Result(where, options.shape, work, memory, loss, seconds, answers)
    show(console, result)
    if options.json:
        with atomic_write(options.json) as file:
            json.dump(to_json(result), file, indent=1)
    return 0 if result.same else 1


if __name__ == "__main__":
    raise SystemExit(main())
