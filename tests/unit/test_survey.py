"""What a file of examples holds."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from coconut_lm.data import prontoqa, prosqa
from coconut_lm.data.example import Example
from coconut_lm.data.survey import oddities, survey, task_of
from coconut_lm.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
PROSQA = list(prosqa.make(20, seed=1))
GSM = Example("Tom pays $5 and $6. How much?", ("<<5+6=11>>",), "11")
MATH = Example("What is $x$ if $2x=4$?", (r"Halving, $x=\frac{4}{2}$.",), "2")
PLAIN = Example("Who?", ("Me.",), "I am")


@pytest.mark.parametrize(
    ("task", "examples"),
    [
        ("prosqa", PROSQA),
        ("prosqa", list(prosqa.make(5, style="symbols", shape="broom"))),
        ("prosqa", [Example(e.question, e.steps, e.answer) for e in PROSQA]),
        ("prontoqa", list(prontoqa.make(5))),
        ("gsm8k", [GSM]),
        ("gsm8k", [Example("How many?", (), "1,200")]),
        ("math", [MATH]),
        ("math", [MATH, MATH, GSM]),
        ("plain", [PLAIN]),
        ("plain", [MATH, GSM]),
    ],
)
def test_the_task_is_told_from_the_examples(task: str, examples: list[Example]) -> None:
    assert task_of(examples) == task
    assert survey(examples)["task"] == task


def released(name: str, count: int) -> list[Example]:
    with gzip.open(ASSETS / name, "rt", encoding="utf-8") as file:
        rows = islice(json.load(file), count)
        return [Example(row.pop("question"), tuple(row.pop("steps")), row.pop("answer"), row) for row in rows]


def test_the_released_prosqa_file_has_its_published_floors() -> None:
    found = survey(released("coconut_paper_prosqa_valid.json.gz", 300))
    assert found["steps"] == {"3": 124, "4": 133, "5": 36, "6": 7}
    floors = found["floors"]
    assert list(floors)[0] == "far_from_farthest_entity"
    assert floors["far_from_farthest_entity"]["rate"] == pytest.approx(0.945, abs=5e-4)
    assert floors["search_3_hops"]["rate"] == pytest.approx(0.707, abs=5e-4)
    for rule, floor in floors.items():
        assert floor["n"] == 300
        assert floor["low"] < floor["rate"] < floor["high"] or rule == "guess"


def test_a_survey_is_json() -> None:
    for examples in (PROSQA, [GSM], [MATH], [PLAIN], list(prontoqa.make(3))):
        found = survey(examples)
        assert json.loads(json.dumps(found)) == found


def test_oddities_are_counted() -> None:
    examples = [
        Example("Who  is it?", (), "a"),
        Example("Who is it?", ("",), " "),
        Example(" ", ("x", " "), "a"),
    ]
    assert oddities(examples) == {
        "repeated_questions": 1,
        "empty_answers": 1,
        "without_steps": 1,
        "with_empty_steps": 2,
    }


def test_a_graph_file_without_its_graphs() -> None:
    bare = [Example(e.question, e.steps, e.answer) for e in PROSQA]
    found = survey(bare)
    assert found["oddities"]["without_graph"] == 20 and not found["statistics"] and not found["floors"]
    mixed = survey(bare[:5] + PROSQA[5:])
    assert mixed["oddities"]["without_graph"] == 5 and mixed["statistics"]["examples"] == 15


def test_another_task_can_be_asked_for() -> None:
    assert survey([GSM], "plain")["statistics"] == {}
    with pytest.raises(UserError, match="unknown task"):
        survey([GSM], "gsm")
    with pytest.raises(UserError, match="not a ProntoQA question"):
        survey([GSM], "prontoqa")
