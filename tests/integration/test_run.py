"""`coconut-lm run` as a user types it: what it prints, what it leaves, and what is made of that."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pages
import pytest
import torch
from runs import SHAPE, At, Said, command, die, folder, forked, make_data, settings, train
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from coconut_lm import CoconutForCausalLM
from coconut_lm.assembly import open_checkpoint
from coconut_lm.config import Config, dump, load
from coconut_lm.data.example import read_examples
from coconut_lm.methods import METHODS
from coconut_lm.runfolder import Progress
from coconut_lm.tokens import word_tokenizer
from coconut_lm.train import Watch
from coconut_lm.validation import Validator

STEP = {"kind", "step", "epoch", "stage", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds"}
EPOCH = {"kind", "epoch", "stage", "step", "train_loss", "val_loss", "val_accuracy", "val_right", "val_n"}
EPOCH |= {"val_low", "val_high", "val_cot_match", "val_tokens", "seconds"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data(valid=6)
    dump(Config(**settings()), "a.yaml")


def well(*words: object, prepare: Callable[[], object] = lambda: None) -> Said:
    done = command(*words, prepare=prepare)
    assert done.code == 0, done
    return done


def saved(name: str = "a") -> list[str]:
    return sorted(path.name for path in (folder(name).path / "checkpoints").glob("*"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_is_saved_and_evaluated(method: str) -> None:
    done = well("run", "a.yaml", f"method={method}", "lr=0.01", f"name={method}")
    run = folder(method)
    steps, epochs = run.logged("step"), run.logged("epoch")
    assert len(steps) == 9 and len(epochs) == 3 and steps[-1]["loss"] < 0.9 * steps[0]["loss"]
    printed = done.out.splitlines()
    assert [line.split()[1] for line in printed if line.startswith("epoch ")] == ["1/3", "2/3", "3/3"]
    shown = [line for line in printed if line.startswith(("    right: ", "    wrong: "))]
    assert len(shown) == 15, "five predictions after every epoch"
    assert "95 % interval" in done.out and "n = 6" in done.out and f"run folder: runs/{method}" in done.out
    checkpoint = run.checkpoint(3)
    model = CoconutForCausalLM.from_pretrained(checkpoint)
    loaded = open_checkpoint(run.path)
    assert loaded.method == method and loaded.place == checkpoint
    one, other = model.state_dict(), loaded.model.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    metrics = json.loads(well("eval", run.path, "valid.json", "--json").out)
    assert (metrics["n"], metrics["method"]) == (6, method)
    kept = json.loads((run.evaluation("epoch_3") / "metrics.json").read_text("utf-8"))
    for same in ("accuracy", "tokens", "stage", "cot_match", "groups"):
        assert metrics[same] == kept[same], same


def test_what_a_run_leaves() -> None:
    well("run", "a.yaml")
    run = folder()
    assert all(set(line) >= STEP | {"memory"} for line in run.logged("step"))
    epochs = run.logged("epoch")
    assert all(set(line) >= EPOCH for line in epochs)
    assert "monitors" not in epochs[0], "nothing is thought at stage 0"
    assert {"norm_ratio", "cosine", "effective_rank", "gradient_norms"} <= set(epochs[2]["monitors"])
    assert [line["stage"] for line in epochs] == [0, 1, 2]
    assert [(line["epoch"], line["step"]) for line in run.logged("step")][::3] == [(0, 1), (1, 4), (2, 7)]
    environment = json.loads(run.environment.read_text("utf-8"))
    assert {"command", "python", "platform", "world_size"} <= environment.keys()
    assert open_checkpoint(run.checkpoint(2)).progress == Progress.read(run.checkpoint(2))
    assert Progress.read(run.checkpoint(2)).epoch == 2
    names = {path.name for path in run.checkpoint(3).iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "run.yaml",
        "progress.json",
        "state",
    }
    assert not list(Path("runs").rglob("*.partial"))
    assert [(path / "state").exists() for path in run.checkpoints()] == [False, False, True]


def test_a_warning_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = iter(range(100))
    said: list[str] = []
    monkeypatch.setattr(
        "coconut_lm.monitors.warnings", lambda _: [f"seen {next(epochs)} times: look", "x: y"]
    )
    watch = Watch()
    watch.note = said.append  # type: ignore[method-assign]
    train(watch, num_epochs=3)
    assert said == ["seen 0 times: look", "x: y"]


def test_a_learned_window_is_in_the_figures() -> None:
    well("run", "a.yaml", "latent_variant=learnable_weights")
    windows = [line["window"] for line in folder().logged("epoch")]
    assert [len(window) for window in windows] == [3, 3, 3]
    assert windows[2] != windows[1] != windows[0]


# -- what is kept --


def scored(*rates: float) -> None:
    """Epoch n has the n-th accuracy."""
    kept = Validator.__call__

    def call(self: Validator, stage: int, out: Path) -> Any:
        record, predictions = kept(self, stage, out) or ({}, [])
        return record | {"val_accuracy": rates[int(out.name.removeprefix("epoch_")) - 1]}, predictions

    Validator.__call__ = call  # type: ignore[method-assign]


@pytest.mark.parametrize("step", [0, 2, 5, 8])
def test_the_best_accuracy_survives_an_interruption(step: int) -> None:
    """What is worse than the best is not kept, whether the best was seen before or after it."""
    changes: dict[str, Any] = {"save_only_improve": True, "save_steps": 1, "num_epochs": 4}

    def work(at: int) -> None:
        scored(0.5, 0.25, 0.75, 0.6)
        train(At(die, step=at), **changes)

    if step:
        assert forked(partial(work, step)) < 0
    assert forked(partial(work, 0)) == 0
    assert saved() == ["checkpoint_1", "checkpoint_3", "step_12"]
    assert Progress.read(folder().step(12)).best == 0.75 and Progress.read(folder().step(12)).epoch == 4
    assert folder().newest() == folder().step(12)


@pytest.mark.parametrize("keep, names", [(1, ["checkpoint_3"]), (2, ["checkpoint_2", "checkpoint_3"])])
def test_keep_last(keep: int, names: list[str]) -> None:
    well("run", "a.yaml", f"keep_last={keep}")
    assert saved() == names


def test_save_steps_keeps_one_place_to_go_on_from() -> None:
    def work() -> None:
        train(At(die, step=6), save_steps=2)  # killed before the second epoch's end is saved

    assert forked(work) < 0
    assert saved() == ["checkpoint_1", "step_4"]
    assert not (folder().checkpoint(1) / "state").exists()


def test_max_steps_ends_inside_an_epoch_and_can_be_raised() -> None:
    well("run", "a.yaml", "max_steps=4")
    assert len(folder().logged("step")) == 4 and len(folder().logged("epoch")) == 2
    assert saved() == ["checkpoint_1", "step_4"]
    done = well("run", "a.yaml", "max_steps=100")
    assert [line["step"] for line in folder().logged("step")] == list(range(1, 10))
    assert [(line["epoch"], line["step"]) for line in folder().logged("epoch")] == [(0, 3), (1, 6), (2, 9)]
    assert saved() == ["checkpoint_1", "checkpoint_2", "checkpoint_3"] and "epoch 3/3" in done.out


def test_a_task_that_is_not_said_is_seen_in_the_data_and_kept() -> None:
    for _ in range(2):  # the same command goes on
        well("run", "a.yaml", "task=null", "num_epochs=1")
        assert load(folder().checkpoint(1) / "run.yaml").task == "prosqa"


def test_debug_saves_nothing() -> None:
    well("run", "a.yaml", "debug=true", "report_to=tensorboard")
    assert not (folder().path / "checkpoints").exists()
    assert len(folder().logged("epoch")) == 3
    assert {path.name for path in folder().path.iterdir()} == {
        "config.yaml",
        "env.json",
        "eval",
        "metrics.jsonl",
    }


def test_samples() -> None:
    well("run", "a.yaml", "train_samples=7", "eval_samples=2")
    assert len(folder().logged("step")) == 6, "two steps an epoch, the second of one row"
    assert {line["val_n"] for line in folder().logged("epoch")} == {2}


# -- what a run starts from --


@pytest.fixture
def cot() -> Path:
    assert forked(lambda: train(name="cot", method="cot", lr=0.01)) == 0
    return folder("cot").checkpoint(3)


STILL = ("lr=1e-12", "weight_decay=0", "num_epochs=1", "train_samples=6")


def tables(place: Path) -> torch.Tensor:
    return load_file(place / "model.safetensors")["base_causallm.transformer.wte.weight"]


@pytest.mark.parametrize("given", ["checkpoint", "run folder"])
def test_thinking_starts_from_a_chain_of_thought(cot: Path, given: str) -> None:
    """Its weights, with rows for the new tokens; a vocabulary of words is the checkpoint's own."""
    source = cot if given == "checkpoint" else folder("cot").path
    Path("train.json").write_text(json.dumps([e.to_json() for e in reversed(read_examples("train.json"))]))
    well("run", "a.yaml", f"load_model_path={source}", *STILL)
    before, after = tables(cot), tables(folder().checkpoint(1))
    assert len(after) == len(before) + 3
    torch.testing.assert_close(after[:-3], before, atol=1e-6, rtol=0)
    torch.testing.assert_close(after[-3:], before.mean(0).expand(3, -1), atol=1e-6, rtol=0)
    words = [open_checkpoint(place).tokenizer.get_vocab() for place in (cot, folder().checkpoint(1))]
    assert words[0].items() <= words[1].items()


