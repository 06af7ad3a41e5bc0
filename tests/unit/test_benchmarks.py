"""Public test sets by name, from the hub (which is made up here) and from files."""

import json
from pathlib import Path
from typing import Any

import pytest

from coconut_lm.data import benchmarks, gsm8k
from coconut_lm.data.example import Example, read_examples
from coconut_lm.data.survey import task_of
from coconut_lm.errors import UserError

GSM: dict[str, Any] = {
    "question": "Tom has 3 eggs and buys 4. How many?",
    "answer": "He has 3 + 4 = <<3+4=7>>7.\nFine.\n#### 7",
}
SYMBOLIC = GSM | {"id": 3, "instance": 12, "original_id": 1090, "original_answer": "#### 8", "canary": "x"}
MMLU = {"question": "Which?", "subject": "law", "choices": ["one", "two"], "answer": 1}
MATH = {
    "problem": "Half of $x$?",
    "solution": "It is $\\boxed{\\frac{x}{2}}$.",
    "answer": "\\frac{x}{2}",
    "level": 1,
}
RECORDS: dict[str, dict[str, Any]] = {"gsm8k": GSM, "gsm-symbolic": SYMBOLIC, "mmlu": MMLU, "math": MATH}
ANSWERS = {"gsm8k": "7", "gsm-symbolic": "7", "mmlu": "B", "math": "\\frac{x}{2}"}
TASKS = {"gsm8k": "gsm8k", "gsm-symbolic": "gsm8k", "mmlu": "mmlu", "math": "math"}


@pytest.mark.parametrize("name", RECORDS)
def test_without_a_source_it_is_the_test_split_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(*which: str, revision: str | None = None) -> dict[str, list[dict[str, Any]]]:
        asked.append(which)
        wrong = {key: "spoilt" for key in RECORDS[name]}
        return {"train": [wrong], "test": [RECORDS[name]] * 3}

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = benchmarks.examples(name, limit=2)
    assert [example.answer for example in found] == [ANSWERS[name]] * 2
    assert task_of(found) == TASKS[name]
    assert benchmarks.examples(name, name) == [found[0]] * 3
    known = benchmarks.SOURCES[name]
    assert asked == [(known.hub, known.name) if known.name else (known.hub,)] * 2


@pytest.mark.parametrize("name", RECORDS)
def test_records_in_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text(json.dumps(RECORDS[name]) + "\n")
    (found,) = benchmarks.examples(name, tmp_path / "some.jsonl")
    assert found.answer == ANSWERS[name]
    with pytest.raises(UserError, match="line 1"):
        (tmp_path / "some.jsonl").write_text('{"question": "How many?", "answer": "many"}\n')
        benchmarks.examples(name, tmp_path / "some.jsonl")


def test_examples_are_taken_as_they_are(tmp_path: Path) -> None:
    example = Example("How many?", ("three and four",), "7", {"id": 5})
    (tmp_path / "some.json").write_text(json.dumps([example.to_json()]))
    assert benchmarks.examples("gsm8k", str(tmp_path / "some.json")) == [example]


def test_a_split_of_a_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps([GSM | {"question": split}]))
    assert [e.question for e in benchmarks.examples("gsm8k", tmp_path, split="test")] == ["test"]
    with pytest.raises(UserError, match="nothing of this split"):
        benchmarks.examples("gsm8k", tmp_path, split="valid")


def test_a_seed_draws(tmp_path: Path) -> None:
    rows = [GSM | {"question": f"How many are {n}?"} for n in range(40)]
    (tmp_path / "some.json").write_text(json.dumps(rows))

    def read(**how: Any) -> list[str]:
        return [e.question for e in benchmarks.examples("gsm8k", tmp_path / "some.json", **how)]

    assert read(limit=5) == [row["question"] for row in rows[:5]]
    assert read(limit=5, seed=42) == read(limit=5, seed=42) != read(limit=5, seed=43)
    assert len(set(read(limit=5, seed=42))) == 5
    assert sorted(read(limit=99, seed=1)) == sorted(read())


def test_unknown_benchmarks() -> None:
    with pytest.raises(UserError, match="gsm8k, gsm-symbolic, mmlu, math"):
        benchmarks.examples("gpqa")


def test_symbolic_problems_keep_their_ids(tmp_path: Path) -> None:
    records = [SYMBOLIC | {"instance": n} for n in range(3)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, records)))
    parsed = gsm8k.convert(tmp_path / "test.jsonl", tmp_path / "out.json")
    assert [e.extra for e in parsed.examples][1] == {"id": "3-1", "instance": 1, "original_id": 1090}
    assert read_examples(tmp_path / "out.json") == parsed.examples  # whose ids must differ
