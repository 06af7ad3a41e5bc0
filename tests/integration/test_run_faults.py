"""What goes wrong in a run is said in words with exit code 2, and nothing that was saved is lost."""

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import At, Said, command, folder, forked, left, make_data, settings, train

from coconut_lm import card, resume
from coconut_lm.answer import Answerer
from coconut_lm.config import Config, dump
from coconut_lm.data.example import Example, read_examples, write_examples
from coconut_lm.engine import TorchEngine
from coconut_lm.model import CoconutForCausalLM


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data()
    configure()


def configure(**changes: Any) -> None:
    dump(Config(**settings(**changes)), "a.yaml")


def wrongly(*words: str, prepare: Callable[[], object] = lambda: None) -> str:
    """The message of a run that fails by what the user can mend."""
    done = command("run", *(words or ["a.yaml"]), prepare=prepare)
    assert done.code == 2, done
    assert "Traceback" not in done.err and "error: " in done.err
    return " ".join(done.err.split())


def well(*words: str) -> Said:
    done = command("run", *(words or ["a.yaml"]))
    assert done.code == 0, done
    return done


def two_epochs() -> dict[str, Any]:
    """A run that was stopped at step 8, and what it had saved."""
    stop = At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=7)
    assert forked(lambda: train(stop)) == 0
    assert folder().newest() == folder().step(8)
    return left()


def patched(owner: Any, name: str, number: int, act: Callable[..., Any]) -> None:
    """The n-th call of a function is another's, here and for ever: only in a process that ends."""
    kept, seen = getattr(owner, name), 0

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        return (act if seen == number else kept)(*args, **kwargs)

    setattr(owner, name, stand_in)


def raising(error: Exception) -> Callable[..., Any]:
    def act(*args: Any, **kwargs: Any) -> Any:
        raise error

    return act


# -- a loss that is no number --


def test_a_loss_that_is_no_number_is_not_learned_from() -> None:
    kept = TorchEngine._loss

    def odd(engine: TorchEngine, *args: Any) -> Any:
        return kept(engine, *args) * float("nan")

    said = wrongly(prepare=partial(patched, TorchEngine, "_loss", 5, odd))
    assert "the loss is nan at step 5: training stops" in said and "lower lr" in said
    assert len(list(folder().path.glob("diverged_at_step_5_rank_0.npz"))) == 1
    assert [line["step"] for line in folder().logged("step")] == [1, 2, 3, 4]
    assert folder().newest() == folder().checkpoint(1)
    well()
    assert folder().newest() == folder().checkpoint(3)


def test_a_gradient_that_is_no_number_is_not_learned_from() -> None:
    act = partial(setattr, TorchEngine, "_clipped", lambda engine: torch.tensor(torch.inf))
    assert "the gradient's norm is inf at step 1" in wrongly(prepare=act)
    assert folder().newest() is None


def test_the_rows_of_a_bad_step_are_kept() -> None:
    nan = torch.tensor(torch.nan, requires_grad=True)
    odd = partial(patched, TorchEngine, "_loss", 2, lambda engine, batch, part: nan)
    wrongly(prepare=odd)
    with np.load(next(folder().path.glob("diverged*.npz"))) as kept:
        assert set(kept) == {"input_ids_0", "labels_0", "index_0"}
        assert len(kept["index_0"]) == len(kept["input_ids_0"]) == 6


# -- no room --

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITERS: dict[str, tuple[Any, str, int]] = {
    "weights": (CoconutForCausalLM, "save_pretrained", 2),
    "card": (card, "write", 2),
    "state": (resume, "save", 2),
    "random numbers": (resume, "_random", 2),
    "bytes": (os, "fsync", 40),
    "rename": (os, "rename", 4),
}