def test_new_rows_start_from_the_first_token_of_the_text(cot: Path) -> None:
    """A vocabulary of words has no <<: it is written with <unk>, whose row is taken."""
    well("run", "a.yaml", f"load_model_path={cot}", "new_token_init=<<", *STILL)
    loaded = open_checkpoint(folder().path)
    rows = tables(folder().checkpoint(1))
    for new in (loaded.tokens.start, loaded.tokens.end, loaded.tokens.latent):
        torch.testing.assert_close(rows[new], rows[loaded.tokenizer.unk_token_id], atol=1e-6, rtol=0)


def test_a_model_with_its_tokenizer_from_a_folder() -> None:
    """What a hub id stands for: any causal language model that transformers has saved."""
    texts = [" ".join([e.question, *e.steps, e.answer]) for e in read_examples("train.json")]
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(3)
    base = GPT2LMHeadModel(GPT2Config(**SHAPE | {"vocab_size": len(tokenizer)}))
    base.save_pretrained("org/model")
    tokenizer.save_pretrained("org/model")
    well("run", "a.yaml", "model_id=org/model", "tokenizer=null", *STILL)
    after = tables(folder().checkpoint(1))
    torch.testing.assert_close(after[:-3], base.transformer.wte.weight.data, atol=1e-6, rtol=0)
    shutil.rmtree("org")
    assert isinstance(AutoModelForCausalLM.from_pretrained(folder().checkpoint(1)), CoconutForCausalLM)


