"""A run on MLX is the run on torch: its losses, figures, answers and weights; and it goes on as if it had not
been interrupted.

A process that has used MLX must not be forked, so nothing here is.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import ranks
import runs
import torch
from accelerate import Accelerator
from runs import At, folder, left
from safetensors.torch import load_file
from tiny import COMMON, SLIDING

from coconut_lm import launch
from coconut_lm.assembly import open_checkpoint
from coconut_lm.config import Config
from coconut_lm.errors import UserError
from coconut_lm.mlx import adamw
from coconut_lm.mlx.bridge import to_mlx
from coconut_lm.resume import ON_MLX
from coconut_lm.runfolder import PREDICTIONS, lines

TWENTY: dict[str, Any] = {"num_epochs": 5, "batch_size_training": 5, "epochs_per_stage": 2, "lr": 3e-3}
"""18 rows: three steps of five rows and one of three, in each of five epochs."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranks.make_data(train=18, valid=3)


def shaped(family: str) -> None:
    """Another model for the runs of this test."""
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
    more = {"gpt_oss": SLIDING | experts, "mistral": {"sliding_window": 6}}.get(family, {})
    shape = COMMON | more | {"model_type": family, "tie_word_embeddings": False}
    shape |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    Path("model.json").write_text(json.dumps(shape))


