"""`coconut-lm compare` as it is typed: on files of predictions and on checkpoints."""

import json
import re
import shlex
from pathlib import Path

import pytest
from predicted import predicted, put
from scipy.stats import binomtest
from tiny import base_model
from typer.testing import CliRunner, Result

from coconut_lm import CoconutForCausalLM, add_latent_tokens, word_tokenizer
from coconut_lm.cli import app
from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.runfolder import write_json

A = [True] * 60 + [True] * 15 + [False] * 25 + [False] * 20  # both, only A, only B, neither
B = [True] * 60 + [False] * 15 + [True] * 25 + [False] * 20
FILES = ("cot/predictions.jsonl", "thinks/predictions.jsonl")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put(FILES[0], predicted(A))
    put(FILES[1], predicted(B, thoughts=6, written=2, seconds=0.1))
    return tmp_path


def compare(*words: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, words)], env={"COLUMNS": "100"})


def wrongly(*words: object) -> str:
    done = compare(*words)
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    return done.stderr


def test_files_side_by_side() -> None:
    done = compare(*FILES, "--margin", 5, "--examples", 2)
    assert done.exit_code == 0 and done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["accuracy", "62.50%", "70.83%", "+8.33", "points"] in lines
    assert ["average", "tokens", "21.0", "9.0", "-57.1%"] in lines
    assert f"McNemar: p = {binomtest(15, 40).pvalue:.4f}; 60 both right, 15 only cot" in done.stdout
    assert "Non-inferiority: thinks is at most 5 points worse than cot" in done.stdout
    assert done.stdout.count("What is") == 2 and "### 60 too many  (wrong, 8 tokens)" in done.stdout


def test_folders_of_evaluations_and_the_first_samples() -> None:
    done = compare("cot", "thinks", "--samples", 70, "--json", "--examples", 0)
    told = json.loads(done.stdout)
    assert told["n"] == 70 and told["pairs"] == {"both": 60, "only_a": 10, "only_b": 0, "neither": 0}
    assert told["p"] == binomtest(10, 10).pvalue and told["a"]["name"] == "cot"


def test_what_was_asked_differently_is_said() -> None:
    asked = {
        "method": "cot",
        "stage": 0,
        "scoring": "tolerant",
        "max_new_tokens": 64,
        "seconds": {"batch_size": 8},
    }
    write_json("cot/metrics.json", asked)
    assert "stage" not in compare(*FILES, "--examples", 0).stdout, "the other's are not known"
    write_json(
        "thinks/metrics.json", asked | {"stage": 3, "scoring": "reference", "seconds": {"batch_size": 1}}
    )
    lines = [line.split() for line in compare("cot", "thinks", "--examples", 0).stdout.splitlines()]
    assert ["stage", "0", "3"] in lines and ["scoring", "tolerant", "reference"] in lines
    assert ["questions", "at", "a", "time", "8", "1"] in lines and ["method", "cot", "cot"] not in lines
    told = json.loads(compare("cot", "thinks", "--json").stdout)
    assert ["stage", "0", "3"] in told["apart"]
    Path("cot/metrics.json").write_text("{")
    assert compare("cot", "thinks").exit_code == 0


def test_what_is_written() -> None:
    assert compare(*FILES, "--out", "both").exit_code == 0
    told = json.loads(Path("both/comparison.json").read_text())
    assert len(told["examples"]) == 5 and told["non_inferiority"]["verdict"] == "undecided"
    text = Path("both/comparison.md").read_text()
    assert text.startswith("# thinks against cot, 120 examples") and text.count("## Example") == 5


def test_seeds_with_commas_between() -> None:
    put("cot2/predictions.jsonl", predicted(B))
    done = compare("cot,cot2", "thinks,thinks", "--json", "--out", "both")
    told = json.loads(done.stdout)
    assert told["seeds"]["difference"]["n"] == 2
    assert told["seeds"]["difference"]["mean"] == pytest.approx((10 + 0) / 240)
    assert [each["p"] for each in told["comparisons"]] == [binomtest(15, 40).pvalue, 1.0]
    assert Path("both/comparison.md").read_text().startswith("- Over 2 seeds")