@pytest.mark.parametrize(("more", "stage"), [([], 2), (["resume=1"], 1), (["resume=1", "eval_stage=0"], 0)])
def test_only_eval_asks_as_the_checkpoint_was_trained_last(more: list[str], stage: int) -> None:
    """`resume` of a run that began at its beginning says nothing of its end."""
    well("run", "a.yaml")
    well("run", "a.yaml", "only_eval=true", f"load_model_path={folder().path}", "name=b", *more)
    (kept,) = folder("b").path.glob("eval/*/metrics.json")
    assert json.loads(kept.read_text("utf-8"))["stage"] == stage


def test_what_mlx_does_not_do_is_said_before_a_model_loads() -> None:
    for key, word in {"gradient_checkpointing": "true", "dtype": "float64", "fsdp": "full"}.items():
        done = command("run", "a.yaml", "backend=mlx", f"{key}={word}")
        assert done.code == 2 and "mlx" in done.err and key in done.err and not folder().metrics.exists()


@pytest.mark.parametrize("thoughts", [0, 2])
def test_only_eval(thoughts: int) -> None:
    well("run", "a.yaml")
    place = folder().checkpoint(3)
    words = ["run", "a.yaml", "only_eval=true", f"load_model_path={place}", "name=b", "train_path=null"]
    done = well(*words, f"eval_stage={thoughts}")
    (kept,) = folder("b").path.glob("eval/*/metrics.json")
    metrics = json.loads(kept.read_text("utf-8"))
    assert (metrics["n"], metrics["stage"], metrics["thoughts"]) == (6, thoughts, thoughts)
    assert "accuracy" in done.out and str(kept.parent) in done.err
    assert not (folder("b").path / "checkpoints").exists()
    if thoughts == 2:
        record = folder().logged("epoch")[-1]
        assert (metrics["accuracy"]["right"], metrics["tokens"]["mean"]) == (
            record["val_right"],
            record["val_tokens"],
        )


def test_the_page_of_runs_shows_how_it_is_done_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", pages.page("api/runs"), flags=re.S | re.M)
    exec(block.replace("configs/debug.yaml", "a.yaml").replace("data/prosqa_valid.json", "valid.json"), {})
    assert "'n': 6" in capsys.readouterr().out and saved("mine")
