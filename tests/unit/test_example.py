"""Reading and writing examples: what is kept, and what is said of files that are wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data.example import Example, read_examples, write_examples
from coconut_lm.errors import UserError

GOOD = {"question": "Why?", "steps": ["so", "thus"], "answer": "42"}

text = st.text(st.characters(codec="utf-8"))
examples = st.builds(
    Example,
    text.filter(str.strip),
    st.lists(text).map(tuple),
    text,
    st.dictionaries(
        text.filter(lambda key: key not in ("question", "steps", "answer")),
        st.none() | st.booleans() | st.integers() | text | st.lists(st.integers()),
        max_size=3,
    ),
)


def written(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def complaint(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_examples(path, **options)
    return str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.lists(examples, min_size=1, max_size=4), st.sampled_from([".json", ".jsonl"]))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, given: list[Example], end: str
) -> None:
    path = tmp_path_factory.mktemp("round") / f"file{end}"
    write_examples(path, given)
    assert read_examples(path) == given


def test_writing_replaces_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_examples(path, [Example("q", (), "a")])
    with pytest.raises(UserError, match="exists"):
        write_examples(path, [])
    write_examples(path, [Example("r", (), "b")], force=True)
    assert read_examples(str(path)) == [Example("r", (), "b")]


def test_limit_bom_and_extra_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([{**GOOD, "root": 3}, GOOD, GOOD]).encode())
    assert read_examples(path, limit=2) == [
        Example("Why?", ("so", "thus"), "42", {"root": 3}),
        Example("Why?", ("so", "thus"), "42"),
    ]


def test_blank_lines_and_line_separators_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({**GOOD, "question": "a\u2028b"}, ensure_ascii=False) + "\r\n\n" + json.dumps(GOOD),
        encoding="utf-8",
    )
    assert [e.question for e in read_examples(path)] == ["a\u2028b", "Why?"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "steps": []}, "has no 'answer' (it has 'question', 'steps')"),
        ({}, "has no 'question' (it has nothing)"),
        ({**GOOD, "steps": "so, thus"}, "'steps' is a string, not a list of strings"),
        ({**GOOD, "steps": ["a", 2]}, "step 2 is a number, not a string"),
        ({**GOOD, "answer": 42}, "'answer' is a number, not a string"),
        ({**GOOD, "question": None}, "'question' is null, not a string"),
        ({**GOOD, "question": " \n"}, "asks nothing: 'question' is empty"),
        ({**GOOD, "question": True}, "'question' is a boolean, not a string"),
        ({**GOOD, "answer": "\ud800"}, "holds half of a surrogate pair"),
        (["q"], "is a list, not an object"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, said: str) -> None:
    assert f"row 2: {said}" in complaint(written(tmp_path / "a.json", [GOOD, row]))


def test_many_bad_rows_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    message = complaint(written(tmp_path / "a.json", [GOOD, *[{}] * 25]))
    assert "25 of 26 rows" in message and "and 15 more" in message
    assert message.count("has no 'question'") == 10


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b" \n", "is empty"),
        ("a.json", b"[]", "holds no examples"),
        ("a.json", json.dumps(GOOD).encode(), "is not a list of examples"),
        ("a.json", b'[{"question": "q",\n "steps": [', "line 2, column 12"),
        ("a.json", b'[{"question": "\xff"}]', "byte 0xff at offset 15, in line 1"),
        ("a.json", b'[{"x": NaN}]', "holds NaN"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"{}\n{}", "name that ends in .jsonl"),
        ("a.jsonl", b'{"question": "q", "steps": [], "answer": "a"}\n\n{"question"', "line 3, column 12"),
        ("a.jsonl", b"[1]", "line 1: is a list, not an object"),
        ("a.jsonl", b"\n\xfe", "at offset 1, in line 2"),
    ],
)
def test_a_bad_file_is_described(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in complaint(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in complaint(tmp_path / "none.json")


def test_a_data_set_folder(tmp_path: Path) -> None:
    import datasets

    rows = [{**GOOD, "id": 1}, {**GOOD, "id": 2}]
    one = datasets.Dataset.from_list(rows)
    both = datasets.DatasetDict({"train": one, "test": one.select([1])})
    one.save_to_disk(tmp_path / "one")
    both.save_to_disk(tmp_path / "both")
    assert [e.extra for e in read_examples(tmp_path / "one")] == [{"id": 1}, {"id": 2}]
    assert read_examples(tmp_path / "both", split="test")[0].extra == {"id": 2}
    assert "train or test" in complaint(tmp_path / "both")
    assert "no such split" in complaint(tmp_path / "both", split="valid")


def test_the_hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert "ConnectionError: offline" in complaint(Path("someone/something"))


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, coconut_lm.data.example; print('datasets' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_an_id_that_comes_twice_is_named_with_its_first_row(tmp_path: Path) -> None:
    rows = [
        GOOD | {"id": "a"},
        GOOD | {"id": 1},
        GOOD | {"id": "a"},
        GOOD | {"id": None},
        GOOD | {"id": None},
    ]
    assert "row 3: has the id of row 1: 'a'" in complaint(written(tmp_path / "twice.json", rows))
    assert len(read_examples(written(tmp_path / "once.json", [rows[0], rows[1], *rows[3:]]))) == 4
