"""Two lists of predictions: aligned, counted, tested, told."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted import predicted, put
from scipy.stats import binomtest

from coconut_lm.compare import align, compare, over_seeds, read, short_names
from coconut_lm.compareview import findings, markdown, seeds_told, table
from coconut_lm.errors import UserError
from coconut_lm.statistics import Pairs, paired_difference, wilson

A = [True] * 60 + [True] * 15 + [False] * 25 + [False] * 20  # both, only A, only B, neither
B = [True] * 60 + [False] * 15 + [True] * 25 + [False] * 20


def test_counts_rates_and_the_test_are_those_of_the_pairs() -> None:
    told = compare(predicted(A), predicted(B))
    assert told.pairs == Pairs(both=60, only_a=15, only_b=25, neither=20)
    assert (told.a.right, told.b.right, told.n) == (75, 85, 120)
    assert (told.a.low, told.a.high) == wilson(75, 120)
    assert told.difference == pytest.approx(10 / 120) and told.kept == pytest.approx(85 / 75)
    assert told.p == binomtest(15, 40).pvalue
    assert told.interval == paired_difference(told.pairs) and told.to_json()["interval"] == told.interval


def test_tokens_are_thoughts_and_what_was_written() -> None:
    told = compare(predicted(A, written=29), predicted(B, thoughts=6, written=2, seconds=0.1))
    assert (told.a.tokens, told.b.tokens) == (30, 9)
    assert told.gain.share == pytest.approx(0.7) and told.gain.tokens.difference == -21
    assert told.gain.low is not None and told.gain.low <= 0.7 + 1e-9
    assert told.gain.high is not None and told.gain.high >= 0.7 - 1e-9
    assert told.b.passes == 6 + 3 + 1  # thoughts, what was written, the end


@settings(deadline=None, max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_examples_is_of_no_account(order: random.Random) -> None:
    a, b = predicted(A), predicted(B, thoughts=2, written=4)
    expected = compare(a, b)
    order.shuffle(a), order.shuffle(b)
    told = compare(a, b)
    assert replace(told, rows=(), a=expected.a, b=expected.b) == replace(expected, rows=())
    assert all(one.question == other.question for one, other in told.rows)


def test_a_question_asked_twice_is_two_examples() -> None:
    a = [replace(each, question="?", gold="1") for each in predicted([True, False])]
    assert compare(a, a[::-1]).n == 2


def test_nothing_right_and_nothing_written() -> None:
    """Ratios to nothing are not given."""
    told = compare(predicted([False] * 3, written=-1)[:1], predicted([True])[:1])
    assert told.kept is None
    empty = [replace(each, written=0, output="") for each in predicted([False] * 3)]
    told = compare(empty, predicted([True] * 3))
    assert told.gain.share is None and told.gain.low is None
    assert "none" in findings(told)[0]
    json.dumps(told.to_json(5), allow_nan=False)


# -- what does not belong together --


def refused(a: list, b: list) -> str:
    with pytest.raises(UserError, match="not asked the same examples") as caught:
        align(a, b)
    return str(caught.value)


def test_other_questions_are_refused() -> None:
    a, b = predicted(A), predicted(B)
    b[3] = replace(b[3], question="Who?")
    told = refused(a, b)
    assert "120 in A, 120 in B, 119 in both; first in A alone: example 3, 'What is 3?'" in told


def test_another_truth_is_refused() -> None:
    a, b = predicted(A), predicted(B)
    b[7] = replace(b[7], gold="8")
    assert "119 in both" in refused(a, b) and "whose truth is '7' in A and '8' in B" in refused(a, b)


def test_another_id_is_refused() -> None:
    a, b = predicted(A), predicted(B)
    b[7] = replace(b[7], id="x")
    assert "whose id is None in A and 'x' in B" in refused(a, b)


def test_more_examples_are_refused() -> None:
    told = refused(predicted(A)[:100], predicted(B))
    assert "100 in A, 120 in B, 100 in both; first in B alone: example 100" in told
    assert "--samples" in told


def test_long_questions_are_cut_in_the_message() -> None:
    a = [replace(each, question="word " * 1000) for each in predicted([True])]
    assert len(refused(a, predicted([True]))) < 800


# -- files and names --


def test_a_file_is_read(tmp_path: Path) -> None:
    path = put(tmp_path / "p.jsonl", predicted(A, thoughts=2))
    assert read(path) == predicted(A, thoughts=2)
    assert read(path, 7) == predicted(A, thoughts=2)[:7]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no predictions"),
        ('{"question": "q", "answer": "a", "steps": []}\n', "line 1 has no index, id"),
        ("[1]\n", "holds no predictions"),
        ("{\n{}\n", "damaged"),
    ],
)
def test_what_is_no_file_of_predictions_is_refused(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(UserError, match=told):
        read(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("runs/cot/checkpoints/checkpoint_3", "runs/thinks/checkpoints/checkpoint_3", ("cot", "thinks")),
        (
            "runs/x/checkpoints/checkpoint_3",
            "runs/x/checkpoints/checkpoint_9",
            ("checkpoint_3", "checkpoint_9"),
        ),
        ("/a/b/predictions.jsonl", "predictions.jsonl", ("/a/b/predictions.jsonl", "predictions.jsonl")),
        ("run", "run/checkpoints/checkpoint_1", ("run", "run/checkpoints/checkpoint_1")),
        ("run", "run", ("run (A)", "run (B)")),
        ("eval/x", str(Path.cwd() / "model"), ("eval/x", "model")),
    ],
)
def test_names_are_short_and_tell_apart(a: str, b: str, names: tuple[str, str]) -> None:
    assert short_names(a, b) == names
    assert short_names(b, a) == names[::-1] or a == b


# -- told --


def test_examples_that_differ_come_from_both_kinds() -> None:
    told = compare(predicted(A), predicted(B))
    assert [one.index for one, _ in told.differing(4)] == [60, 75, 61, 76]
    assert len(told.differing(100)) == 40
    assert told.differing(0) == []
    otherwise = [replace(each, output="### ?") if each.index == 2 else each for each in predicted(A)]
    assert [one.index for one, _ in compare(predicted(A), otherwise).differing(5)] == [2]


def test_the_table_and_the_sentences() -> None:
    told = compare(predicted(A), predicted(B, thoughts=6, written=2, seconds=0.1), ("cot", "thinks"), 0.025)
    rows = {row[0]: row[1:] for row in table(told)}
    assert rows["accuracy"] == ("62.50%", "70.83%", "+8.33 points")
    assert rows["right"] == ("75", "85", "+10")
    assert rows["average tokens"] == ("21.0", "9.0", "-57.1%")
    assert rows["of these thoughts"] == ("0.0", "6.0", "")
    assert rows["seconds per example"] == ("0.5000", "0.1000", "-80.0%")
    gain, quality, margin, test = findings(told)
    assert gain.startswith("Efficiency gain: 57.1% fewer tokens (95 % interval 5")
    assert quality.startswith("Quality: +8.33% accuracy change") and "113.3% of cot's accuracy" in quality
    assert margin == "Non-inferiority: thinks is at most 2.5 points worse than cot"
    assert test == (
        f"McNemar: p = {binomtest(15, 40).pvalue:.4f};"
        " 60 both right, 15 only cot, 25 only thinks, 20 both wrong"
    )


def test_more_tokens_are_told_as_more() -> None:
    told = compare(predicted(A, written=9), predicted(A, written=14))
    low, high = told.gain.low, told.gain.high
    assert low is not None and high is not None and low < -0.5 < high < -0.45
    assert findings(told)[0] == (
        f"Efficiency gain: 50.0% more tokens (95 % interval {-high:.1%} to {-low:.1%})"
    )


@pytest.mark.parametrize(("lost", "told"), [(0, "is at most"), (40, "is more than"), (2, "too few")])
def test_the_margin(lost: int, told: str) -> None:
    a, b = [True] * 200, [False] * lost + [True] * (200 - lost)
    assert told in findings(compare(predicted(a), predicted(b), margin=0.02))[2]


def test_markdown_takes_texts_as_they_are() -> None:
    a = [replace(each, output="```\n# no heading\n````") for each in predicted([True])]
    text = markdown([compare(a, predicted([False]), ("a|b", "c"))], None, 3)
    assert "`````text\n```\n# no heading\n````\n`````" in text
    assert text.splitlines()[2].count("|") == 5


def test_json_holds_what_is_told() -> None:
    told = json.loads(json.dumps(compare(predicted(A), predicted(B)).to_json(2), allow_nan=False))
    assert told["pairs"] == {"both": 60, "only_a": 15, "only_b": 25, "neither": 20}
    assert told["p"] == binomtest(15, 40).pvalue and len(told["examples"]) == 2
    assert told["examples"][0]["a"]["correct"] and not told["examples"][0]["b"]["correct"]
    assert "rows" not in told


def test_seeds() -> None:
    runs = [(A, B), (A, A), (A, [True] * 90 + [False] * 30)]
    told = over_seeds([compare(predicted(a), predicted(b)) for a, b in runs])
    assert told.a.sd == 0 and told.b.n == 3
    assert told.difference.mean == pytest.approx((10 + 0 + 15) / 360)
    assert "Over 3 seeds" in seeds_told(told)[0]
