"""The tables of docs/scale.md for 8B and 70B on 8 to 512 GPUs: memory, bytes sent, seconds of a step.

`python benchmarks/scale.py` prints them; with `--write` they take the place of those on the page.
Nothing is measured here. What a model costs comes from `coconut_lm.costs`, what it holds from
`coconut_lm.plan`, what is sent from `coconut_lm.traffic`; this file asks them about one kind of machine.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from coconut_lm import costs, plan
from coconut_lm.config import Config, load
from coconut_lm.costs import Load
from coconut_lm.sizing import Sizes, measure, on_meta
from coconut_lm.traffic import Network, Sharing, Traffic, traffic

GPU = plan.DEVICES["h100"]
NETWORK = Network(node=8, inside=450e9, outside=50e9)  # NVLink 4 one way; a 400 Gb/s adapter for each GPU
DEVICES, THOUGHTS = (8, 64, 512), (0, 2, 6, 24)
QUESTION = ANSWER = 128
WAYS = ("full", "step", "in nodes")
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"


@dataclass(frozen=True)
class Job:
    """A model, and the rows that a GPU takes at a time."""

    name: str
    config: Config
    sizes: Sizes
    rows: int

    def load(self, thoughts: int) -> Load:
        columns = QUESTION + thoughts + 2 * (thoughts > 0) + ANSWER
        return Load(self.rows, columns, QUESTION + (thoughts > 0), thoughts, self.rows * ANSWER)


def job(name: str, rows: int) -> Job:
    given = {"method": "cot", "model_id": f"meta-llama/{name}", "bf16": True, "gradient_checkpointing": True}
    config = load(given, check_files=False)
    return Job(name, config, measure(on_meta(config)), rows)


# -- one step --


def computing(job: Job, load: Load) -> list[tuple[float, float]]:
    """Seconds of forward and backward of every pass; one of few columns takes as long as reading weights."""
    shape, found = job.sizes.shape, []
    # Layers are run again, then come the gradients of inputs and of weights.
    back = costs.flops_of_training(shape, 1, 0, recompute=True) / costs.flops_of_reading(shape, 1) - 1
    reading = (job.sizes.parameters - job.sizes.root) * 2 / (GPU.bandwidth * 1e12)
    for columns, end in load.passes:
        operations = load.rows * costs.flops_of_reading(shape, columns, end - columns)
        forward = max(operations / GPU.rate(job.config), reading)
        found.append((forward, back * forward))
    forward, backward = found[-1]
    head = costs.flops_of_logits(shape, load.supervised) / GPU.rate(job.config)
    found[-1] = (forward + head, backward + 2 * head)
    return found


def way(job: Job, load: Load, name: str) -> Traffic:
    sharing: Sharing = "step" if name == "step" else "shards"
    return traffic(job.sizes, plan.precision_of(job.config), sharing, len(load.passes))


def sending(job: Job, sent: Traffic, name: str, devices: int) -> tuple[float, float]:
    """Seconds to gather all blocks once, and to sum their gradients once: block by block."""
    layers, ranks = job.sizes.shape.layers, 8 if name == "in nodes" else devices
    gather = layers * NETWORK.ring(sent.gathered / layers, ranks)
    whole = layers * NETWORK.ring(sent.summed / layers, ranks)
    across = layers * NETWORK.across(sent.summed / layers / ranks, devices // ranks)
    return gather, whole + across


def seconds(job: Job, thoughts: int, name: str, devices: int) -> float:
    """Of a step. Within a pass, what is sent hides behind what is computed, or the other way round."""
    load = job.load(thoughts)
    sent = way(job, load, name)
    gather, whole = sending(job, sent, name, devices)
    total = NETWORK.ring(sent.root_gathered, devices) + NETWORK.ring(sent.root_summed, devices)
    for number, (forward, backward) in enumerate(computing(job, load)):
        if name == "step":
            first = number == 0
            total += max(forward, gather * first) + max(backward, whole * first)
        else:
            total += max(forward, gather) + max(backward, gather + whole)
    return total


def held(job: Job, thoughts: int, name: str, devices: int) -> float:
    """GiB on a GPU."""
    sharing: Sharing = "step" if name == "step" else "shards"
    parts = 8 if name == "in nodes" else devices
    return plan.memory(job.config, job.sizes, job.load(thoughts), sharing, parts).total / plan.GIB


# -- the tables --


def volumes(jobs: list[Job]) -> Iterator[list[str]]:
    yield ["model", "thoughts", *(f"`{name}` GB" for name in WAYS[:2])]
    for job, thoughts in product(jobs, THOUGHTS):
        sent = (way(job, job.load(thoughts), name).sent(64) / 1e9 for name in WAYS[:2])
        yield [job.name, str(thoughts), *(f"{each:,.0f}" for each in sent)]


def steps(job: Job) -> Iterator[list[str]]:
    yield [
        "GPUs",
        "thoughts",
        "computing s",
        *(f"{name} s" for name in WAYS),
        *(f"{name} GiB" for name in WAYS),
    ]
    for devices, thoughts in product(DEVICES, THOUGHTS):
        alone = sum(map(sum, computing(job, job.load(thoughts))))
        memory = [held(job, thoughts, name, devices) for name in WAYS]
        took = [
            f"{seconds(job, thoughts, name, devices):.2f}" if most <= GPU.memory else "does not fit"
            for name, most in zip(WAYS, memory, strict=True)
        ]
        yield [str(devices), str(thoughts), f"{alone:.2f}", *took, *(f"{each:.0f}" for each in memory)]


def thought(jobs: list[Job]) -> Iterator[list[str]]:
    """What one more thought adds to a step, in milliseconds."""
    yield ["model", "GPUs", "computing ms", *(f"{name} ms" for name in WAYS)]
    for job, devices in product(jobs, DEVICES):
        alone = [sum(map(sum, computing(job, job.load(n)))) for n in (6, 24)]
        more = (seconds(job, 24, name, devices) - seconds(job, 6, name, devices) for name in WAYS)
        figures = [(alone[1] - alone[0]) / 18, *(each / 18 for each in more)]
        yield [job.name, str(devices), *(f"{1000 * each:.0f}" for each in figures)]


def markdown(rows: Iterator[list[str]]) -> str:
    first, *rest = rows
    lines = [first, ["---"] * len(first), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> dict[str, str]:
    """By the name that the page has for them."""
    jobs = [job("Llama-3.1-8B", rows=16), job("Llama-3.1-70B", rows=8)]
    made = {"sent": volumes(jobs)} | {each.name: steps(each) for each in jobs} | {"thought": thought(jobs)}
    return {name: markdown(rows) for name, rows in made.items()}


def written(page: str, tables: dict[str, str]) -> str:
    """The page with these tables behind their names."""
    for name, table in tables.items():
        place = re.compile(rf"(<!-- computed: {re.escape(name)} -->\n)(?:\|.*\n)*")
        page = place.sub(lambda found, table=table: f"{found[1]}{table}\n", page)  # type: ignore[misc]
    return page


def main() -> None:
    made = tables()
    if "--write" in sys.argv:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    for name, table in made.items():
        print(f"{name}\n\n{table}\n")


if __name__ == "__main__":
    main()
