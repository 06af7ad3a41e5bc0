"""What `plan` looks like: the stages, the memory, what would take less; and the same for machines."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coconut_lm.plan import GIB, LADDER, Cost, Memory, Plan, Remedy
from coconut_lm.traffic import Sharing

NAMES: dict[Sharing, str] = {
    "one": "one device",
    "copies": "a copy on each",
    "step": "fsdp: step",
    "shards": "fsdp: full",
}


def tables(plan: Plan, remedies: list[Remedy], memory: float | None) -> Iterator[RenderableType]:
    sizes = plan.sizes
    yield Text.assemble(
        (plan.config.model_id or plan.config.model_config_path or "model", "bold"),
        f": {_short(sizes.parameters)} parameters, {_short(sizes.trained)} trained,"
        f" on {plan.devices} {'device' if plan.devices == 1 else 'devices'}\n",
    )
    yield Group(_stages(plan), "")
    yield Group(_memory(plan), "")
    if memory is not None:
        most = plan.worst().total / GIB
        word = Text("it fits", "green") if plan.fits(memory) else Text("it does not fit", "bold red")
        yield Text.assemble(word, f": {most:.1f} GiB of {memory / GIB:g} on a device\n")
    if remedies:
        yield Group(_remedies(remedies, memory), "")
    for remark in plan.remarks:
        yield Text(remark, "dim")


def as_json(plan: Plan, remedies: list[Remedy], memory: float | None) -> dict[str, Any]:
    return {
        "model": plan.config.model_id,
        "parameters": plan.sizes.parameters,
        "trained": plan.sizes.trained,
        "devices": plan.devices,
        "sharing": plan.sharing,
        "examples": plan.examples,
        "memory_per_device": plan.worst().total,
        "fits": None if memory is None else plan.fits(memory),
        "stages": [_stage_json(each) for each in plan.costs],
        "remedies": [{"keys": list(each.keys), "memory_per_device": each.bytes} for each in remedies],
        "remarks": list(plan.remarks),
    }


def _stage_json(cost: Cost) -> dict[str, Any]:
    return {
        **asdict(cost.stage),
        "passes": cost.passes,
        "flops_per_example": cost.flops,
        "steps_per_epoch": cost.steps,
        "seconds_per_epoch": cost.seconds,
        "sent_per_step": cost.sent,
        "memory": {kind: {**asdict(each), "total": each.total} for kind, each in cost.memory.items()},
    }


def _stages(plan: Plan) -> Table:
    table = _table("stage", "epochs", "thoughts", "passes", "columns", "steps", "FLOPs a row", "time", "GiB")
    for cost in plan.costs:
        stage = cost.stage
        table.add_row(
            "all" if stage.stage > 10**6 else str(stage.stage),  # icot counts the tokens that are gone
            str(stage.epochs),
            str(stage.load.thoughts),
            str(cost.passes),
            str(stage.load.columns),
            f"{cost.steps:,}" if cost.steps else "?",
            f"{cost.flops:.2g}",
            _time(cost.seconds),
            f"{cost.memory[plan.sharing].total / GIB:.1f}",
        )
    table.caption = "steps and time are those of one epoch"
    return table


def _memory(plan: Plan) -> Table:
    kinds: list[Sharing] = ["one"] if plan.devices == 1 else list(LADDER)
    table = _table("GiB on a device", *(NAMES[kind] + " *" * (kind == plan.sharing) for kind in kinds))
    worst = [plan.worst(kind) for kind in kinds]
    for name in Memory.__dataclass_fields__:
        table.add_row(name, *(f"{getattr(each, name) / GIB:.2f}" for each in worst))
    table.add_row("total", *(f"{each.total / GIB:.2f}" for each in worst), style="bold")
    if plan.devices > 1:
        most = (max(cost.sent[kind] for cost in plan.costs) / GIB for kind in kinds)
        table.add_row("sent in a step", *(f"{each:.2f}" for each in most))
    table.caption = "at the worst moment of a step; * is what the configuration says"
    return table


def _remedies(remedies: list[Remedy], memory: float | None) -> Table:
    table = _table("what takes less", "GiB")
    for each in remedies:
        fits = memory is not None and each.bytes <= memory
        table.add_row(" ".join(each.keys), f"{each.bytes / GIB:.1f}", style="green" if fits else "")
    return table


def _table(first: str, *rest: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def _short(count: float) -> str:
    for unit in ("", "K", "M"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}B"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, seconds / 60):.0f} min"
