"""Commands with `--backend mlx`, on a checkpoint that torch saved: what torch prints, example by example."""

import json
from pathlib import Path
from typing import Any

import pytest
from saved import CHECKPOINT, EXAMPLES, RUN, save
from tiny import base_model
from typer.testing import CliRunner

from coconut_lm import CoconutForCausalLM, backend, load_tokenizer
from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.runfolder import RunFolder, lines

BACKENDS = ["torch", "mlx"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(CHECKPOINT)
    dump(Config(method="coconut", model_id="gpt2"), Path(RUN) / "config.yaml")
    return tmp_path


def told(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    return done.stdout


def wrongly(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "100"})
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    return done.stderr


def alike(one: Any, other: Any) -> bool:
    """But for time and rounding."""
    if isinstance(one, dict):
        kept = [{k: v for k, v in each.items() if k not in ("seconds", "created")} for each in (one, other)]
        return kept[0].keys() == kept[1].keys() and all(alike(kept[0][k], kept[1][k]) for k in kept[0])
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == (pytest.approx(other, rel=1e-3, abs=1e-4) if isinstance(one, float) else other))


def test_predictions_of_what_torch_saved_are_torchs() -> None:
    metrics = {}
    for each in BACKENDS:
        words = ["--backend", each, "--out", each, "--decode", 3, "--swap", "--batch-1", 2, "--json"]
        metrics[each] = json.loads(told("eval", RUN, "prosqa.json", *words))
    ours, theirs = (list(lines(Path(each, "predictions.jsonl"))) for each in ("mlx", "torch"))
    assert len(ours) == len(EXAMPLES) and len({row["output"] for row in ours}) > 1
    assert alike(ours, theirs)
    assert metrics["mlx"]["accuracy"] == metrics["torch"]["accuracy"]
    assert metrics["mlx"]["swaps"] == metrics["torch"]["swaps"]
    assert metrics["mlx"]["memory_of"] == "MLX arrays" and metrics["mlx"]["peak_memory"] > 2**16
    assert alike(*(json.loads(Path(each, "thoughts.json").read_text("utf-8")) for each in BACKENDS))


def test_ask_says_what_torch_says() -> None:
    words = [CHECKPOINT, EXAMPLES[0].question, "--thoughts", "0-3", "--json", "--max-new-tokens", 6]
    assert alike(*(json.loads(told("ask", *words, "--backend", each)) for each in BACKENDS))


@pytest.mark.parametrize(
    "words",
    [
        ["robustness", "--noise", "gaussian_scaled,snr", "--scales", ".2,1"],
        ["branches", "--branches", "3", "--scales", ".2"],
        ["battery"],
    ],
    ids=lambda words: words[0],
)
def test_studies_find_what_torch_finds(words: list[str]) -> None:
    command, *more = words
    for each in BACKENDS:
        told(
            command, CHECKPOINT, "prosqa.json", *more, "--max-new-tokens", 4, "--backend", each, "--out", each
        )
    ours, theirs = (list(lines(Path(each, "predictions.jsonl"))) for each in ("mlx", "torch"))
    assert ours and alike(ours, theirs)
    assert all(row["success"] for row in ours)


def test_compare_evaluates_on_mlx() -> None:
    told(
        "compare",
        CHECKPOINT,
        CHECKPOINT,
        "prosqa.json",
        "--thoughts-b",
        0,
        "--backend",
        "mlx",
        "--out",
        "both",
    )
    assert json.loads(Path("both/a1/metrics.json").read_text("utf-8"))["memory_of"] == "MLX arrays"


def test_a_checkpoint_computes_on_what_its_run_was_made_with() -> None:
    save(CHECKPOINT, backend="mlx")
    metrics = json.loads(told("eval", RUN, "prosqa.json", "--samples", 2, "--json"))
    assert metrics["memory_of"] == "MLX arrays"
    metrics = json.loads(
        told("eval", RUN, "prosqa.json", "--samples", 2, "--json", "--backend", "torch", "-o", "t")
    )
    assert metrics["memory_of"] == "process"


def test_without_mlx_it_is_said_or_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run was made with is no order to who asks its checkpoint elsewhere."""
    monkeypatch.setattr(backend, "mlx_is_there", lambda: False)
    assert 'pip install "coconut-lm[mlx]"' in wrongly("eval", RUN, "prosqa.json", "--backend", "mlx")
    save(CHECKPOINT, backend="mlx")
    assert json.loads(told("eval", RUN, "prosqa.json", "--json"))["memory_of"] == "process"


def test_auto_is_mlx_on_apple_silicon_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, machine, chosen in [
        ("Darwin", "arm64", "mlx"),
        ("Darwin", "x86_64", "torch"),
        ("Linux", "aarch64", "torch"),
    ]:
        monkeypatch.setattr("platform.system", lambda system=system: system)
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert backend.choose() == chosen
    assert backend.choose("torch") == "torch" and backend.choose("mlx") == "mlx"


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_few_bits(bits: int) -> None:
    """Another evaluation than that of the whole weights, in a folder of its own."""
    tokenizer = load_tokenizer(CHECKPOINT)
    base = base_model("llama", vocab_size=128, hidden_size=64, intermediate_size=96, head_dim=16)
    CoconutForCausalLM.from_base(base.float(), tokenizer).save_pretrained(CHECKPOINT)
    words = ["eval", RUN, "prosqa.json", "--thoughts", 2, "--max-new-tokens", 4, "--backend", "mlx"]
    told(*words)
    told(*words, "--quantize", bits)
    found = {path.name for path in RunFolder(Path(RUN)).path.glob("eval/*")}
    assert found == {f"prosqa-checkpoint_4-stage2-thoughts2-mlx{more}" for more in ("", f"-{bits}bit")}
    assert "4 or 8 bits" in wrongly(*words, "--quantize", 5)
    assert "only MLX" in wrongly(*words[:-1], "torch", "--quantize", bits)


def test_an_evaluation_by_torch_is_not_taken_for_one_on_mlx() -> None:
    words = ["eval", RUN, "prosqa.json", "--thoughts", 2, "--max-new-tokens", 4, "--json"]
    ways = [json.loads(told(*words, "--backend", each)) for each in ("torch", "mlx")]
    assert [each["backend"] for each in ways] == ["torch", "mlx"]
    assert len(list(RunFolder(Path(RUN)).path.glob("eval/*"))) == 2
    told(*words, "--backend", "torch", "--out", "here")
    assert "another job" in wrongly(*words, "--backend", "mlx", "--out", "here")


def test_auto_leaves_to_torch_what_mlx_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    words = ["eval", RUN, "prosqa.json", "--thoughts", 2, "--max-new-tokens", 4, "--json"]
    assert json.loads(told(*words, "--out", "a"))["memory_of"] == "MLX arrays"
    base = base_model("gemma2", vocab_size=128).float()
    CoconutForCausalLM.from_base(base, load_tokenizer(CHECKPOINT)).save_pretrained(CHECKPOINT)
    assert json.loads(told(*words, "--out", "b"))["memory_of"] == "process"
    assert "cannot think on MLX" in wrongly(*words, "--backend", "mlx")