def test_mistakes_are_told() -> None:
    put("other/predictions.jsonl", predicted(B)[:100])
    assert "100 in A, 120 in B, 100 in both" in wrongly("other", "thinks")
    assert "name the examples (coconut-lm compare A B DATA)" in wrongly("cot", "nothing")
    assert "seeds are compared in pairs" in wrongly("cot,cot", "thinks")
    assert "written already" in wrongly("cot", "thinks", "--stage-b", 1)
    assert "could be loaded" in wrongly("cot", "nothing", "examples.json")
    write_examples("examples.jsonl", prosqa.make(3, seed=1))
    assert "examples.jsonl holds no predictions" in wrongly("cot", "examples.jsonl")


@pytest.fixture
def checkpoint(folder: Path) -> Path:
    """A model that thinks, and examples for it."""
    examples = list(prosqa.make(12, seed=1))
    write_examples("valid.json", examples)
    tokenizer = word_tokenizer(
        text for each in examples for text in (each.question, *each.steps, each.answer)
    )
    base = base_model("gpt2", vocab_size=len(tokenizer), n_positions=512)
    add_latent_tokens(tokenizer)
    CoconutForCausalLM.from_base(base, tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def test_a_checkpoint_against_itself_with_other_thoughts(checkpoint: Path) -> None:
    asked = (checkpoint, checkpoint, "valid.json", "--thoughts-a", 0, "--thoughts-b", 3, "--samples", 7)
    done = compare(*asked, "--batch-size", 4, "--out", "both", "--json")
    assert done.exit_code == 0, done.output or repr(done.exception)
    told = json.loads(done.stdout)
    assert (told["a"]["name"], told["b"]["name"]) == ("thoughts 0", "thoughts 3")
    assert told["n"] == 7 and told["b"]["thoughts"] == 3 and told["b"]["tokens"] == told["b"]["written"] + 3
    for side, name in (("a", "a1"), ("b", "b1")):
        metrics = json.loads(Path(f"both/{name}/metrics.json").read_text())
        assert metrics["accuracy"]["right"] == told[side]["right"]
        assert metrics["tokens"]["mean"] == pytest.approx(told[side]["tokens"])
        assert metrics["seconds"]["batch_size"] == 4
    again = compare("both/a1", "both/b1", "--json")
    assert json.loads(again.stdout)["pairs"] == told["pairs"]


def test_a_checkpoint_against_written_predictions(checkpoint: Path) -> None:
    assert compare(checkpoint, checkpoint, "valid.json", "--thoughts-a", 1, "--thoughts-b", 1).exit_code == 0
    (written,) = Path("eval").glob("*/predictions.jsonl")
    done = compare(written, checkpoint, "valid.json", "--thoughts-b", 2, "--json")
    assert done.exit_code == 0, done.output or repr(done.exception)
    told = json.loads(done.stdout)
    assert told["b"]["thoughts"] == 2 and told["b"]["name"] == "model (thoughts 2)"


def test_what_the_documentation_shows(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.S | re.M)
    for place in ("runs/cot", "eval/cot", *(f"eval/cot-s{seed}" for seed in range(3))):
        put(f"{place}/predictions.jsonl", predicted(A))
        put(f"{place.replace('cot', 'coconut')}/predictions.jsonl", predicted(B))
    commands = [line for kind, block in fences if not kind for line in block.splitlines()]
    assert len(commands) >= 3
    for line in commands:
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
    (python,) = [block for kind, block in fences if kind == "python"]
    exec(python, {})
    shown = re.findall(r"[0-9.]{6,}", capsys.readouterr().out)
    assert [f"{float(figure):.3f}" for figure in shown[:5]] == ["0.684", "0.783", "0.005", "0.021", "0.106"]


def test_help_names_the_two_sides() -> None:
    told = compare("--help").stdout
    assert "compare [OPTIONS] {A} {B} [DATA]" in told and "Example: coconut-lm compare" in told
