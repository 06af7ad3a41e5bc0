"""The embedded main job: a small model learns on this CPU to follow a graph without writing its steps.

Graphs are brooms in symbols: two roots with two chains each, and the question which of two chain ends the
asked root reaches. Whoever writes the chain must guess its first step; whoever thinks need not. One run goes
through the stages of Coconut (arXiv 2412.06769) and is measured at the end of each: all steps written, then
the first ones thought, then all.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from coconut_lm.collate import Batch, collate, collate_prompts
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.feed import tensors
from coconut_lm.files import atomic_write
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.statistics import wilson
from coconut_lm.tokens import LatentTokens, add_latent_tokens, encode, word_tokenizer

CPU = torch.device("cpu")
HOPS = 2
STEPS_A_MINUTE = 700  # of one core; fixed, so that a seed makes a run repeat on any machine
SHARES = (6 / 14, 3 / 14, 5 / 14)  # of the steps, by stage
BATCH, WIDTH, LR, WARMUP = 64, 96, 1e-3, 200
LENGTHS: dict[str, Any] = {"hops": f"1-{HOPS}", "hop_weights": ".3,.7"}  # short graphs help the long ones
STAGES = (
    "every step written",
    *(f"{k} thought{'s' * (k > 1)}, the rest written" for k in range(1, HOPS)),
    "all thought",
)


@dataclass(frozen=True)
class Measured:
    """How often one way of answering was right on the held-out graphs."""

    name: str
    thoughts: int
    right: int
    n: int

    def to_json(self) -> dict[str, Any]:
        low, high = wilson(self.right, self.n)
        rate = self.right / self.n
        return {
            "name": self.name,
            "thoughts": self.thoughts,
            "accuracy": rate,
            "low": low,
            "high": high,
            "n": self.n,
        }


class Job:
    """Data, model and how to measure it; everything random comes from the seed."""

    def __init__(self, seed: int, train: int = 40_000, held_out: int = 1_000) -> None:
        torch.manual_seed(seed)
        broom: dict[str, Any] = {"style": "symbols", "shape": "broom", "branches": 2}
        self.examples = list(prosqa.make(train, seed=seed, **LENGTHS, **broom))
        self.held_out = list(prosqa.make(held_out, seed=seed + 1_000_003, hops=HOPS, **broom))
        self.tokenizer = word_tokenizer(
            " ".join([e.question, *e.steps, e.answer]) for e in self.examples[:3000]
        )
        self.tokens: LatentTokens = add_latent_tokens(self.tokenizer, pause=True)
        curriculum = Curriculum(max_latent_stage=HOPS)
        self.rows = self._rows(self.examples, curriculum)
        self.prompts = self._rows(self.held_out, curriculum)
        self.model = self._model()
        self.rng = np.random.default_rng(seed)
        lengths = np.array([len(example.steps) for example in self.examples])
        self.by_length = [np.flatnonzero(lengths == hops) for hops in range(1, HOPS + 1)]

    def _rows(self, examples: Sequence[Example], curriculum: Curriculum) -> Rows:
        return Rows(encode(examples, self.tokenizer), self.tokens, "coconut", curriculum)

    def _model(self) -> CoconutForCausalLM:
        shape = {"num_hidden_layers": 2, "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "head_dim": 32}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}
        ends = {"bos_token_id": self.tokens.eos, "eos_token_id": self.tokens.eos}
        places = {"max_position_embeddings": 128}
        config = AutoConfig.for_model(
            "qwen3", vocab_size=len(self.tokenizer), **shape, **heads, **places, **ends
        )
        base = AutoModelForCausalLM.from_config(config)
        return CoconutForCausalLM.from_base(base, self.tokenizer, new_token_init="random")

    def batch(self, stage: int, mixed: float = 0.1) -> Batch:
        """One length a batch. A few rows are at another stage, so that none is forgotten."""
        shares = [len(places) / len(self.examples) for places in self.by_length]
        hops = int(self.rng.choice(HOPS, p=shares)) + 1
        chosen = self.rng.choice(self.by_length[hops - 1], BATCH)
        stages = [stage if self.rng.random() > mixed else int(self.rng.integers(hops + 1)) for _ in chosen]
        rows = [self.rows.row(int(i), s) for i, s in zip(chosen, stages, strict=True)]
        return collate(rows, self.tokens)

    def train(self, steps: Sequence[int]) -> Iterator[tuple[int, float]]:
        """The stage and loss of every step."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01)
        warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
        for stage, count in enumerate(steps):
            for _ in range(count):
                self.model.train()
                batch = self.batch(stage)
                loss = self.model(**tensors(batch, CPU), columns=batch.columns).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                warm.step()
                yield stage, loss.item()

    def measure(self, name: str, stage: int, thoughts: int) -> Measured:
        self.model.eval()
        right = 0
        for start in range(0, len(self.held_out), 250):
            examples = self.held_out[start : start + 250]
            prompts = [self.prompts.prompt(start + i, stage, thoughts) for i in range(len(examples))]
            texts = self.write(prompts)
            right += sum(prosqa.TASK.score(t, e).correct for t, e in zip(texts, examples, strict=True))
        return Measured(name, thoughts, right, len(self.held_out))

    def write(self, prompts: Sequence[Row]) -> list[str]:
        """What the model writes after each prompt, greedily."""
        batch = tensors(collate_prompts(prompts, self.tokens), CPU)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        new = self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=2 * HOPS + 6, do_sample=False
        )
        return self.tokenizer.batch_decode(new[:, ids.shape[1] :], skip_special_tokens=True)


