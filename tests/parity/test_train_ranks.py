"""Two ranks end in one process's weights for the same global batch, copied (DDP) or in shards (FSDP2).

17 rows in global batches of 8 leave a last batch of one row: a rank without rows. Stages are mixed, so ranks
have different numbers of thoughts. In float64 what is left is rounding; a row left out would show at 1e-4.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ranks
import runs
import torch

from coconut_lm.errors import UserError
from coconut_lm.runfolder import PREDICTIONS, lines
from coconut_lm.train import Watch

SHARDING = pytest.mark.parametrize("fsdp", ["off", "full"])
MIXED: dict[str, Any] = {"dtype": "float64", "uniform_prob": 0.5, "eval_batch_size": 2}
HALF: dict[str, Any] = MIXED | {"batch_size_training": 4}  # of a global batch of 8


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranks.make_data()


def both(batch: int = 8, **changes: Any) -> float:
    """The same global batch on one process and on two; how far apart their weights end."""
    accumulation = changes.pop("gradient_accumulation_steps", 1)
    ranks.train("one", 1, batch_size_training=batch, **(changes | {"fsdp": "off"}))
    sizes = {"batch_size_training": batch // accumulation // 2, "gradient_accumulation_steps": accumulation}
    ranks.train("two", 2, **sizes, **changes)
    return ranks.farthest("one", "two")


def figures(name: str) -> list[dict[str, float]]:
    """All numbers in metrics.jsonl that do not come from a clock."""
    numbers = (int, float)
    return [{k: row[k] for k in row if isinstance(row[k], numbers)} for row in runs.figures(name)]


def assert_alike(rel: float = 1e-9) -> None:
    for one, two in zip(figures("one"), figures("two"), strict=True):
        assert one == pytest.approx(two, rel=rel, abs=rel)


OFTEN: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "window": {"latent_variant": "learnable_weights", "uniform_prob": 0.0, "reset_optimizer": "never"},
    "lora": {"lora": {"dropout": 0.0}, "lr": 1e-2},
}
SELDOM: dict[str, dict[str, Any]] = {
    "projection": {"latent_projection": 8, "latent_norm": "match_embedding"},
    "checkpointing": {"gradient_checkpointing": True},
    "clipping": {"max_grad_norm": 0.5, "lr_scheduler": "cosine", "warmup_steps": 3},
    "window_lora": {"lora": {"dropout": 0.0}, "latent_variant": "learnable_weights", "lr": 1e-2},
    "window_accumulation": {"latent_variant": "learnable_weights", "gradient_accumulation_steps": 4},
    "pause": {"method": "pause_as_thought"},
    "cot": {"method": "cot"},
    "workers": {"num_workers": 1},
}


@SHARDING
@pytest.mark.parametrize("option", [*OFTEN, *(pytest.param(each, marks=pytest.mark.slow) for each in SELDOM)])
def test_two_ranks_end_where_one_does(option: str, fsdp: str) -> None:
    assert both(**(MIXED | (OFTEN | SELDOM)[option]), fsdp=fsdp) < 1e-10
    assert_alike()


@pytest.mark.parametrize("option", ["accumulation", "lora"])
def test_so_do_shards_put_together_once_a_step(option: str) -> None:
    assert both(**(MIXED | OFTEN[option]), fsdp="step") < 1e-10
    assert_alike()


@SHARDING
@pytest.mark.parametrize("valid", [1, 5])
def test_every_question_is_answered_once(valid: int, fsdp: str) -> None:
    """A rank without a question, and ragged last batches."""
    ranks.make_data(valid=valid)
    both(**MIXED, fsdp=fsdp, num_epochs=1)
    found = []
    for name in ("one", "two"):
        rows = list(lines(runs.folder(name).evaluation("epoch_1") / PREDICTIONS))
        assert [row["index"] for row in rows] == list(range(valid))
        found.append([(row["output"], row["correct"], row["thoughts"]) for row in rows])
    assert found[0] == found[1] and {row["val_n"] for row in figures("two") if "val_n" in row} == {valid}


@SHARDING
def test_in_float32_a_few_steps_are_alike(fsdp: str) -> None:
    assert both(**(MIXED | {"dtype": "float32", "max_steps": 2}), fsdp=fsdp) < 1e-5


@SHARDING
@pytest.mark.parametrize("bf16", [True, "pure"])
def test_bfloat16_is_as_near_as_it_is_precise(bf16: bool | str, fsdp: str) -> None:
    """Products are rounded to 8 bits, and rounded otherwise in other batches."""
    apart = both(uniform_prob=0.5, bf16=bf16, max_steps=4, num_epochs=2, fsdp=fsdp)
    assert apart < 4 * 1e-3 * 2.1, "four steps of Adam at lr 1e-3, in opposite directions at worst"
    losses = [[row["loss"] for row in figures(name) if "loss" in row] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    kept = torch.bfloat16 if bf16 == "pure" else torch.float32
    assert {weight.dtype for weight in ranks.weights("two").values()} == {kept}


def test_ranks_drop_out_for_themselves() -> None:
    class Draws(Watch):
        def epoch(self, *_: int) -> None:
            Path(f"drawn_{os.environ['RANK']}").write_text(str(torch.rand(()).item()))

    assert ranks.together(2, lambda: runs.train(Draws(), **HALF, num_epochs=1)) == [0, 0]
    assert Path("drawn_0").read_text() != Path("drawn_1").read_text()


# -- stopping and going on --


class AtStep(Watch):
    """Does something on some ranks after a step."""

    def __init__(self, step: int, of_ranks: set[int], act: Any) -> None:
        self.left, self.here, self.act = step, int(os.environ["RANK"]) in of_ranks, act

    def step(self, record: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0 and self.here:
            self.act()


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("fsdp", "asked", "then"),
    [("off", {1}, 2), ("off", {0, 1}, 1), ("full", {1}, 1), ("full", {0}, 2)],
)
def test_one_rank_asked_to_stop_stops_all(fsdp: str, asked: set[int], then: int) -> None:
    """Then as many ranks go on, or one alone with the same global batch."""
    changes = HALF | {"fsdp": fsdp, "latent_variant": "learnable_weights", "reset_optimizer": "never"}
    ranks.train("one", 2, **changes)
    stopped = ranks.together(
        2, lambda: runs.train(AtStep(4, asked, ask_to_stop), name="two", **changes) and sys.exit(9)
    )
    assert stopped == [0, 0] and runs.folder("two").newest() == runs.folder("two").step(5)
    ranks.train("two", then, **(changes | {"batch_size_training": 8 // then}))
    assert ranks.farthest("one", "two") < 1e-10
    assert_alike()


def test_another_global_batch_is_refused() -> None:
    ranks.train("two", 2, **HALF, num_epochs=1)
    with pytest.raises(UserError, match="trained with another global batch") as refused:
        runs.train(name="two", **HALF)
    assert "4 rows" in str(refused.value) and "expected: 8" in str(refused.value)


# -- a rank that is gone --


def told_alone() -> None:
    """What a rank says that is left alone, in the file `said`."""
    try:
        runs.train(AtStep(2, {1}, lambda: os._exit(3)), **HALF)
    except UserError as error:
        Path("said").write_text(str(error))
        os._exit(2)


def test_a_rank_that_dies_ends_the_other_in_words() -> None:
    began = time.monotonic()
    assert ranks.together(2, told_alone) == [2, 3]
    assert "another rank has ended" in Path("said").read_text() and time.monotonic() - began < 30


@pytest.mark.parametrize("fsdp", ["off", pytest.param("full", marks=pytest.mark.slow)])
def test_a_rank_that_hangs_ends_the_other_in_time(fsdp: str) -> None:
    freeze = lambda: os.kill(os.getpid(), signal.SIGSTOP)  # noqa: E731

    def work() -> None:
        try:
            runs.train(AtStep(2, {1}, freeze), **HALF, fsdp=fsdp, timeout_minutes=0.08)
        except UserError as error:
            Path("said").write_text(str(error))
            os._exit(2)

    first, second = ranks.started(2, work)
    try:
        assert ranks.ended([first], 60) == [2]
        assert "kept this one waiting for 0.08 minutes" in Path("said").read_text()
    finally:
        os.kill(second, signal.SIGKILL)
        assert ranks.ended([second]) == [-signal.SIGKILL]


# -- as it is typed --


def typed(*words: str) -> list[str]:
    Path("run.yaml").write_text(json.dumps(runs.settings(**HALF)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [*launcher, "-m", "coconut_lm", "run", "run.yaml", *words]


ALONE = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_torchrun_does_the_same() -> None:
    done = subprocess.run(
        typed("name=two", "fsdp=full"), env=ALONE, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/3") == 1, "one rank speaks for all"
    ranks.train("one", 1, **(HALF | {"batch_size_training": 8}))
    assert ranks.farthest("one", "two") < 1e-10


@pytest.mark.slow
def test_torchrun_passes_on_a_wish_to_stop() -> None:
    """As schedulers do before they take a machine away."""
    long = ("num_epochs=100000", "name=two")
    with subprocess.Popen(typed(*long), env=ALONE, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 120
        while not runs.folder("two").checkpoints() and time.monotonic() < until:
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=120)
    assert "to go on: coconut-lm run" in said
    stopped = runs.folder("two").newest()
    assert stopped and (stopped / "state").is_dir()