def both(**changes: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The figures of the same run on torch and on MLX."""
    for backend in ("torch", "mlx"):
        assert runs.train(**(TWENTY | changes | {"name": backend, "backend": backend}))
    return runs.figures("torch"), runs.figures("mlx")


def assert_alike(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Losses of all steps within 1e-4, and all else that is logged."""
    assert len(ours) == len(theirs) > 20
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        figures = {key: one[key] for key in one if isinstance(one[key], int | float)}
        assert figures == pytest.approx({key: other[key] for key in figures}, rel=1e-3, abs=1e-4)
        for key in {"loss", "val_loss"} & one.keys():
            assert one[key] == pytest.approx(other[key], abs=1e-4)
        for key, value in one.get("monitors", {}).items():
            if value is not None:
                assert value == pytest.approx(other["monitors"][key], rel=1e-2, abs=1e-3), key


def assert_same_answers() -> None:
    for epoch in range(1, 6):
        mine, theirs = (
            [row["output"] for row in lines(folder(name).evaluation(f"epoch_{epoch}") / PREDICTIONS)]
            for name in ("torch", "mlx")
        )
        assert mine == theirs


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixed": {"uniform_prob": 0.5, "c_thought": 2},
    "accumulation": {"gradient_accumulation_steps": 2, "batch_size_training": 2, "uniform_prob": 0.5},
    "reference": {"loss_norm": "reference", "gradient_accumulation_steps": 2, "batch_size_training": 2},
    "clipped": {"max_grad_norm": 0.1, "weight_decay": 0.3, "lr_scheduler": "cosine", "warmup_steps": 3},
    "reset": {"reset_optimizer": "epoch"},
    "window": {"latent_variant": "learnable_weights", "latent_projection": 8, "reset_optimizer": "never"},
    "fixed": {"latent_variant": "fixed_window", "latent_norm": "match_embedding"},
    "cot": {"method": "cot"},
    "pause": {"method": "pause_as_thought"},
    "lora": {"lora": {"dropout": 0.0}, "lr": 1e-2},
    "window_lora": {"lora": {"dropout": 0.0, "r": 3}, "latent_variant": "learnable_weights", "lr": 1e-2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_twenty_steps_are_torchs(option: str) -> None:
    assert_alike(*both(**OPTIONS[option]))
    assert_same_answers()
    mine, theirs = ranks.weights("mlx"), ranks.weights("torch")
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        assert (weight.dtype, weight.shape) == (theirs[name].dtype, theirs[name].shape)
    assert ranks.farthest("torch", "mlx") < 5e-3, "AdamW makes a step of any gradient, be it rounding"


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gpt_oss"])
def test_other_families_train_alike(family: str) -> None:
    shaped(family)
    assert_alike(*both(uniform_prob=0.5, lr=1e-3))
    assert_same_answers()


def test_adapters_of_other_families() -> None:
    shaped("llama")
    given = {"dropout": 0.0, "target_modules": ["q_proj", "down_proj"]}
    assert_alike(*both(lora=given, lr=1e-2))
    assert ranks.weights("mlx").keys() == ranks.weights("torch").keys()


# -- the optimizer --


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_that_of_torchs_adamw(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50).to(dtype))
    theirs = torch.optim.AdamW([weight], weight_decay=0.1, fused=True)
    held = {"w": to_mlx(weight)}
    ours = adamw.AdamW(held, 0.1)
    for step in range(30):
        gradient = (torch.randn(50) * 10.0 ** -(step % 9)).to(dtype)
        weight.grad = gradient.clone()
        theirs.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        theirs.step()
        held = ours.step(held, {"w": to_mlx(gradient)}, rate, mx.array(1.0))
    found = torch.tensor(held["w"].astype(mx.float32).tolist())
    assert (found - weight.detach().float()).abs().max() < (1e-6 if dtype == torch.float32 else 0.01)


def test_what_has_no_gradient_stays_and_does_not_count() -> None:
    held = {"a": mx.ones(3), "b": mx.ones(3)}
    optimizer = adamw.AdamW(held, 0.5)
    held = optimizer.step(held, {"a": mx.ones(3)}, 0.1, mx.array(1.0))
    assert held["b"].tolist() == [1, 1, 1] and optimizer.counts == {"a": 1, "b": 0}
    held = optimizer.step(held, {"a": mx.ones(3), "b": mx.ones(3)}, 0.1, mx.array(1.0))
    assert held["b"].tolist() == pytest.approx([0.85] * 3) and optimizer.counts == {"a": 2, "b": 1}


# -- precision, compiled graphs --


def test_bfloat16_computes_in_bfloat16_from_whole_weights() -> None:
    ours, theirs = both(bf16=True, lr=1e-3)
    losses = [[row["loss"] for row in rows if row["kind"] == "step"] for rows in (ours, theirs)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert {weight.dtype for weight in ranks.weights("mlx").values()} == {torch.float32}


def test_pure_bfloat16_halves_weights_and_states() -> None:
    assert runs.train(backend="mlx", bf16="pure")
    assert {weight.dtype for weight in ranks.weights("a").values()} == {torch.bfloat16}
    place = folder().newest()
    assert place
    assert {each.dtype for each in load_file(place / "state" / ON_MLX).values()} == {torch.bfloat16}


def test_compiled_graphs_compute_the_same() -> None:
    """MLX compiles for a CPU too, in seconds a graph."""
    given: dict[str, Any] = {"max_steps": 4, "uniform_prob": 0.5, "backend": "mlx"}
    for name, compiled in (("plain", False), ("compiled", True)):
        assert runs.train(name=name, compile=compiled, **given)
    assert ranks.farthest("plain", "compiled") < 1e-4


# -- interruptions --


class Killed(Exception):
    pass


def killed() -> None:
    raise Killed


GIVEN: dict[str, Any] = {"backend": "mlx", "save_steps": 1, "uniform_prob": 0.5, "reset_optimizer": "never"}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora": {"lora": {"dropout": 0.5}, "latent_variant": "learnable_weights"},
    "bf16": {"bf16": True, "gradient_accumulation_steps": 2, "batch_size_training": 3},
    "pure": {"bf16": "pure"},
}


def uninterrupted(**changes: Any) -> dict[str, Any]:
    assert runs.train(name="whole", **changes)
    return left("whole")


def renamed(files: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """But for what says the run's name."""
    for name, content in files.items():
        if not name.endswith(("run.yaml", "README.md")):
            yield name, content


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_killed_ends_as_one_that_was_not(way: str) -> None:
    given = GIVEN | WAYS[way]
    whole = uninterrupted(**given)
    for step in (2, 2, 3):
        with pytest.raises(Killed):
            runs.train(At(killed, step=step), **given)
    assert runs.train(**given)
    assert dict(renamed(left())) == dict(renamed(whole))


def test_a_run_that_was_asked_to_stop_goes_on() -> None:
    given = GIVEN | {"save_steps": None}
    whole = uninterrupted(**given)
    for step in (1, 4):
        assert not runs.train(At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=step), **given)
    assert runs.train(**given)
    assert dict(renamed(left())) == dict(renamed(whole))


def test_a_damaged_state_is_said() -> None:
    assert runs.train(**GIVEN, max_steps=2)
    place = folder().newest()
    assert place
    kept = place / "state" / ON_MLX
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be gone on from"):
        runs.train(**GIVEN)


@pytest.mark.parametrize(("first", "then"), [("torch", "mlx"), ("mlx", "torch")])
def test_what_one_began_the_other_does_not_go_on_with(
    first: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one machine `auto` is torch, on another MLX."""
    given = GIVEN | {"backend": "auto"}
    monkeypatch.setattr(launch.backend, "choose", lambda asked: first)
    assert runs.train(**given, max_steps=2)
    monkeypatch.setattr(launch.backend, "choose", lambda asked: then)
    with pytest.raises(UserError, match=f"was trained with {first}"):
        runs.train(**given)


def test_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    config = Config(**runs.settings(backend="mlx"))
    with pytest.raises(UserError, match="MLX trains in one process"):
        launch._backend(config, Accelerator(cpu=True))


# -- what is said --


def test_dropout_that_is_left_out_is_said() -> None:
    Path("model.json").write_text(json.dumps(runs.SHAPE))
    said: list[str] = []
    watch = runs.Watch()
    watch.note = said.append  # type: ignore[method-assign]
    assert runs.train(watch, backend="mlx", max_steps=1)
    assert "without the dropout of the model's configuration: resid_pdrop 0.1" in said[0]


def test_auto_is_torch_where_a_run_asks_for_what_mlx_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.backend, "choose", lambda asked: "mlx")
    assert runs.train(backend="auto", dtype="float64", max_steps=1)
    assert {weight.dtype for weight in ranks.weights("a").values()} == {torch.float64}


def test_a_checkpoint_of_mlx_is_one_of_torch() -> None:
    assert runs.train(backend="mlx", lr=1e-2)
    config = Config(**runs.settings(only_eval=True, load_model_path=str(folder().newest()), name="b"))
    found = launch.evaluate_once(config)
    assert found
    (kept,) = folder("b").path.glob(f"eval/*/{PREDICTIONS}")
    mine = [row["output"] for row in lines(folder().evaluation("epoch_3") / PREDICTIONS)]
    assert mine == [row["output"] for row in lines(kept)]
    assert open_checkpoint(folder().path).model.config.thinks
