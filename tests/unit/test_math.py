"""MATH: boxes, steps, splits; files of seed 001 told again exactly."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import latex, math
from coconut_lm.data.example import Example
from coconut_lm.data.records import read_records
from coconut_lm.errors import UserError

ASSET = Path(__file__).parents[1] / "assets" / "seed001_math_valid_every_8th.json.gz"
SEED = math.PRESETS["seed001"]
OURS = math.PRESETS["sentences"]
SOLUTION = "By Vieta, $a+b = 5. $ So\n\\[ab = 6.\\]Then $a = 2.$ Hence the\nsum is $\\boxed{5}$."


@pytest.fixture(scope="module")
def published() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(ASSET.read_bytes()))
    return rows


def record(solution: str = SOLUTION, **more: str) -> dict[str, str]:
    return {"problem": "Sum?", "solution": solution, "level": "Level 1", "type": "Algebra", **more}


def test_the_seed_preset_tells_the_published_file_again(published: list[dict[str, Any]]) -> None:
    for row in published:
        source = {"problem": row["question"], "solution": "\n\n".join(row["steps"])}
        assert math.example_of(source, SEED).to_json() == row


def test_our_steps_cut_finer_and_lose_nothing(published: list[dict[str, Any]]) -> None:
    pairs = [
        (row, math.example_of({"problem": "p", "solution": "\n".join(row["steps"])}, OURS))
        for row in published
    ]
    for row, example in pairs:
        solution = latex.unbox("\n".join(row["steps"]))
        assert "".join(" ".join(example.steps).split()) == "".join(solution.split())
        assert not any("\n" in step for step in example.steps)
    published_single = sum(len(row["steps"]) == 1 for row, _ in pairs)
    assert sum(len(example.steps) == 1 for _, example in pairs) < published_single / 3


def test_every_published_answer_is_right_by_itself(published: list[dict[str, Any]]) -> None:
    for row in published:
        example = Example("", (), row["answer"])
        for output in (
            f"### {row['answer']}",
            f"So \\boxed{{{row['answer']}}}.",
            f"The answer is ${row['answer']}$.",
        ):
            assert math.TASK.score(output, example).correct, output


def test_statistics_of_the_published_file(published: list[dict[str, Any]]) -> None:
    examples = [Example(row["question"], tuple(row["steps"]), row["answer"]) for row in published]
    found = math.statistics(examples)
    assert found["examples"] == 157
    assert found["boxes"] == {"1": 154, "2": 3}
    assert found["answer_in_steps"] == 157
    assert found["steps"]["max"] == max(len(row["steps"]) for row in published)
    assert math.statistics([])["steps"]["max"] == 0


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("\\boxed{5}", ["5"]),
        ("\\boxed{\\frac{1}{2}} and \\fbox{x}", ["\\frac{1}{2}", "x"]),
        ("\\boxed{\\{1, 2\\}}", ["\\{1, 2\\}"]),
        ("\\boxed{\\boxed{5}}", ["\\boxed{5}"]),
        ("\\boxed 5.", ["5"]),
        ("$\\boxed\\pi$", ["\\pi"]),
        ("\\boxed{ 5 }", ["5"]),
        ("\\boxed{5", []),
        ("\\boxedtext{5}", []),
        ("no box", []),
    ],
)
def test_boxes(text: str, contents: list[str]) -> None:
    assert [box.content for box in latex.boxes(text)] == contents


@pytest.mark.parametrize(
    ("solution", "first", "last"),
    [
        ("\\boxed{4}, then \\boxed{5}", "4", "5"),
        ("\\boxed{$\\frac{1}{2}$}", "\\frac{1}{2}", "\\frac{1}{2}"),
        ("\\boxed{1\n  2}", "1 2", "1 2"),
        ("We add.\nFinal answer: $7$\nDone", "7", "7"),
        ("We add.\nThe answer is 7", "7", "7"),
        ("We add.\n\\[x = 7\\]", "x = 7", "x = 7"),
    ],
)
def test_answers(solution: str, first: str, last: str) -> None:
    assert math.answer_of(solution, "first") == first
    assert math.answer_of(solution, "last") == last


def test_a_solution_without_an_answer_is_a_bad_record(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([record(), record("x" * 201), {"problem": "p"}, 7]), encoding="utf-8")
    with pytest.raises(UserError, match="3 bad of 4") as error:
        math.convert(path)
    assert "train.json, record 2: no answer" in str(error.value)
    assert "record 3: no text under 'solution'" in str(error.value)
    converted = math.convert(path, skip_bad=True)
    assert len(converted.skipped) == 3 and sum(map(len, converted.splits.values())) == 1


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({}, ("By Vieta, $a+b = 5. $", "So \\[ab = 6.\\]", "Then $a = 2.$", "Hence the sum is $5$.")),
        ({"box_in_steps": "drop"}, ("By Vieta, $a+b = 5. $", "So \\[ab = 6.\\]", "Then $a = 2.$")),
        (
            {"box_in_steps": "keep", "steps": "lines"},
            ("By Vieta, $a+b = 5. $ So", "\\[ab = 6.\\]Then $a = 2.$ Hence the", "sum is $\\boxed{5}$."),
        ),
    ],
)
def test_steps_by_choice(change: dict[str, str], steps: tuple[str, ...]) -> None:
    example = math.example_of(record(), replace(OURS, **change))  # type: ignore[arg-type]
    assert example.steps == steps
    assert example.answer == "5"
    assert example.extra == {"level": "Level 1", "type": "Algebra"}


def test_stops_and_breaks_inside_formulas_cut_nothing() -> None:
    text = "First $a.\nB$ now. Then\n\\begin{align*}\nx &= 1. \\\\\nY &= 2.\n\\end{align*}"
    text += "So \\$5. Mr. Lee agrees."
    assert math.sentence_steps(text) == [
        "First $a. B$ now.",
        "Then \\begin{align*} x &= 1. \\\\ Y &= 2. \\end{align*}",
        "So \\$5.",
        "Mr. Lee agrees.",
    ]


def test_a_records_own_answer_goes_before_the_box() -> None:
    assert math.example_of(record(answer="6"), OURS).answer == "6"


def folder_of(root: Path, train: int, test: int) -> Path:
    for split, count in (("train", train), ("test", test)):
        (root / split / "algebra").mkdir(parents=True)
        for number in range(count):
            solution = f"It is \\boxed{{{split} {number}}}."
            (root / split / "algebra" / f"{number}.json").write_text(
                json.dumps(record(solution)), encoding="utf-8"
            )
    return root


def test_the_original_split_is_kept_and_train_gives_up_its_validation(tmp_path: Path) -> None:
    splits = math.convert(folder_of(tmp_path / "MATH", 20, 5)).splits
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 18, "valid": 2, "test": 5}
    assert all(example.answer.startswith("test") for example in splits["test"])
    assert all(example.answer.startswith("train") for name in ("train", "valid") for example in splits[name])
    assert splits == math.convert(tmp_path / "MATH").splits


def test_the_seed_preset_shuffles_the_splits_together(tmp_path: Path) -> None:
    splits = math.convert(folder_of(tmp_path / "MATH", 20, 20), recipe=SEED).splits
    assert {name: len(examples) for name, examples in splits.items()} == {"valid": 4, "test": 4, "train": 32}
    assert len({example.answer for example in splits["train"]} & {f"test {n}" for n in range(20)}) > 1


def test_json_lines_and_parquet_tell_the_same(tmp_path: Path) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    rows = [record(f"\\boxed{{{n}}}") for n in range(3)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test-00000.parquet")
    told = [math.convert(tmp_path / name).splits for name in ("test.jsonl", "test-00000.parquet")]
    assert told[0] == told[1]
    assert [example.answer for example in told[0]["test"]] == ["0", "1", "2"]


def test_records_without_a_split_need_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps([record()]), encoding="utf-8")
    with pytest.raises(UserError, match="split=shuffled"):
        math.convert(path)
    assert math.convert(path, recipe=replace(OURS, split="shuffled")).splits["train"]


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", ""), ("missing.json", None), ("a.json", "{"), ("a.parquet", "x")]
)
def test_what_cannot_be_read(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=name):
        list(read_records(tmp_path / name))


def test_an_empty_folder_and_an_unknown_choice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no records"):
        list(read_records(tmp_path))
    with pytest.raises(UserError, match="first"):
        math.Recipe(box="middle")


@given(
    st.recursive(
        st.text("ab \\{}$", max_size=6), lambda inner: inner.map("\\boxed{{{}}}".format), max_leaves=4
    )
)
@settings(deadline=None, max_examples=200)
def test_unboxing_leaves_no_box_and_boxes_do_not_overlap(text: str) -> None:
    found = latex.boxes(text)
    assert all(one.end <= other.start for one, other in zip(found, found[1:], strict=False))
    assert all(text[box.start :].startswith("\\boxed") for box in found)
    latex.final_answer(text)
    math.sentence_steps(text)


OPERANDS = st.sampled_from(["x", "15", ".5", "\\frac{1}{2}", "\\sqrt{3}", "\\pi", "x^{2}", "(0,4)"])
LAYOUT = st.sampled_from(["", " ", "\\,", "\\;", "~", "\\quad ", "\\displaystyle "])


@given(
    st.lists(st.tuples(OPERANDS, LAYOUT, st.sampled_from("+-=*"), LAYOUT), min_size=1, max_size=5), OPERANDS
)
@settings(deadline=None, max_examples=200)
def test_layout_does_not_change_a_formula(parts: list[tuple[str, str, str, str]], last: str) -> None:
    tight = "".join(operand + sign for operand, _, sign, _ in parts) + last
    loose = "".join(map("".join, parts)) + last
    dressed = loose.replace("\\frac", "\\dfrac").replace("(", "\\left(").replace(")", "\\right)")
    assert latex.normalise(f"${dressed}$.") == latex.normalise(loose) == latex.normalise(tight)


def test_the_hub_copy_is_read_at_the_revision_that_has_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str | None]] = []

    def load(name: str, revision: str | None = None) -> dict[str, list[dict[str, str]]]:
        asked.append((name, revision))
        return {"train": [record()] * 10, "test": [record()] * 5}

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = math.convert("qwedsacf/competition_math").splits
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 9, "valid": 1, "test": 5}
    assert asked == [("qwedsacf/competition_math", "d9afe06952835e34b5a148b90043bc04aa09e519")]


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, revision: str | None = None) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match="ConnectionError: no route"):
        math.convert("someone/problems")