@pytest.mark.parametrize("owner, name, number", WRITERS.values(), ids=WRITERS)
def test_a_full_disk(owner: Any, name: str, number: int) -> None:
    """Wherever it shows while the second checkpoint is written, the first one is whole and goes on."""
    said = wrongly(prepare=partial(patched, owner, name, number, raising(NO_SPACE)))
    assert "the disk is full" in said and "could not be saved" in said and "was saved before is whole" in said
    saved = sorted(path.name for path in (folder().path / "checkpoints").iterdir())
    assert saved == ["checkpoint_1"] and folder().newest() == folder().checkpoint(1)
    well()
    assert folder().newest() == folder().checkpoint(3)


@pytest.mark.parametrize("most", [5000, 20000, 60000])
def test_a_file_that_may_not_grow(most: int) -> None:
    """The system's own refusal, at whichever file is the first that is too large."""
    well("a.yaml", "num_epochs=1")
    before = left()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    said = wrongly("a.yaml", prepare=limit)
    assert "File too large" in said or "could not be saved" in said
    after = left()
    assert {name: after[name] for name in before if "/" in name} == {n: before[n] for n in before if "/" in n}
    assert after["places"] == ["checkpoint_1"]
    well()


@pytest.mark.parametrize("where", ["runs", "runs/a", "runs/a/checkpoints"])
def test_a_folder_that_cannot_be_written(where: str) -> None:
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    Path(where).write_text("in the way")
    said = wrongly()
    assert where in said
    assert Path(where).read_text() == "in the way"


# -- damage --


STATE = ["state/.metadata", "state/__0_0.distcp", "state/random_0.pt", "progress.json"]


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_state_that_was_cut_off(name: str, share: float) -> None:
    before = two_epochs()
    path = folder().step(8) / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    said = wrongly()
    assert str(folder().step(8)) in said
    path.write_bytes(whole)
    after = left()
    assert after == before, "the others and the figures are as they were"


def test_a_state_that_lacks_a_file() -> None:
    two_epochs()
    for name in reversed(STATE[:-1]):
        (folder().step(8) / name).unlink()
        assert "step_8" in wrongly()


def test_checkpoints_without_a_state_are_not_overwritten() -> None:
    two_epochs()
    shutil.rmtree(folder().step(8))
    before = left()
    said = wrongly()
    assert "none that says how to go on" in said
    assert left() == before
    advice = ["load_model_path=runs/a/checkpoints/checkpoint_2", "resume=2"]
    assert f"name=... {' '.join(advice)}" in said
    well("a.yaml", "name=b", *advice)
    assert [line["stage"] for line in folder("b").logged("epoch")] == [2]
    assert folder("b").newest() == folder("b").checkpoint(3)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_weights_that_were_cut_off(name: str) -> None:
    well("a.yaml", "num_epochs=1")
    path = folder().checkpoint(1) / name
    path.write_bytes(path.read_bytes()[:100])
    said = wrongly("a.yaml", "name=b", f"load_model_path={path.parent}")
    assert str(path) in said


# -- another run than the one that was begun --


def test_training_data_that_changed() -> None:
    before = two_epochs()
    examples = read_examples("train.json")
    changed = Example(examples[3].question, examples[3].steps, examples[4].answer)
    write_examples("train.json", [*examples[:3], changed, *examples[4:]], force=True)
    assert "the training data has changed" in wrongly()
    assert left() == before


def test_validation_data_that_changed() -> None:
    """The best accuracy so far is that of other questions."""
    before = two_epochs()
    write_examples("valid.json", read_examples("valid.json")[::-1], force=True)
    assert "the validation data has changed" in wrongly()
    assert left() == before


def test_another_configuration() -> None:
    before = two_epochs()
    said = wrongly("a.yaml", "lr=0.5", "c_thought=2", "save_steps=1")
    assert "lr: 0.001 there, 0.5 now" in said and "c_thought: 1 there, 2 now" in said and "name=" in said
    assert "save_steps" not in said
    assert left() == before


def test_nothing_saved_belongs_to_nobody() -> None:
    """A try with debug, or one that failed before its first checkpoint, does not stand in the way."""
    well("a.yaml", "debug=true")
    well("a.yaml", "lr=0.01")
    assert folder().newest() == folder().checkpoint(3) and len(folder().logged("step")) == 9


