"""What `coconut-lm plan` computes against what a training step takes on this machine: memory and operations.

Memory is measured in a process for each line: its highest resident size in two optimizer steps, less what
it held before there was this model. Operations are those that torch counts in a forward and a backward.

Shapes: B rows, T columns.
"""

import argparse
import multiprocessing
import os
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from coconut_lm import CoconutConfig, CoconutForCausalLM, costs, environment, plan
from coconut_lm.config import Config, load
from coconut_lm.costs import Load, Shape
from coconut_lm.sizing import measure

VOCABULARY = 4003
LATENT = (4000, 4001, 4002)  # begin, end, and a thought between them
# Makes glibc return freed tensors at once: left to itself it keeps most, and hides what a step needs.
GIVE_BACK = ("MALLOC_MMAP_THRESHOLD_", "131072")


@dataclass(frozen=True)
class Case:
    """A GPT-2 of some size, rows without padding, and whether layers are computed again."""

    layers: int
    width: int
    batch: int
    columns: int
    thoughts: int
    checkpointing: bool = False

    @property
    def load(self) -> Load:
        """A third of the columns are learned."""
        learned = self.columns // 3
        first = self.columns - learned - self.thoughts - 1
        return Load(self.batch, self.columns, first, self.thoughts, self.batch * learned)

    @property
    def config(self) -> Config:
        given = {"method": "cot", "model_id": "gpt2", "gradient_checkpointing": self.checkpointing}
        return load(given, check_files=False)

    def build(self) -> Any:
        given: dict[str, Any] = {"n_layer": self.layers, "n_embd": self.width, "n_head": self.width // 64}
        given |= dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0)
        base = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **given))
        model = CoconutForCausalLM(CoconutConfig(base.config, *LATENT), base=base).train()
        if self.checkpointing:
            model.activation_checkpointing_enable()
        return model

    def batch_of(self) -> dict[str, Any]:
        ids_BT = torch.randint(1000, (self.batch, self.columns))
        columns = range(self.load.first, self.load.first + self.thoughts)
        ids_BT[:, list(columns)] = LATENT[-1]
        labels_BT = ids_BT.masked_fill(torch.arange(self.columns) < self.columns - self.columns // 3, -100)
        return {"input_ids": ids_BT, "labels": labels_BT, "columns": columns}


CASES = (
    Case(6, 512, 16, 128, 0),
    Case(6, 512, 16, 128, 2),
    Case(6, 512, 16, 128, 6),
    Case(6, 512, 16, 128, 24),
    Case(6, 512, 16, 128, 6, checkpointing=True),
    Case(4, 768, 8, 256, 6),
    Case(12, 256, 32, 96, 24, checkpointing=True),
)


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def highest() -> int:
    """The process's largest resident size so far, in bytes (Linux counts in KiB)."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def planned_bytes(case: Case) -> int:
    """All but what a GPU's libraries take."""
    found = plan.memory(case.config, measure(case.build()), case.load)
    return found.total - found.overhead


def measured_bytes(case: Case) -> int:
    torch.set_num_threads(1)
    train(Case(1, 64, 2, 32, 2, case.checkpointing))  # loads what torch loads when it is first needed
    before = resident()
    train(case)
    return highest() - before


def train(case: Case) -> None:
    """Two optimizer steps."""
    model, batch = case.build(), case.batch_of()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        model(**batch, loss_only=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def planned_operations(case: Case) -> float:
    shape = Shape.of(case.build().config.get_text_config())
    per_row = costs.flops_of_training(
        shape, case.columns, case.load.supervised // case.batch, recompute=case.checkpointing
    )
    return case.batch * per_row


def measured_operations(case: Case) -> int:
    """In float64: products of float32 may go ways that torch does not count."""
    torch.set_num_threads(1)
    model, batch = case.build().double(), case.batch_of()
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    return int(counter.get_total_flops())


def rows(cases: tuple[Case, ...]) -> Iterator[tuple[Case, float, float, float, float]]:
    """Planned and measured MiB, planned and measured GFLOP."""
    os.environ.setdefault(*GIVE_BACK)
    context = multiprocessing.get_context("spawn")
    for case in cases:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            held = pool.submit(measured_bytes, case).result()
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            figures = [pool.submit(each, case) for each in (planned_operations, measured_operations)]
            planned, counted = (each.result() / 1e9 for each in figures)
            yield case, pool.submit(planned_bytes, case).result() / 2**20, held / 2**20, planned, counted


def table(cases: tuple[Case, ...]) -> Iterator[str]:
    shape, held = "layers x width | rows x columns | thoughts | recomputed", "MiB planned | measured | ratio"
    yield f"| {shape} | {held} | GFLOP planned | counted | ratio |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for case, planned, measured, operations, counted in rows(cases):
        size = [f"{case.layers} x {case.width}", f"{case.batch} x {case.columns}", str(case.thoughts)]
        memory = [f"{planned:,.0f}", f"{measured:,.0f}", f"{planned / measured:.2f}"]
        work = [f"{operations:,.0f}", f"{counted:,.0f}", f"{operations / counted:.3f}"]
        again = "yes" if case.checkpointing else "no"
        yield f"| {' | '.join([*size, again, *memory, *work])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, help="this many of the lines")
    options = parser.parse_args()
    where = environment.describe()
    versions = [f"{name} {where['packages'][name]}" for name in ("torch", "transformers")]
    print(f"{where['started'][:10]}  {where['cpu']['name']}; {', '.join(versions)}\n")
    for line in table(CASES[: options.only]):
        print(line, flush=True)


if __name__ == "__main__":
    main()
