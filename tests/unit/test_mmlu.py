"""MMLU: records read, and the letter that a text settles on."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from coconut_lm.cli import app
from coconut_lm.data import mmlu
from coconut_lm.data.example import Example, read_examples
from coconut_lm.data.survey import survey, task_of
from coconut_lm.errors import UserError
from coconut_lm.evaluate import task_named

QUESTION = "What is the capital of France?"
CHOICES = ["A small town", "London", "Paris", "Paris and Rome"]
RECORD: dict[str, Any] = {"question": QUESTION, "subject": "geography", "choices": CHOICES, "answer": 2}
ASKED = f"{QUESTION}\n\nA. A small town\nB. London\nC. Paris\nD. Paris and Rome"
ALL_FOUR = "A. A small town: no.\nB. London: no.\nC. Paris: yes.\nD. Both: no.\n"

SAID = [
    ("\\boxed{B}", "B"),
    ("So it is $\\boxed{\\text{B}}$.", "B"),
    ("\\boxed{b}", "B"),
    ("\\boxed{C. Paris}", "C"),
    ("\\boxed{\\text{Paris}}", "C"),
    ("#### B", "B"),
    ("#### b", "B"),
    ("### Answer\n\n**B**", "B"),
    ("the answer is (B)", "B"),
    ("The answer is B", "B"),
    ("The answer is B.", "B"),
    ("the answer is b.", "B"),
    ("The answer is **B**.", "B"),
    ("The answer is B London", "B"),
    ("The answer is:\n\nB. London", "B"),
    ("The correct answer is therefore (C) because it is.", "C"),
    ("The answer to the question is B, as A is wrong", "B"),
    ("**Answer:** C", "C"),
    ("**Answer: C. Paris**", "C"),
    ("Answer: \\text{C}", "C"),
    ("answer: c", "C"),
    ("Final answer\n\nB", "B"),
    ("The correct option is D", "D"),
    ("the best choice is option C", "C"),
    ("I choose B", "B"),
    ("Option B is correct.", "B"),
    ("(B) is the correct answer", "B"),
    ("Thus **Option C** it is", "C"),
    ("**B**", "B"),
    ("So I would go with **B**.", "B"),
    ("B", "B"),
    ("B.", "B"),
    ("(B)", "B"),
    ("- B", "B"),
    ("Let me see.\nB.\n", "B"),
    ("B) London", "B"),
    ("**C. Paris** is where it is.", "C"),
    ("I think it is (C), the city of light", "C"),
    ("The answer is London", "B"),
    ("The answer is Paris and Rome.", "D"),
    ("Paris", "C"),
    ("It follows that the capital is Paris.", "C"),
    ("It is Paris and Rome", "D"),
    ("A", "A"),
    ("The answer is A.", "A"),
    ("The answer is A because towns are small.", "A"),
    ("The answer is A small town.", "A"),
    ("The answer is a small town", "A"),
    ("The answer is A. A small town", "A"),
    # the last decisive statement wins
    ("The answer is A. Wait, no.\n\n**C**", "C"),
    ("**C**? No: the answer is B.", "B"),
    ("#### A\n#### D", "D"),
    (ALL_FOUR + "The answer is C", "C"),
    (ALL_FOUR + "**B**", "B"),
    # nothing is settled
    (ALL_FOUR, ""),
    ("A dog is an animal, a cat as well.", ""),
    ("A dog", ""),
    ("I am sure that a city has it", ""),
    ("a", ""),
    ("b", ""),
    ("It is b I think", ""),
    ("The answer is a city", ""),
    ("the answer is a for loop", ""),
    ("The answer is not B", ""),
    ("The answer is A or B", ""),
    ("The answer is E", ""),
    ("#### E", ""),
    ("- **A**: no\n- **B**: no\n- **C**: right", ""),
    ("Vitamin C is best absorbed", ""),
    ("It is London or Paris", ""),
    ("Answer choices:\nA. one\nB. two", ""),
    ("no idea", ""),
    ("", ""),
    ("  \n ", ""),
]


@pytest.mark.parametrize(("text", "letter"), SAID)
def test_the_letter_that_a_text_settles_on(text: str, letter: str) -> None:
    assert mmlu.letter_in(text, mmlu.options(ASKED)) == letter
    verdict = mmlu.TASK.score(text, Example(ASKED, (), "B"))
    assert (verdict.extracted, verdict.correct) == (letter, letter == "B")


def test_options_that_are_numbers_keep_their_signs() -> None:
    choices = {"A": "5", "B": "-5", "C": ".5", "D": "50"}
    for letter, words in choices.items():
        assert mmlu.letter_in(f"It comes to {words}.", choices) == letter
        assert mmlu.letter_in(f"The answer is {words}, as shown.", choices) == letter


def test_more_than_four_options() -> None:
    choices = dict(zip("ABCDEFGHIJ", map(str, range(10)), strict=True))
    assert mmlu.letter_in("The answer is (J).", choices) == "J"
    assert mmlu.letter_in("The answer is I.", choices) == "I"
    assert mmlu.letter_in("The answer is I do not know", choices) == ""


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="AaBb.()*#$\\{}: \nanswerisboxed", max_size=60))
def test_any_text_has_a_letter_of_the_options_or_none(text: str) -> None:
    assert mmlu.letter_in(text, mmlu.options(ASKED)) in ("", *"ABCD")


@settings(deadline=None, max_examples=50)
@given(st.sampled_from("ABCD"), st.text(alphabet="xyz .\n", max_size=40))
def test_a_closing_statement_decides(letter: str, before: str) -> None:
    assert mmlu.letter_in(f"{before}\nThe answer is {letter}.", mmlu.options(ASKED)) == letter


def test_the_published_rule_is_after_the_mark() -> None:
    task = task_named("mmlu", "reference")
    assert task.score("The answer is B #### C", Example(ASKED, (), "C")).correct
    assert not task.score("The answer is C", Example(ASKED, (), "C")).correct


# -- records --


@pytest.mark.parametrize("answer", [2, "2", "C", "c", " C ", "#### C"])
def test_a_record(answer: object) -> None:
    extra = {"subject": "geography", "choices": CHOICES}
    assert mmlu.example_of(RECORD | {"answer": answer}) == Example(ASKED, (), "C", extra)


def test_a_question_with_letters_stays() -> None:
    found = mmlu.example_of({"question": ASKED, "answer": "B", "id": 7})
    assert found == Example(ASKED, (), "B", {"id": 7, "choices": CHOICES})


def test_an_option_of_several_lines_is_one_line() -> None:
    found = mmlu.example_of(RECORD | {"choices": ["one\ntwo", "three"], "answer": 0})
    assert mmlu.options(found.question) == {"A": "one two", "B": "three"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 4}, "none of the 4 options"),
        ({"answer": -1}, "none of the 4 options"),
        ({"answer": "E"}, "none of the 4 options"),
        ({"answer": None}, "none of the 4 options"),
        ({"choices": ["one"]}, "1 options"),
        ({"choices": None}, "0 options"),
        ({"choices": "ABCD"}, "no list of texts"),
        ({"choices": ["a", 2]}, "no list of texts"),
        ({"question": " "}, "no text under 'question'"),
    ],
)
def test_bad_records(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps([RECORD, RECORD | change]))
    with pytest.raises(UserError, match=said) as told:
        mmlu.convert(tmp_path / "bad.json")
    assert "record 2" in str(told.value)
    parsed = mmlu.convert(tmp_path / "bad.json", skip_bad=True)
    assert len(parsed.examples) == len(parsed.skipped) == 1


@pytest.mark.parametrize(
    "question", ["", "A. one", "B. one\nC. two", "A. one\nC. two", "A. one\nB. two\nThen?"]
)
def test_questions_without_options(question: str) -> None:
    assert mmlu.options(question) == {}


def test_the_command_and_the_survey(tmp_path: Path) -> None:
    records = [RECORD | {"question": f"{QUESTION} {n}", "answer": n % 3} for n in range(9)]
    source, out = tmp_path / "test.jsonl", tmp_path / "mmlu.json"
    source.write_text("\n".join(map(json.dumps, records)))
    done = CliRunner().invoke(
        app, ["data", "convert", "mmlu", str(source), "--out", str(out), "--limit", "8"]
    )
    assert done.exit_code == 0, done.output
    examples = read_examples(out)
    assert task_of(examples) == "mmlu" and len(examples) == 8
    found = survey(examples)
    assert found["statistics"]["answers"] == {"A": 3, "B": 3, "C": 2}
    assert found["floors"]["commonest_letter"]["rate"] == 3 / 8
    assert found["floors"]["longest_option"]["rate"] == 0
    shown = CliRunner().invoke(app, ["data", "stats", str(out)])
    assert shown.exit_code == 0 and "commonest" in shown.output


def test_one_split_of_a_folder(tmp_path: Path) -> None:
    for split, answer in (("train", 0), ("test", 1)):
        (tmp_path / f"{split}.json").write_text(json.dumps([RECORD | {"answer": answer}]))
    assert [e.answer for e in mmlu.convert(tmp_path, split="test").examples] == ["B"]
