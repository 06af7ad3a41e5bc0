"""The losses of 20 steps: as a plain loop over single rows has them, and as they were when recorded.

The loop knows neither batches, padding, caches nor ranks, and the algorithm is benchmarks/reference.py's.
`COCONUT_LM_RECORD=1 pytest tests/parity/test_train_golden.py -k recorded` writes the recorded ones anew.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import runs
import torch
from reference import oracle_loss
from torch import Tensor

from coconut_lm.assembly import assemble
from coconut_lm.config import Config
from coconut_lm.data.example import read_examples
from coconut_lm.methods import METHODS, Row, Rows
from coconut_lm.tokens import encode

GOLDEN = Path(__file__).parents[1] / "assets" / "golden" / "train_losses.json"
TWENTY: dict[str, Any] = {"num_epochs": 5, "batch_size_training": 5, "epochs_per_stage": 2, "lr": 3e-3}
"""18 rows: three steps of five rows and one of three, in each of five epochs."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranks.make_data(train=18, valid=1)


def losses(name: str = "a") -> list[float]:
    return [row["loss"] for row in runs.figures(name) if row["kind"] == "step"]


def trained(**changes: Any) -> list[float]:
    """Of one process, in steps."""
    assert runs.train(**(TWENTY | changes))
    return losses(changes.get("name", "a"))


# -- the loop --


def texts(config: Config) -> list[str]:
    return [" ".join([each.question, *each.steps, each.answer]) for each in read_examples(config.train_path)]


def plain_loop(world: int = 1, **changes: Any) -> Iterator[float]:
    """Losses of the same run, step by step."""
    config = Config(**runs.settings(**(TWENTY | changes)))
    loaded = assemble(config, lambda: texts(config))
    model = loaded.model.base_causallm.train()
    rows = loaded.rows(encode(read_examples(config.train_path), loaded.tokenizer), config.seed)
    size, accumulation = config.batch_size_training * world, config.gradient_accumulation_steps
    optimizer, stage = None, None
    for epoch in range(config.num_epochs):
        before, stage = stage, rows.stage(epoch)
        if optimizer is None or starts_anew(config.reset_optimizer, stage != before):
            optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(rows))
        for begin in range(0, len(rows), size * accumulation):
            step = [rows.train_row(int(index), epoch) for index in order[begin : begin + size * accumulation]]
            if config.loss_norm == "tokens":
                loss = mean_loss(model, rows, step)
            else:
                micro = [
                    step[at : at + size][rank::world]
                    for at in range(0, len(step), size)
                    for rank in range(world)
                ]
                loss = sum(mean_loss(model, rows, part) for part in micro if part) / (accumulation * world)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


def starts_anew(when: str, new_stage: bool) -> bool:
    return {"epoch": True, "stage": new_stage, "never": False}[when]


def mean_loss(model: Any, rows: Rows, part: Sequence[Row]) -> Tensor:
    pairs = [(row.input_ids.tolist(), row.labels.tolist()) for row in part]
    return oracle_loss(model, rows.tokens.latent, pairs)


EXACT = {"dtype": "float64", "uniform_prob": 0.3}


@pytest.mark.parametrize("reset", ["epoch", "stage", "never"])
@pytest.mark.parametrize("method", ["cot", "coconut"])
def test_the_losses_are_those_of_a_plain_loop(method: str, reset: str) -> None:
    changes = EXACT | {"method": method, "reset_optimizer": reset}
    found = trained(**changes)
    assert len(found) == 20 and found == pytest.approx(list(plain_loop(**changes)), rel=1e-9)


def test_in_float32_too() -> None:
    changes = EXACT | {"dtype": "float32", "num_epochs": 2}
    assert trained(**changes) == pytest.approx(list(plain_loop(**changes)), rel=1e-5)


def test_when_the_optimizer_starts_anew_matters() -> None:
    """Else the three above could be one."""
    runs_of = [trained(**EXACT, name=reset, reset_optimizer=reset) for reset in ("epoch", "stage", "never")]
    assert runs_of[0][:5] == runs_of[1][:5] == runs_of[2][:5], (
        "the first step of an epoch comes before Adam's"
    )
    assert runs_of[1][:9] == runs_of[2][:9] and runs_of[0][6] != runs_of[1][6]
    assert runs_of[1][10] != runs_of[2][10]


# -- one batch, cut in several ways --


@pytest.mark.parametrize(("dtype", "near"), [("float64", 1e-11), ("float32", 1e-6)])
def test_however_a_batch_is_cut_its_loss_is_one(dtype: str, near: float) -> None:
    cuts = {"whole": (1, 16, 1), "accumulated": (1, 4, 4), "shared": (2, 8, 1), "both": (2, 2, 4)}
    for name, (world, batch, accumulation) in cuts.items():
        sizes = {"batch_size_training": batch, "gradient_accumulation_steps": accumulation}
        ranks.train(name, world, dtype=dtype, uniform_prob=0.5, **sizes)
    whole = losses("whole")
    assert len(whole) == 6
    for name in cuts:
        assert losses(name) == pytest.approx(whole, rel=near)


@pytest.mark.parametrize(("world", "batch"), [(1, 4), (2, 2)])
def test_the_reference_takes_the_mean_of_means(world: int, batch: int) -> None:
    """18 rows: a last group of two rows in one micro-batch is divided by the full accumulation count."""
    changes = EXACT | {"loss_norm": "reference", "gradient_accumulation_steps": 2, "num_epochs": 3}
    changes |= {"batch_size_training": batch, "epochs_per_stage": 1}
    ranks.train("a", world, **(TWENTY | changes))
    assert losses() == pytest.approx(list(plain_loop(world, **changes)), rel=1e-9)


# -- recorded --


def recorded() -> dict[str, list[float]]:
    return json.loads(GOLDEN.read_text())["losses"] if GOLDEN.is_file() else {}


@pytest.mark.parametrize("method", METHODS)
def test_the_losses_are_the_recorded_ones(method: str) -> None:
    found = trained(method=method, uniform_prob=0.3)
    if os.environ.get("COCONUT_LM_RECORD"):
        content = {"losses": recorded() | {method: found}}
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
    assert found == pytest.approx(recorded()[method], rel=1e-4)
    assert len(found) == 20 and found[-1] < 0.9 * found[0]
