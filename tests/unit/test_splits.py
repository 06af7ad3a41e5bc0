"""Train, valid and test: sizes, what stays together, all files or none."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import splits
from coconut_lm.data.example import Example, read_examples
from coconut_lm.errors import UserError


def numbered(count: int) -> list[Example]:
    return [Example(f"question {n}", (), "yes") for n in range(count)]


EXAMPLES = st.lists(
    st.builds(
        lambda question, pair: Example(question, (), "yes", {} if pair is None else {"pair": pair}),
        st.integers(0, 30).map("question {}".format),
        st.none() | st.integers(0, 8),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=100)
@given(EXAMPLES, st.integers(0, 10), st.integers(0, 10), st.integers(0, 3))
def test_nothing_is_lost_and_what_belongs_together_stays(
    examples: list[Example], valid: int, test: int, seed: int
) -> None:
    try:
        parts = splits.split(examples, valid=valid, test=test, seed=seed)
    except UserError:
        return
    assert sorted(map(repr, examples)) == sorted(repr(e) for part in parts.values() for e in part)
    assert len(parts["valid"]) <= valid and len(parts["test"]) <= test
    for key in (lambda e: e.question, lambda e: e.extra.get("pair")):
        of = [{key(e) for e in part} - {None} for part in parts.values()]
        assert sum(map(len, of)) == len(set().union(*of))


def test_sizes_are_exact_where_nothing_is_tied() -> None:
    parts = splits.split(numbered(50), valid=7, test=5, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 38, "valid": 7, "test": 5}
    assert parts == splits.split(numbered(50), valid=7, test=5, seed=3)
    assert parts != splits.split(numbered(50), valid=7, test=5, seed=4)
    assert parts["train"] != sorted(parts["train"], key=numbered(50).index)


def test_ties_join_through_others() -> None:
    a, b, c = (Example(q, (), "yes", {"pair": p}) for q, p in (("q", 1), ("r", 1), ("r", 2)))
    assert splits.together([a, *numbered(1), c, b]) == [[a, c, b], numbered(1)]


@pytest.mark.parametrize(("valid", "test"), [(2, 2), (4, 0), (5, 1)])
def test_nothing_left_to_train_on(valid: int, test: int) -> None:
    with pytest.raises(UserError, match="nothing is left to train on"):
        splits.split(numbered(4), valid=valid, test=test)


def test_a_part_that_would_be_empty_is_refused() -> None:
    twins = [Example(f"{n}", (), "yes", {"pair": n // 2}) for n in range(8)]
    with pytest.raises(UserError, match="nothing is left for valid"):
        splits.split(twins, valid=1, test=2)


@pytest.mark.parametrize(("written", "count"), [("200", 200), ("0.1", 30), ("10%", 30), ("0", 0), ("0.0", 0)])
def test_sizes_as_written(written: str, count: int) -> None:
    assert splits.size(written, 300) == count


@pytest.mark.parametrize("written", ["", "x", "-1", "1.5", "100%", "nan", "inf", "-0.1", "1e400"])
def test_sizes_that_are_none(written: str) -> None:
    with pytest.raises(UserError, match="not a size"):
        splits.size(written, 300)


def test_all_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": numbered(3), "valid": numbered(1), "test": []}
    real = splits.write_examples

    def stop_at_the_second(path: Path, examples: list[Example]) -> None:
        if path.name.startswith("x_valid"):
            raise KeyboardInterrupt
        real(path, examples)

    monkeypatch.setattr(splits, "write_examples", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        splits.write(tmp_path, parts, prefix="x_", force=False)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    written = splits.write(tmp_path, parts, prefix="x_", suffix=".jsonl", force=False)
    assert written == {tmp_path / "x_train.jsonl": 3, tmp_path / "x_valid.jsonl": 1}
    assert read_examples(tmp_path / "x_train.jsonl") == numbered(3)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(UserError, match="exists"):
        splits.write(
            tmp_path, {"test": numbered(1), "train": numbered(1)}, prefix="x_", suffix=".jsonl", force=False
        )
    assert len(list(tmp_path.iterdir())) == 2