def run(out: Path, minutes: float = 2.0, seed: int = 0) -> list[Measured]:
    """Makes data, trains, measures, prints the table, and leaves model, tokenizer and figures in `out`."""
    console = Console()
    steps = [max(1, round(minutes * STEPS_A_MINUTE * share)) for share in SHARES]
    if out.exists() and not out.is_dir():
        raise UserError("the place for the results is no folder", given=out, do="choose another --out")
    # So small a model gains nothing from a second thread, and loses much where another process has the core.
    torch.set_num_threads(1)
    with console.status("making graphs ..."):
        job = Job(seed)
    _introduce(console, job, steps)
    measured = _train_and_measure(console, job, steps)
    console.print(_table(measured))
    _show_one(console, job)
    _keep(out, job, measured, {"minutes": minutes, "seed": seed, "steps": steps})
    console.print(f"The model, its tokenizer and metrics.json are in [bold]{out}/[/]", highlight=False)
    return measured


def _train_and_measure(console: Console, job: Job, steps: Sequence[int]) -> list[Measured]:
    measured: list[Measured] = []
    texts = ("{task.description}", "loss {task.fields[loss]:.3f}")
    columns = (TextColumn(texts[0]), BarColumn(), TextColumn(texts[1]), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(STAGES[0], total=sum(steps), loss=float("nan"))
        ends = {sum(steps[: stage + 1]): stage for stage in range(len(steps))}
        for step, (stage, loss) in enumerate(job.train(steps), start=1):
            bar.update(task, advance=1, loss=loss, description=STAGES[stage])
            if step in ends:
                measured.append(job.measure(STAGES[stage], stage, stage))
                console.print(_line(measured[-1]))
    measured.append(job.measure("all thought, thoughts left out", len(steps) - 1, 0))
    return measured


def _introduce(console: Console, job: Job, steps: Sequence[int]) -> None:
    example = job.held_out[0]
    count = sum(parameter.numel() for parameter in job.model.parameters())
    console.print(
        f"A graph of {len(example.extra['edges'])} edges, and which of two nodes is reached from [R]:\n"
        f"  [cyan]{example.question.replace('[', chr(92) + '[')}[/]\n"
        f"  steps {' '.join(example.steps)}, answer {example.answer}\n"
        f"A model of {count:,} weights learns this from scratch on {len(job.examples):,} graphs, "
        f"{sum(steps):,} steps of {BATCH} rows:\n"
        "first writing every step, then thinking the first one, then both.",
        highlight=False,
        soft_wrap=True,
    )


def _line(found: Measured) -> str:
    figures = found.to_json()
    return (
        f"{found.name:<36} {figures['accuracy']:6.1%}  "
        f"({figures['low']:.1%} to {figures['high']:.1%}, n = {found.n})"
    )


def _table(measured: Sequence[Measured]) -> Table:
    table = Table(title=f"Held-out graphs of {HOPS} hops (guessing: 50 %)", title_justify="left")
    for name in ("how it answers", "thoughts", "accuracy", "95 % interval", "n"):
        table.add_column(name, justify="left" if name == "how it answers" else "right")
    for found in measured:
        figures = found.to_json()
        interval = f"{figures['low']:.1%} to {figures['high']:.1%}"
        table.add_row(found.name, str(found.thoughts), f"{figures['accuracy']:.1%}", interval, str(found.n))
    return table


def _show_one(console: Console, job: Job) -> None:
    example = job.held_out[0]
    for thoughts in (0, HOPS):
        text = job.write([job.prompts.prompt(0, HOPS + 1, thoughts)])[0].strip()
        console.print(
            f"asked the question above with {thoughts} thoughts, it writes: {text!r}", highlight=False
        )
    console.print(f"the answer is: {example.answer}", highlight=False)


def _keep(out: Path, job: Job, measured: Sequence[Measured], settings: dict[str, Any]) -> None:
    job.model.save_pretrained(out / "coconut")
    job.tokenizer.save_pretrained(out / "coconut")
    with atomic_write(out / "metrics.json") as file:
        json.dump({**settings, "results": [found.to_json() for found in measured]}, file, indent=2)
