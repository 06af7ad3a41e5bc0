"""Rates, groups, floors and pairs."""

import gzip
import json
from pathlib import Path

import pytest

from coconut_lm.data import prontoqa, prosqa
from coconut_lm.data.example import Example
from coconut_lm.data.survey import survey
from coconut_lm.tally import groups, pairs, rate, shortcut_floors, swaps

ASSETS = Path(__file__).parents[1] / "assets"


def test_a_rate_with_its_interval() -> None:
    found = rate([True] * 9 + [False])
    assert (found["rate"], found["right"], found["n"]) == (0.9, 9, 10)
    assert (found["low"], found["high"]) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert rate([]) == {"rate": None, "right": 0, "n": 0, "low": 0.0, "high": 1.0}


def released() -> list[Example]:
    with gzip.open(ASSETS / "coconut_paper_prosqa_valid.json.gz") as file:
        rows = json.load(file)
    texts = ("question", "steps", "answer")
    return [
        Example(r["question"], tuple(r["steps"]), r["answer"], {k: v for k, v in r.items() if k not in texts})
        for r in rows
    ]


def test_groups_of_prosqa() -> None:
    examples = released()
    found = groups([True] * len(examples), examples, "prosqa")
    assert {steps: group["n"] for steps, group in found["steps"].items()} == {
        "3": 124,
        "4": 133,
        "5": 36,
        "6": 7,
    }
    assert {verdict: group["n"] for verdict, group in found["shortcut"].items()} == {
        "right": 267,
        "undecided": 33,
    }


def test_one_who_takes_the_shortcut_is_found_out() -> None:
    examples = list(prosqa.make(60, seed=3))
    lazy = [prosqa.shortcut_right(example) == 1 for example in examples]
    found = groups(lazy, examples, "prosqa")["shortcut"]
    assert found["right"]["rate"] == 1 and all(found[key]["rate"] == 0 for key in found if key != "right")


def test_floors_are_those_of_the_survey() -> None:
    examples = released()
    assert shortcut_floors(examples, "prosqa") == survey(examples, "prosqa")["floors"]
    made = list(prontoqa.make(20, seed=1))
    assert shortcut_floors(made, "prontoqa")["polarity"]["n"] == 20
    assert {"steps", "shortcut"} == set(groups([True] * 20, made, "prontoqa"))


def test_neither_shortcuts_nor_floors_where_there_is_no_graph() -> None:
    plain = [Example("Is Tom a lempus or gorpus?", ("a", ""), "Tom is a lempus.")]
    for task in ("prosqa", "gsm8k", "plain"):
        assert list(groups([True], plain, task)) == ["steps"] and shortcut_floors(plain, task) == {}
    assert list(groups([True], plain, "plain")["steps"]) == ["1"]  # an empty step is none


def test_pairs_of_a_file() -> None:
    made = list(prosqa.make(3, seed=2, counterfactual=True))
    verdicts = [True, True, True, False, False, True]
    found = pairs(verdicts, made)
    assert sorted(found) == [(False, True), (True, False), (True, True)]
    swapped = swaps(found)
    assert swapped is not None and swapped["n"] == 3
    assert swapped["accuracy"]["right"] == 2 and swapped["consistency"]["right"] == 1
    assert pairs(verdicts[:1], made[:1]) == [] and swaps([]) is None