def test_another_global_batch() -> None:
    two_epochs()
    said = wrongly("a.yaml", "batch_size_training=3")
    assert "another global batch" in said and "given: 3 rows" in said and "expected: 6" in said
    well("a.yaml", "batch_size_training=3", "gradient_accumulation_steps=2")


# -- memory --

OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words.")
PLACES: dict[str, tuple[Any, str, int]] = {
    "forward": (CoconutForCausalLM, "forward", 2),
    "backward": (torch.Tensor, "backward", 2),
    "optimizer": (torch.optim.AdamW, "step", 1),
    "validation": (Answerer, "_answer", 1),
}


@pytest.mark.parametrize("owner, name, number", PLACES.values(), ids=PLACES)
def test_out_of_memory_names_the_knobs(owner: Any, name: str, number: int) -> None:
    said = wrongly(prepare=partial(patched, owner, name, number, raising(OUT)))
    assert "out of memory" in said and "2.00 GiB" in said and "More words" not in said
    for knob in (
        "batch_size_training=3 gradient_accumulation_steps=2",
        "gradient_checkpointing=true",
        "bf16=true",
        "lora.r=16",
        "eval_batch_size=16",
    ):
        assert knob in said
    well("a.yaml", "batch_size_training=3", "gradient_accumulation_steps=2")


def test_another_error_of_the_machine_is_not_hidden() -> None:
    broken = partial(patched, CoconutForCausalLM, "forward", 2, raising(RuntimeError("a bug")))
    done = command("run", "a.yaml", prepare=broken)
    assert done.code == 70 and "a bug" in done.err


# -- what is given --


def checkpoint_of(name: str, **changes: Any) -> Path:
    train_it = partial(train, **({"name": name, "num_epochs": 1} | changes))
    assert forked(train_it) == 0
    return folder(name).checkpoint(1)


def test_weights_of_another_architecture() -> None:
    shape = json.loads(Path("model.json").read_text()) | {"n_layer": 2}
    Path("deep.json").write_text(json.dumps(shape))
    given = checkpoint_of("b", model_id="deep.json")
    said = wrongly("a.yaml", f"load_model_path={given}")
    assert "does not fit the model" in said and "2 layers" in said and "1 layers" in said
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Path("llama.json").write_text(json.dumps({"model_type": "llama"} | sizes))
    given = checkpoint_of("c", model_id="llama.json")
    said = wrongly("a.yaml", f"load_model_path={given}")
    assert "does not fit the model" in said and "missing: transformer.ln_f" in said and "unexpected: " in said


def test_weights_of_another_vocabulary() -> None:
    given = checkpoint_of("b")
    (given / "tokenizer.json").unlink()
    more = Example("Which is it, this or that?", ("this",), "that")
    write_examples("train.json", [*read_examples("train.json"), more], force=True)
    said = wrongly("a.yaml", f"load_model_path={given}")
    assert "another vocabulary" in said and "tokenizer" in said


def test_weights_that_are_not_there() -> None:
    assert "load_model_path" in wrongly("a.yaml", "load_model_path=runs/none/checkpoint_1")
    assert not folder().config.exists()


@pytest.mark.parametrize("which", ["train", "val"])
@pytest.mark.parametrize("content", ["[]", ""])
def test_data_without_an_example(which: str, content: str) -> None:
    Path("none.json").write_text(content)
    assert "none.json" in wrongly("a.yaml", f"{which}_path=none.json")
    assert not folder().config.exists()


def test_a_row_longer_than_the_positions() -> None:
    examples = read_examples("train.json")
    long = Example("[A] " * 200 + "?", ("one",), "two")
    write_examples("train.json", [*examples[:11], long], force=True)
    done = well("a.yaml", "num_epochs=1")
    assert "training data: dropped 1 of 12 examples" in done.out
    assert len(folder().logged("step")) == 2
    assert "1 of 12 examples" in wrongly("a.yaml", "overlong=error", "name=b")
    write_examples("train.json", [long, long], force=True)
    assert "2 of 2 examples" in wrongly("a.yaml", "name=c")
