"""Run folders as training and evaluation would leave them, with made-up figures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coconut_lm.data import prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.statistics import wilson

STEPS_AN_EPOCH, EVERY = 140, 7
WORDS = ["lempus", "grimpus", "zhorpus", "sterpus", "rorpus", "yumpus", " Every", " is", "###"]


def rate(verdicts: Sequence[bool]) -> dict[str, float]:
    right, n = sum(verdicts), len(verdicts)
    low, high = wilson(right, n)
    return {"rate": right / n, "right": right, "n": n, "low": low, "high": high}


def data(place: Path, n: int = 300) -> list[Example]:
    examples = list(prosqa.make(n, seed=5))
    write_examples(place / "prosqa_valid.json", examples, force=True)
    return examples


def run(
    place: Path,
    name: str,
    examples: Sequence[Example],
    *,
    method: str = "coconut",
    best: float = 0.96,
    epochs: int = 20,
    window: bool = False,
    seed: int = 0,
    **config: Any,
) -> Path:
    """A run that went through: metrics.jsonl, and evaluations with 0 to 4 thoughts."""
    folder, rng = place / name, np.random.default_rng(seed)
    folder.mkdir(parents=True)
    keys = {"name": name, "method": method, "task": "prosqa", "num_epochs": epochs, "seed": seed, "lr": 1e-4}
    keys |= {"epochs_per_stage": 4, "max_latent_stage": 4, "c_thought": 1, "model_id": "gpt2"} | config
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    environment = {"python": "3.11.9", "torch": "2.13.0", "device": "cpu", "revision": "0123abc"}
    (folder / "env.json").write_text(json.dumps(environment), encoding="utf-8")
    rows = _training(rng, best, epochs, method, window)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    thoughts = range(5) if method == "coconut" else [0]
    for count in thoughts:
        share = best - 0.22 * (1 - count / 4) ** 2 if method == "coconut" else best
        evaluation(folder / "eval" / f"valid-{count}", examples, share, count, method, rng, place)
    return folder


def _training(
    rng: np.random.Generator, best: float, epochs: int, method: str, window: bool
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch in range(epochs):
        stage = min(epoch // 4, 5) if method == "coconut" else 0
        since = epoch - 4 * stage if method == "coconut" else epoch
        for inner in range(EVERY, STEPS_AN_EPOCH + 1, EVERY):
            progress = since + inner / STEPS_AN_EPOCH
            loss = 0.25 + (1.8 if epoch < 4 else 0.9) * math.exp(-1.1 * progress) + 0.06 * rng.normal()
            step = {"kind": "step", "step": epoch * STEPS_AN_EPOCH + inner, "epoch": epoch, "stage": stage}
            rows.append(step | {"loss": max(loss, 0.02), "lr": 1e-4, "grad_norm": 1.0, "tokens": 2048})
        share = best - (best - 0.5) * math.exp(-0.25 * epoch) - (0.08 if since == 0 and epoch else 0)
        row = {"kind": "epoch", "epoch": epoch, "stage": stage, "step": (epoch + 1) * STEPS_AN_EPOCH}
        verdicts = rng.random(300) < share
        measured = rate([bool(each) for each in verdicts])
        row |= {"train_loss": loss, "val_loss": loss + 0.08 + 0.004 * epoch, "val_accuracy": measured["rate"]}
        row |= {"val_right": measured["right"], "val_n": 300, "val_low": measured["low"]}
        row |= {
            "val_high": measured["high"],
            "val_cot_match": None,
            "val_tokens": 9.0 + stage,
            "seconds": 31.0,
        }
        if method == "coconut" and stage:
            row["monitors"] = _monitors(rng, epoch, stage)
        if window and stage:
            late = 0.25 * (1 - math.exp(-epoch / 6))
            row["window"] = [0.5 + late, 0.3 - late / 2, 0.2 - late / 2]
        rows.append(row)
    return rows


def _monitors(rng: np.random.Generator, epoch: int, stage: int) -> dict[str, Any]:
    return {
        "norm_ratio": 4 + 3 * (1 - math.exp(-epoch / 8)) + 0.1 * rng.normal(),
        "cosine": 0.35 + 0.02 * epoch + 0.02 * rng.normal(),
        "effective_rank": 22 - 0.4 * epoch + rng.normal(),
        "gradient_norms": [
            0.4 * 0.6 ** (stage - each) * rng.uniform(0.7, 1.3) for each in range(min(stage, 4))
        ],
    }


def evaluation(
    folder: Path,
    examples: Sequence[Example],
    share: float,
    thoughts: int,
    method: str,
    rng: np.random.Generator,
    place: Path,
) -> None:
    """Answers to all of the examples, about `share` of them right."""
    folder.mkdir(parents=True)
    right = [bool(each) for each in rng.random(len(examples)) < share]
    rows = [
        _prediction(i, e, ok, thoughts, method) for i, (e, ok) in enumerate(zip(examples, right, strict=True))
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    lengths = sorted({len(example.steps) for example in examples})
    by_length = {n: [ok for ok, e in zip(right, examples, strict=True) if len(e.steps) == n] for n in lengths}
    written = 42.0 if method == "cot" else 8.2
    metrics = {
        "checkpoint": f"runs/{folder.parents[1].name}/checkpoints/checkpoint_20",
        "data": str(place / "prosqa_valid.json"),
        "data_sha256": "d" * 64,
        "task": "prosqa",
        "method": method,
        "stage": 5,
        "thoughts": thoughts,
        "scoring": "tolerant",
        "n": len(examples),
        "accuracy": rate(right),
        "cot_match": None,
        "tokens": {
            "mean": written + thoughts,
            "written": written,
            "latent": thoughts,
            "with_end": written + 1,
        },
        "passes": {"mean": written + thoughts},
        "flops": {"mean": 3.1e10},
        "seconds": {"per_example": 0.011, "batch_size": 32, "per_example_batch_1": None},
        "peak_memory": 912_000_000,
        "groups": {
            "steps": {str(n): rate(each) for n, each in by_length.items()},
            "shortcut": {"right": rate(right[4:]), "wrong": rate(right[:4])},
        },
        "floors": {
            "far_from_farthest_entity": {"rate": 0.927, "n": 300, "low": 0.892, "high": 0.951},
            "no_entity_within_2_hops": {"rate": 0.853, "n": 300, "low": 0.809, "high": 0.889},
            "guess": {"rate": 0.5, "n": 300, "low": 0.5, "high": 0.5},
        },
        "swaps": {"n": 300, "accuracy": rate(right[:200] + [False] * 100), "consistency": rate(right[:150])},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    if thoughts:
        decoded = [_decoded(rng, row, thoughts) for row in rows[:4]]
        (folder / "thoughts.json").write_text(json.dumps(decoded), "utf-8")


def _prediction(index: int, example: Example, right: bool, thoughts: int, method: str) -> dict[str, Any]:
    first, last = example.answer.split(" is a ")[0], "wumpus"
    given = example.answer if right else f"{first} is a {last}."
    steps = "\n".join(example.steps) + "\n" if method == "cot" else ""
    return {
        "index": index,
        "id": None,
        "question": example.question,
        "prompt": example.question + "\n" + "<|latent|>" * thoughts,
        "output": f"{steps}### {given}",
        "extracted": given,
        "gold": example.answer,
        "correct": right,
        "cot_match": None,
        "written": len(given.split()) * 2,
        "thoughts": thoughts,
        "ended": index % 50 != 7,
        "thought_norms": [70.0 + each for each in range(thoughts)],
        "seconds": 0.011,
    }


def _decoded(rng: np.random.Generator, row: dict[str, Any], thoughts: int) -> dict[str, Any]:
    def thought() -> dict[str, Any]:
        shares = np.sort(rng.dirichlet([0.5] * 8))[::-1][:5]
        tokens = [[str(word), float(p)] for word, p in zip(rng.permutation(WORDS), shares, strict=False)]
        return {"tokens": tokens, "norm": 71.3, "norm_ratio": 5.9, "entropy": float(rng.uniform(0.5, 3))}

    told = [thought() for _ in range(thoughts)]
    return {"question": row["question"], "thoughts": told, "output": row["output"], "correct": row["correct"]}


def three(place: Path) -> list[Path]:
    """CoT, Coconut, and Coconut with a learned window, on the same 300 questions."""
    examples = data(place)
    return [
        run(place, "prosqa-cot", examples, method="cot", best=0.78, seed=1),
        run(place, "prosqa-coconut", examples, best=0.965, seed=2),
        run(
            place,
            "prosqa-window",
            examples,
            best=0.94,
            window=True,
            seed=3,
            latent_variant="learnable_weights",
        ),
    ]
