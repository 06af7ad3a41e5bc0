"""`data stats`, `data show` and `data split` as a user types them, well and wrongly."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import text, well, wrongly

from coconut_lm.data import prontoqa, prosqa
from coconut_lm.data.example import Example, read_examples, write_examples

TOKENIZER = Path(__file__).parents[1] / "assets" / "gpt2-tokenizer"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything happens in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TARGET_SIZE", raising=False)
    return tmp_path


# -- stats --


def test_stats_show_shortcuts_with_their_intervals() -> None:
    write_examples("a.json", prosqa.make(40, seed=1))
    shown = well("stats", "a.json").stdout
    for part in (
        "40 examples, task prosqa",
        "shortcut floor",
        "95 % interval",
        "search 3 hops",
        "nothing odd",
    ):
        assert part in shown
    done = well("stats", "a.json", "--json")
    found = json.loads(done.stdout)
    assert done.stderr == "" and found["file"] == "a.json" and found["examples"] == 40
    assert found["floors"]["search_4_hops"].keys() == {"rate", "n", "low", "high"}


def test_stats_of_every_task() -> None:
    for task, examples in {
        "prontoqa": list(prontoqa.make(4)),
        "gsm8k": [Example("q", ("<<1+1=2>>",), "2")],
        "math": [Example("q", (r"$\frac{1}{2}$",) * 25, "2")],
        "plain": [Example("q", (), "who knows"), Example("q", ("",), "")],
    }.items():
        write_examples(f"{task}.jsonl", examples)
        assert f"task {task}" in well("stats", f"{task}.jsonl").stdout
        assert json.loads(well("stats", f"{task}.jsonl", "--json").stdout)["task"] == task
    odd = "odd: 1 repeated questions, 1 empty answers, 1 without steps, 1 with empty steps\n"
    assert well("stats", "plain.jsonl").stdout.endswith(odd)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"question": "q", "steps": [], "answer": "a"}, {"question": 1}]', "row 2: has no 'steps'"),
        ('[{"question": "q", ', "is not JSON"),
        ("[]", "holds no examples"),
        ("", "is empty"),
        (b'[{"question": "\xff"}]', "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("command", [["stats"], ["split", "--out", "d", "--valid", "1", "--test", "1"]])
def test_files_that_are_no_examples(content: str | bytes, told: str, command: list[str]) -> None:
    assert told in wrongly(*command, text("a.json", content))


def test_stats_refuse() -> None:
    write_examples("a.json", [Example("q", (), "a")])
    assert "none.json does not exist" in wrongly("stats", "none.json")
    assert "not a ProntoQA question" in wrongly("stats", "a.json", "--task", "prontoqa", "--json")
    assert "'prosq' is not one of" in wrongly("stats", "a.json", "--task", "prosq")


# -- show --


def run_file(**keys: Any) -> str:
    settings = {"method": "coconut", "c_thought": 2, "max_latent_stage": 3, "tokenizer": "word", **keys}
    return text("run.yaml", json.dumps({"model_id": "models/tiny.json", **settings}))


def test_show_tells_what_is_read_and_what_is_learned() -> None:
    write_examples("a.json", [Example("One and one?", ("1+1=2.", "So 2."), "2")])
    shown = well("show", "a.json", run_file(), "--stage", 1, "-n", 5).stdout
    rows = [line.split() for line in shown.splitlines()]
    assert ["stage", "0", "reads", "One·and·one·?·⏎"] in rows
    assert ["stage", "1", "reads", "One·and·one·?·⏎"] in rows
    assert "<|start-latent|>·<|latent|>·<|latent|>·<|end-latent|>" in shown and "2 thoughts" in shown
    learned = shown.split("stage 1")[1].split("prompt")[0]
    assert "So·2·.·⏎" in learned and "###·2·<eos>" in learned and "1+1=2·.·⏎" not in learned
    assert "<eos>" not in shown.split("prompt")[1]


def test_show_in_colour_with_a_saved_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    write_examples("a.json", prosqa.make(2))
    config = run_file(method="pause_as_thought", tokenizer=None, model_id=str(TOKENIZER))
    shown = well("show", "a.json", config, "-n", 1).stdout
    assert "\x1b[1;35m<|pause|>" in shown and "\x1b[32m" in shown and "\x1b[90m" in shown
    assert shown.count("more ...") == 3


def test_show_refuses() -> None:
    write_examples("a.json", [Example("q", (), "a <|latent|>")])
    assert "nope.yaml cannot be read" in wrongly("show", "a.json", "nope.yaml")
    assert "stands for a thought" in wrongly("show", "a.json", run_file())
    assert "none.json does not exist" in wrongly("show", "none.json", run_file())
    assert "c_thougt: unknown key" in wrongly("show", "a.json", run_file(c_thougt=1))
    assert "greater than or equal" in " ".join(wrongly("show", "a.json", run_file(), "--stage", -1).split())


# -- split --


def test_split_keeps_twins_together() -> None:
    write_examples("a.jsonl", prosqa.make(20, counterfactual=True))
    done = well("split", "a.jsonl", "--out", "parts", "--valid", 4, "--test", "25%", "--seed", 1)
    assert done.stdout.splitlines() == [
        "wrote parts/train.jsonl: 26 examples",
        "wrote parts/valid.jsonl: 4 examples",
        "wrote parts/test.jsonl: 10 examples",
    ]
    pairs = [
        {e.extra["pair"] for e in read_examples(f"parts/{name}.jsonl")} for name in ("train", "valid", "test")
    ]
    assert sum(map(len, pairs)) == 20 == len(set.union(*pairs))


def test_split_refuses() -> None:
    write_examples("a.json", prosqa.make(6))
    assert "not a size" in wrongly("split", "a.json", "--out", "d", "--valid", "few", "--test", 1)
    assert "nothing is left to train on" in wrongly(
        "split", "a.json", "--out", "d", "--valid", 3, "--test", "50%"
    )
    assert "Missing option '--valid'" in wrongly("split", "a.json", "--out", "d", "--test", 1)
    assert "nothing can be put into" in wrongly(
        "split", "a.json", "--out", "a.json", "--valid", 1, "--test", 1
    )
    Path("d").mkdir()
    text("d/test.json", "mine")
    assert "test.json exists" in wrongly("split", "a.json", "--out", "d", "--valid", 1, "--test", 1)
    assert [path.name for path in Path("d").iterdir()] == ["test.json"]
