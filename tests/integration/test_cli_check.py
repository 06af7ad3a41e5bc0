"""`coconut-lm check` as a user types it: runs that are as they should be, and some that are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import make_data, settings
from typer.testing import CliRunner, Result

from coconut_lm import checkup, launch
from coconut_lm.assembly import Loaded, heart
from coconut_lm.cli import app
from coconut_lm.data.example import Example, read_examples, write_examples
from coconut_lm.feedback import LastHidden
from coconut_lm.methods import METHODS

NAMES = ["data", "rows", "lengths", "vocabulary", "new rows", "passes", "loss", "thoughts"]
NAMES += ["gradient through thoughts", "gradient to weights", "answer", "memory"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data()
    Path("run.yaml").write_text(yaml.safe_dump(settings()))


def check(*words: str) -> Result:
    return CliRunner().invoke(app, ["check", "run.yaml", *words], env={"COLUMNS": "120"})


def findings(*words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    done = check(*words, "--json")
    assert done.exit_code == code, done.output or repr(done.exception)
    return {each["name"]: each for each in json.loads(done.stdout, parse_constant=pytest.fail)}


def broken(monkeypatch: pytest.MonkeyPatch, break_it: Callable[[Loaded], None]) -> None:
    assemble = launch.assemble

    def assembled(*args: Any) -> Loaded:
        loaded = assemble(*args)
        break_it(loaded)
        return loaded

    monkeypatch.setattr(launch, "assemble", assembled)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes(method: str) -> None:
    found = findings(f"method={method}")
    assert list(found) == NAMES and all(each["ok"] for each in found.values())


def test_what_is_shown() -> None:
    done = check()
    assert done.exit_code == 0 and done.stderr == ""
    for part in (
        "ok   data  18 to train on, 4 to validate, task prosqa",
        "shortcut floor",
        "stage 2  ",
        "<|start-latent|>·<|latent|>·<|latent|>·<|end-latent|>",
        "pass 2 reads columns",
        "the row of << (",
        "ok   gradient to weights  reaches all 16 groups of weights",
    ):
        assert part in done.stdout
    assert "pass 2 reads" not in check("--brief").stdout
    assert not Path("runs/a").exists()


def test_validation_on_what_was_trained_on_is_off() -> None:
    done = check("--brief", "train_path=valid.json")
    assert done.exit_code == 1 and "OFF  data" in done.stdout and "4 questions in both" in done.stdout


def test_the_figures_are_there_for_machines() -> None:
    found = findings("c_thought=2")
    assert found["rows"]["stages"]["2"]["thoughts"] == 4
    assert found["new rows"]["norms"].keys() == {"<|start-latent|>", "<|end-latent|>", "<|latent|>"}
    assert found["new rows"]["equal_to_seed"] is False  # the mean row
    assert found["passes"]["passes"] == 5
    assert {"4 thoughts", "the same rows without thoughts", "guessing"} <= found["loss"].keys()
    assert len(found["gradient through thoughts"]["gradient_norms"]) == 4
    assert found["thoughts"]["norm_ratio"] > 0
    assert found["memory"]["needed"] < found["memory"]["there"]


def test_new_rows_start_from_where_they_are_told() -> None:
    assert findings("new_token_init=<<")["new rows"]["equal_to_seed"] is True
    adapted = findings("lora.r=2")
    assert adapted["new rows"]["ok"] and adapted["gradient to weights"]["zero"] == []


# -- what is off --


def test_a_detached_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detached(LastHidden):
        def forward(self, *given: Any) -> torch.Tensor:
            return super().forward(*given).detach()

    broken(monkeypatch, lambda loaded: setattr(heart(loaded.model), "feedback", Detached()))
    done = check("--brief")
    assert done.exit_code == 1
    assert "OFF  gradient through thoughts  none passes thought 1, 2 of 2" in done.stdout


def test_frozen_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def freeze(loaded: Loaded) -> None:
        heart(loaded.model).get_input_embeddings().requires_grad_(False)

    broken(monkeypatch, freeze)
    found = findings(code=1)
    assert not found["new rows"]["ok"] and found["new rows"]["detail"].endswith("frozen")


def test_weights_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(loaded: Loaded) -> None:
        with torch.no_grad():
            heart(loaded.model).base_causallm.base_model.ln_f.weight.fill_(torch.nan)

    broken(monkeypatch, spoil)
    found = findings(code=1)
    assert not found["loss"]["ok"] and found["loss"]["2 thoughts"] is None


def test_data_of_two_tasks_or_without_answers() -> None:
    assert findings("task=gsm8k", code=1)["data"]["detail"].endswith("of several tasks: gsm8k, prosqa")
    first, *rest = read_examples("train.json")
    blank = Example(first.question, first.steps, "", first.extra)
    write_examples("train.json", [blank, *rest], force=True)
    assert "1 without an answer" in findings(code=1)["data"]["detail"]


def test_too_little_memory_is_said_with_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = findings()["memory"]["needed"]
    monkeypatch.setattr(checkup, "memory_of", lambda device: needed - 1)
    found = findings(code=1)["memory"]
    assert found["detail"].endswith(" would do")
    monkeypatch.setattr(checkup, "memory_of", lambda device: 1)
    assert findings(code=1)["memory"]["detail"].endswith("see coconut-lm plan")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr=fast", "lr: given 'fast'"),
        ("train_path=nothing.json", "no such file"),
        ("only_eval=true", "this configuration"),
        ("max_seq_length=9", "too long"),
        ("overlong=error", "too long"),
    ],
)
def test_a_mistake_is_one_message(word: str, said: str) -> None:
    more = ["load_model_path=model.json"] if "only" in word else []
    more += ["max_seq_length=30"] if "error" in word else []
    done = check(word, *more)
    assert done.exit_code == 2 and done.stdout == "" and said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_dropped_is_told() -> None:
    first, *rest = read_examples("train.json")
    long = Example(" ".join([first.question] * 3), first.steps, first.answer, first.extra)
    write_examples("train.json", [long, *rest], force=True)
    limit = findings("max_seq_length=9999")["rows"]["stages"]["0"]["tokens"] + 20
    told = findings(f"max_seq_length={limit}")["lengths"]["detail"]
    assert f"training data: dropped 1 of 18 examples, whose rows are longer than {limit} tokens" in told
