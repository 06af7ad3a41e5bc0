"""What options of training do: rates, clipping, precision, and other ways to the same weights."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import ranks
import runs
import torch
from torch._dynamo.utils import counters
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from coconut_lm import launch, parallel
from coconut_lm.config import Config
from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.engine import TorchEngine
from coconut_lm.feed import Place, steps
from coconut_lm.runfolder import STATE
from coconut_lm.train import Trainer, Watch


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranks.make_data(train=18, valid=1)


def logged(key: str, **changes: Any) -> list[float]:
    """Of a run of nine steps in three epochs, a figure of each step."""
    assert runs.train(**changes)
    return [row[key] for row in runs.figures(changes.get("name", "a")) if row["kind"] == "step"]


def states(name: str = "a") -> dict[str, Any]:
    """What the optimizer keeps for each weight."""
    place = runs.folder(name).newest()
    assert place
    dcp_to_torch_save(place / STATE, "state.pt")
    return torch.load("state.pt", weights_only=False)["optimizer"]["state"]


# -- rates --


def test_the_rate_is_constant_unless_asked() -> None:
    assert logged("lr") == [1e-3] * 9


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_the_rate_rises_and_falls_over_the_whole_plan(shape: str) -> None:
    """Through resets of the optimizer; the first step learns, and the last one too."""
    found = logged("lr", warmup_steps=4, lr_scheduler=shape)
    parts = {
        "constant": [1, 1, 1, 1, 1],
        "linear": [1, 0.8, 0.6, 0.4, 0.2],
        "cosine": [(1 + math.cos(math.pi * done / 5)) / 2 for done in range(5)],
    }
    assert found == pytest.approx([1e-3 * part for part in [0.25, 0.5, 0.75, 1, *parts[shape]]])


def test_max_steps_ends_the_plan() -> None:
    assert logged("lr", lr_scheduler="linear", max_steps=4) == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


# -- gradients and states --


def kept_engines(monkeypatch: pytest.MonkeyPatch) -> list[TorchEngine]:
    """Those that runs of this test make."""
    made: list[TorchEngine] = []
    make = launch.torch_engine

    def kept(*args: Any) -> TorchEngine:
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(launch, "torch_engine", kept)
    return made


def test_gradients_are_clipped_to_the_norm_and_logged_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    after: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: Any) -> Any:
        gradients = [weight.grad for group in self.param_groups for weight in group["params"]]
        after.append(torch.nn.utils.get_total_norm([each for each in gradients if each is not None]).item())
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    free = logged("grad_norm", name="free", dtype="float64")
    assert after == pytest.approx(free) and min(free) > 0.1
    after.clear()
    clipped = logged("grad_norm", max_grad_norm=0.1, dtype="float64")
    assert clipped[0] == pytest.approx(free[0]) and after == pytest.approx([0.1] * 9, rel=1e-4)


def test_every_weight_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms and biases too, as in the published code; the rest of AdamW is torch's default."""
    engines = kept_engines(monkeypatch)
    runs.train(weight_decay=0.3)
    (group,) = engines[0].optimizer.param_groups
    assert group["weight_decay"] == 0.3 and (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
    assert {id(weight) for weight in group["params"]} == {id(w) for w in engines[0].heart.parameters()}


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [({"bf16": True}, torch.float32), ({"bf16": "pure"}, torch.bfloat16), ({}, torch.float32)],
)
def test_the_precision_of_weights_and_states(changes: dict[str, Any], dtype: torch.dtype) -> None:
    """Computing in bfloat16 leaves both whole; pure, as the published code has it, halves both."""
    logged("loss", **changes, reset_optimizer="never")
    assert {weight.dtype for weight in ranks.weights("a").values()} == {dtype}
    found = states()
    assert len(found) > 10
    for kept in found.values():
        assert kept["exp_avg"].dtype == kept["exp_avg_sq"].dtype == dtype and kept["step"] == 9


def test_bfloat16_computes_in_bfloat16() -> None:
    exact = logged("loss", name="exact", max_steps=1)
    halved = logged("loss", name="halved", bf16=True, max_steps=1)
    assert exact != halved and exact == pytest.approx(halved, rel=5e-3)


# -- other ways to the same weights --


def apart(**changes: Any) -> float:
    """From the weights of a run without these changes."""
    given = {"dtype": "float64", "uniform_prob": 0.5}
    runs.train(name="plain", **given)
    runs.train(name="other", **(given | changes))
    return ranks.farthest("plain", "other")


def test_activation_checkpointing_ends_in_the_same_weights() -> None:
    assert apart(gradient_checkpointing=True) < 1e-12


def test_workers_make_the_same_batches() -> None:
    assert apart(num_workers=2) == 0


def test_larger_batches_of_questions_train_the_same() -> None:
    assert apart(eval_batch_size=1) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself, and hides it where it may
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with a compiler")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_end_in_the_same_weights(checkpointing: bool) -> None:
    """Compiled code rounds its own way, in float32."""
    given = {"max_steps": 3, "gradient_checkpointing": checkpointing, "uniform_prob": 0.5}
    runs.train(name="plain", **given)
    torch.compiler.reset()
    counters.clear()
    runs.train(name="compiled", compile=True, **given)
    assert 0 < counters["stats"]["unique_graphs"] <= 8, "not one for each layer and each size of the cache"
    assert ranks.farthest("plain", "compiled") < 1e-5
    assert ranks.weights("compiled").keys() == ranks.weights("plain").keys(), "names as ever"


def test_like_lengths_share_batches() -> None:
    """Mixed questions of one to three steps: less is padded, and each epoch still sees every example once."""
    mixed = prosqa.make(60, seed=3, shape="broom", branches=2, hops="1-3", style="symbols")
    write_examples("train.json", list(mixed), force=True)

    def widths(**changes: Any) -> list[int]:
        """Padded tokens of every step of three epochs."""
        accelerator = parallel.accelerator(config := Config(**runs.settings(**changes)))
        _, data = launch.prepare(config, *launch.examples(config), accelerator, Watch())
        order = Trainer.order_of(config, data.train, ranks=1)
        for epoch in range(3):
            assert sorted(i for batch in order.batches(epoch) for i in batch) == list(range(60))
        parts = [part for epoch in range(3) for part in steps(data.train, order, epoch, Place())]
        return [part.batches[0].input_ids.size - part.tokens for part in parts]

    assert sum(widths(group_by_length=True)) < 0.3 * sum(widths())
    assert runs.train(group_by_length=True, max_steps=2)
