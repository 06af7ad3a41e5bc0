"""`coconut-lm eval` as a user types it, on saved tiny checkpoints."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from saved import CHECKPOINT, EXAMPLES, RUN, save, stand, texts
from tiny import base_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from coconut_lm import word_tokenizer
from coconut_lm.answer import Answerer
from coconut_lm.assembly import open_checkpoint
from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.evaluate import Reply
from coconut_lm.methods import Row
from coconut_lm.tokens import encode

NUMBERS = [Example("Two and one?", ("<<2+1=3>>",), "3")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand(tmp_path, monkeypatch)


def evaluate(*words: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, words)], env={"COLUMNS": "100"})


def well(*words: object) -> dict[str, Any]:
    done = evaluate(*words, "--json")
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wrongly(*words: object) -> str:
    """The message; nothing is left behind."""
    before = sorted(Path().rglob("*"))
    done = evaluate(*words)
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    assert sorted(Path().rglob("*")) == before
    return done.stderr


def test_a_run_folder_is_evaluated_into_itself() -> None:
    done = evaluate(RUN, "prosqa.json", "--batch-1", 2)
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    out = Path(RUN, "eval", "prosqa-checkpoint_4-stage2")
    assert f"files in {out.absolute()}" in done.stderr or f"files in {out}" in done.stderr
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert (metrics["stage"], metrics["thoughts"], metrics["task"], metrics["n"]) == (2, 2, "prosqa", 12)
    assert metrics["checkpoint"].endswith("checkpoint_4") and metrics["seconds"]["batch_size"] == 5
    assert metrics["flops"]["mean"] > 2 * metrics["passes"]["mean"] * 24 * 32**2  # two layers, width 32
    assert metrics["seconds"]["per_example_batch_1"] > 0 and metrics["peak_memory"] > 2**20
    lines = [line.split() for line in done.stdout.splitlines()]
    right = f"{metrics['accuracy']['rate']:.1%}"
    assert next(line for line in lines if line[:1] == ["accuracy"])[1] == right
    for part in ("95 % interval", "3 steps", "floor: first option", "forward passes", "one at a time"):
        assert part in done.stdout
    assert len((out / "predictions.jsonl").read_text("utf-8").splitlines()) == 12


def test_one_is_singular_and_a_group_of_all_is_left_out() -> None:
    done = evaluate(CHECKPOINT, "prosqa.json", "--thoughts", 1, "--samples", 1, "--max-new-tokens", 1)
    assert "1 thought," in done.stdout and "1 output did not end within 1 tokens" in " ".join(
        done.stdout.split()
    )
    assert "shortcut" not in done.stdout


def test_stage_and_thoughts_are_what_is_asked() -> None:
    whole = well(CHECKPOINT, "prosqa.json", "--stage", 0)
    assert (whole["stage"], whole["thoughts"]) == (0, 0) and whole["cot_match"]["n"] == 12
    more = well(CHECKPOINT, "prosqa.json", "--thoughts", 5, "--samples", 4, "--max-new-tokens", 3)
    assert (more["stage"], more["thoughts"], more["n"]) == (2, 5, 4) and more["tokens"]["written"] <= 3
    last = well(CHECKPOINT, "prosqa.json", "--stage", 9, "--out", "here")
    assert last["thoughts"] == 3 and last["cot_match"] is None
    assert Path("here/metrics.json").is_file()
    assert sorted(path.name for path in Path(RUN, "eval").iterdir()) == [
        "prosqa-checkpoint_4-stage0",
        "prosqa-checkpoint_4-stage2-thoughts5-first4",
    ]


def test_the_stage_that_a_run_asks_for() -> None:
    save("b", eval_stage=1)
    assert well("b", "prosqa.json")["stage"] == 1
    (Path("b") / "progress.json").unlink()
    save("c", resume=3, epochs_per_stage=2, num_epochs=9)
    (Path("c") / "progress.json").unlink()
    assert well("c", "prosqa.json")["stage"] == 1  # of epoch 3, where the run would go on


def test_the_same_in_any_batch() -> None:
    found = [
        well(CHECKPOINT, "prosqa.json", "--batch-size", size, "--out", f"b{size}") for size in (1, 7, 64)
    ]
    kept = ("accuracy", "cot_match", "tokens", "passes", "groups")
    assert len({json.dumps([metrics[key] for key in kept]) for metrics in found}) == 1


def test_reference_scoring_has_a_folder_of_its_own() -> None:
    metrics = well(CHECKPOINT, "prosqa.json", "--scoring", "reference")
    assert metrics["scoring"] == "reference" and metrics["max_new_tokens"] == 128
    assert Path(RUN, "eval", "prosqa-checkpoint_4-stage2-reference", "metrics.json").is_file()


def test_questions_asked_of_the_other_entity() -> None:
    metrics = well(CHECKPOINT, "prosqa.json", "--swap", "--out", "s", "--max-new-tokens", 4)
    assert metrics["n"] == 12 and metrics["swaps"]["n"] == 12
    assert metrics["swaps"]["consistency"]["right"] <= metrics["swaps"]["accuracy"]["right"]
    assert len(Path("s/swapped/predictions.jsonl").read_text("utf-8").splitlines()) == 12
    write_examples(
        "pairs.json", prosqa.make(3, seed=2, nodes=8, edges=6, hops=3, shape="sized", counterfactual=True)
    )
    assert well(CHECKPOINT, "pairs.json", "--max-new-tokens", 4)["swaps"]["n"] == 3


def test_a_plain_language_model_writes_its_steps() -> None:
    tokenizer = word_tokenizer(texts(EXAMPLES))
    base = base_model("gpt2", vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(base.config).save_pretrained("plain")
    tokenizer.save_pretrained("plain")
    metrics = well("plain", "prosqa.json", "--max-new-tokens", 5)
    assert (metrics["method"], metrics["stage"], metrics["thoughts"]) == ("cot", 0, 0)
    assert Path("eval", "prosqa-plain-stage0", "metrics.json").is_file()
    assert "impossible thoughts for method cot" in wrongly("plain", "prosqa.json", "--thoughts", 2)


def test_an_interrupted_evaluation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = Answerer.__call__

    def stops(self: Answerer, prompts: Sequence[Row]) -> list[Reply]:
        if len(asked) >= 10:
            raise KeyboardInterrupt
        asked.extend(prompt.index for prompt in prompts)
        return answer(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "__call__", stops)
        done = evaluate(RUN, "prosqa.json")
        assert done.exit_code == 130 and "stopped" in done.stderr
        assert len(asked) == 10
        with pytest.raises(StopIteration):
            next(Path(RUN, "eval").rglob("predictions.jsonl"))
        asked[:] = []
        metrics = well(RUN, "prosqa.json")
        assert len(asked) == 2 and metrics["n"] == 12
    again = well(CHECKPOINT, "prosqa.json", "--out", "whole")
    assert [again[key] for key in ("accuracy", "tokens")] == [metrics[key] for key in ("accuracy", "tokens")]


def test_a_checkpoint_that_was_trained_on_is_another() -> None:
    well(CHECKPOINT, "prosqa.json", "--out", "e")
    save(CHECKPOINT, c_thought=2)
    message = wrongly(CHECKPOINT, "prosqa.json", "--out", "e")
    assert "holds the results of another job" in message and "weights" in message and "--force" in message
    assert well(CHECKPOINT, "prosqa.json", "--out", "e", "--force")["thoughts"] == 4


def test_data_of_another_task() -> None:
    write_examples("g.json", NUMBERS)
    message = wrongly(RUN, "g.json")
    assert "given:    gsm8k" in message and "expected: prosqa" in message and "--task gsm8k" in message
    assert well(RUN, "g.json", "--task", "gsm8k", "--max-new-tokens", 2)["task"] == "gsm8k"
    assert well(RUN, "g.json", "--task", "plain", "--max-new-tokens", 2, "--out", "p")["task"] == "plain"


def test_more_thoughts_than_positions() -> None:
    message = wrongly(RUN, "prosqa.json", "--thoughts", 500)
    assert "more thoughts than the model has positions for" in message and "at most 127" in message
    assert "ask for fewer thoughts" in message


def test_a_thinking_checkpoint_without_its_run_must_be_told() -> None:
    (Path(CHECKPOINT) / "run.yaml").unlink()
    (Path(CHECKPOINT) / "progress.json").unlink()
    assert "add --thoughts N, or --config" in wrongly(CHECKPOINT, "prosqa.json")
    metrics = well(CHECKPOINT, "prosqa.json", "--thoughts", 2)
    assert metrics["thoughts"] == 2 and metrics["cot_match"] is None


def test_weights_that_come_alone_with_the_configuration_of_their_run() -> None:
    tokenizer = word_tokenizer(texts(EXAMPLES))
    base = base_model("gpt2", vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0)
    base.save_pretrained("base")
    tokenizer.save_pretrained("base")
    dump(Config(method="coconut", model_id="base", max_latent_stage=3), Path("run.yaml"))
    weights = f"{CHECKPOINT}/model.safetensors"
    assert "--config" in wrongly(weights, "prosqa.json")
    metrics = well(weights, "prosqa.json", "--config", "run.yaml", "--stage", 2, "--out", "w")
    whole = well(CHECKPOINT, "prosqa.json")
    assert [metrics[key] for key in ("accuracy", "tokens")] == [whole[key] for key in ("accuracy", "tokens")]


def test_a_split_of_a_folder() -> None:
    splits = {"valid": datasets.Dataset.from_list([example.to_json() for example in EXAMPLES[:3]])}
    datasets.DatasetDict(splits | {"test": splits["valid"].select([0])}).save_to_disk("folder")
    assert "has several splits" in wrongly(RUN, "folder")
    assert well(RUN, "folder", "--split", "test")["n"] == 1


def test_what_is_no_checkpoint() -> None:
    Path("empty").mkdir()
    Path("weights").write_bytes(b"no weights")
    for place in ("nowhere/at/all", "empty", "weights", "prosqa.json"):
        assert wrongly(place, "prosqa.json").startswith("error: "), place
    assert "holds no checkpoint yet" in wrongly(_run_without_checkpoints(), "prosqa.json")


def _run_without_checkpoints() -> str:
    dump(Config(method="cot", model_id="gpt2"), Path("young") / "config.yaml")
    return "young"


def test_files_cannot_go_into_a_file() -> None:
    assert "it is not a folder" in wrongly(RUN, "prosqa.json", "--out", "prosqa.json")


def test_only_prosqa_can_be_swapped() -> None:
    write_examples("g.json", NUMBERS)
    assert "only ProsQA" in wrongly(CHECKPOINT, "g.json", "--task", "gsm8k", "--swap")


def test_help_has_an_example() -> None:
    done = evaluate("--help")
    assert done.exit_code == 0 and "Example: coconut-lm eval" in done.stdout


def test_thoughts_are_put_into_words_when_asked_for() -> None:
    well(RUN, "prosqa.json", "--decode", 2, "--out", "eval")
    found = json.loads(Path("eval/thoughts.json").read_text())
    asked = [json.loads(line) for line in Path("eval/predictions.jsonl").read_text().splitlines()]
    assert [each["output"] for each in found] == [each["output"] for each in asked[:2]]
    assert [len(each["thoughts"]) for each in found] == [2, 2]


def test_a_folder_that_is_no_checkpoint_and_one_that_is_not_there() -> None:
    Path("empty").mkdir()
    assert "empty is no checkpoint" in wrongly("empty", "prosqa.json")
    assert "nowhere, which is no folder here" in wrongly("nowhere", "prosqa.json")
    assert "a file, which does not say what model" in wrongly("prosqa.json", "prosqa.json")


def test_what_the_documentation_shows(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    loaded = open_checkpoint(CHECKPOINT)
    names = {"tokenizer": loaded.tokenizer, "examples": EXAMPLES}
    names["rows"] = loaded.rows(encode(EXAMPLES, loaded.tokenizer))
    exec(block, names | {"generate": Answerer(loaded.model, loaded.tokens, 4)})
    assert "'n': 12" in capsys.readouterr().out
