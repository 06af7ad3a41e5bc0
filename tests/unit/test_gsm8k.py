"""GSM8K: the published conversion exactly, bad lines told together, arithmetic checked."""

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import gsm8k
from coconut_lm.data.example import Example, Task, read_examples
from coconut_lm.data.numbers import as_number, numbers, show
from coconut_lm.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
GOOD = "How many?||<<1+1=2>> <<2*3=6>> #### 6"
ORIGINAL = {
    "question": "Mr. Lee has 48 clips and half again. How many?",
    "answer": "Mr. Lee has 48/2 = <<48/2=24>>24 more. So 48+24 = <<48+24=72>>72.\nThat is all.\n#### 72",
}


@pytest.fixture(scope="module")
def published() -> list[str]:
    return gzip.decompress((ASSETS / "icot_gsm8k_valid.txt.gz").read_bytes()).decode().split("\n")


def test_the_published_text_becomes_the_published_json(published: list[str]) -> None:
    wanted = json.loads(gzip.decompress((ASSETS / "coconut_paper_gsm8k_valid.json.gz").read_bytes()))
    assert [example.to_json() for example in gsm8k.parse_icot(published).examples] == wanted


@pytest.mark.parametrize(("choice", "count", "without"), [("keep", 500, ("",)), ("none", 500, ())])
def test_empty_steps_by_name(published: list[str], choice: str, count: int, without: tuple[str, ...]) -> None:
    examples = gsm8k.parse_icot(published, empty_steps=choice).examples
    assert len(examples) == count
    assert examples[89].steps == without


def test_empty_steps_can_be_dropped(published: list[str]) -> None:
    examples = gsm8k.parse_icot(published, empty_steps="drop").examples
    assert len(examples) == 494
    assert all(any(example.steps) for example in examples)


def test_statistics_of_the_published_validation_file(published: list[str]) -> None:
    found = gsm8k.statistics(gsm8k.parse_icot(published).examples)
    assert found["last_step_is_answer"] == 466
    assert found["equations"] == {"true": 1573, "false": 0, "not_arithmetic": 0}
    assert found["steps"] == {"0": 6, "1": 26, "2": 155, "3": 140, "4": 91, "5": 53, "6": 18, "7": 8, "8": 3}
    assert found["answers_with_commas"] == 4
    assert gsm8k.statistics([])["examples"] == 0


def test_bad_lines_are_told_together() -> None:
    lines = [
        GOOD,
        "no bar #### 1",
        "",
        "q||<<1=1>>",
        "a||b||c #### 1",
        "||x #### 1",
        "q||x #### ",
        *["?"] * 9,
    ]
    with pytest.raises(UserError) as error:
        gsm8k.parse_icot(lines, source="train.txt")
    text = str(error.value)
    assert "train.txt: 14 bad of 15" in text
    for told in ("line 2: no ||", "line 4: no ####", "line 5: more than one", "line 6: no question"):
        assert told in text
    assert "line 7: no answer" in text and "line 12" in text and "line 13" not in text
    assert "and 4 more" in text


def test_bad_lines_can_be_skipped_and_are_listed() -> None:
    parsed = gsm8k.parse_icot([GOOD, "nothing"], skip_bad=True)
    assert [example.answer for example in parsed.examples] == ["6"]
    assert parsed.skipped == ["line 2: no || between question and steps"]


def test_nothing_but_bad_lines_is_an_error_all_the_same() -> None:
    with pytest.raises(UserError, match="nothing to learn from"):
        gsm8k.parse_icot(["nothing"], skip_bad=True)


def test_the_original_records() -> None:
    lines = [json.dumps(ORIGINAL)]
    (told,) = gsm8k.parse_original(lines).examples
    assert told == Example(ORIGINAL["question"], ("<<48/2=24>>", "<<48+24=72>>"), "72")
    (told,) = gsm8k.parse_original(lines, steps="sentences").examples
    assert told.steps == ("Mr. Lee has 48/2 = 24 more.", "So 48+24 = 72.", "That is all.")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"question": "q"}', "no text under 'answer'"),
        ('{"question": "q", "answer": "72"}', "no #### in the answer"),
    ],
)
def test_bad_original_records(line: str, problem: str) -> None:
    with pytest.raises(UserError, match=f"line 1: {problem}"):
        gsm8k.parse_original([line])


def test_unknown_choices() -> None:
    with pytest.raises(UserError, match="keep, drop, none"):
        gsm8k.parse_icot([GOOD], empty_steps="skip")
    with pytest.raises(UserError, match="annotations, sentences"):
        gsm8k.parse_original([], steps="words")
    with pytest.raises(UserError, match="tolerant, reference"):
        gsm8k.NumberTask("gsm8k", scoring="strict")


def test_convert_tells_the_formats_apart_and_writes_the_first(tmp_path: Path) -> None:
    text, records = tmp_path / "a.txt", tmp_path / "b.txt"
    text.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n{GOOD}\r\n".encode())
    records.write_text(json.dumps(ORIGINAL) + "\n\n", encoding="utf-8")
    out = tmp_path / "out.json"
    assert len(gsm8k.convert(text, out, limit=1).examples) == 1
    assert read_examples(out) == gsm8k.parse_icot([GOOD]).examples
    with pytest.raises(UserError, match="exists"):
        gsm8k.convert(text, out)
    assert gsm8k.convert(records).examples[0].answer == "72"


def test_line_breaks_are_those_of_files_not_of_unicode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\u2028two||<<1=1>> #### 1\n", encoding="utf-8")
    assert gsm8k.convert(path).examples[0].question == "one\u2028two"


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"fine\nn\xe9 \n", "0xe9 at offset 6, in line 2"), ("a||b #### 1".encode("utf-16"), "0xff")],
)
def test_wrong_encodings(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=told):
        gsm8k.convert(path)
    with pytest.raises(UserError, match="cannot read"):
        gsm8k.convert(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2*(3+.5)", 7),
        ("-3+1,000", 997),
        ("50%*10", 5),
        ("007", 7),
        ("0.1+0.2", Fraction(3, 10)),
        ("15*.01*1000", 150),
        ("1/0", None),
        ("2**99999999", None),
        ("__import__('os')", None),
        ("x+1", None),
        ("1<2", None),
        ("True", None),
        ("", None),
        ("1" + "+1" * 200, None),
    ],
)
def test_arithmetic_and_nothing_else(text: str, value: Fraction | None) -> None:
    assert gsm8k.evaluate(text) == value


@pytest.mark.parametrize(
    ("step", "holds"),
    [
        ("<<1+1=2>>", True),
        ("<<1+1=3>>", False),
        ("<<10/3=3.33>>", True),
        ("<<10/3=3>>", False),
        ("<<20-15=5=5>>", None),
        ("plain words", None),
        ("", None),
    ],
)
def test_equations(step: str, holds: bool | None) -> None:
    assert gsm8k.holds(step) is holds


def test_the_task_fits_what_evaluation_asks() -> None:
    task: Task = gsm8k.TASK
    assert (task.name, task.max_new_tokens) == ("gsm8k", 64)


@given(st.fractions(max_denominator=10**6))
@settings(deadline=None, max_examples=200)
def test_a_number_is_read_back_from_how_it_is_shown(number: Fraction) -> None:
    assert as_number(show(number)) == number
    assert number in numbers(f"so x is {show(number)} in all")


@given(st.text(alphabet="0123456789.,/-+$%eE \\{}frac*½−", max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_text_can_be_searched_for_numbers(text: str) -> None:
    found = numbers(text)
    assert as_number(text) in [*found, None]
    assert [as_number(show(number)) for number in found] == found


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["{}", "{}.0", "${}", "{} eggs", "{:,}", "{}.", "{:,}.00 %"]),
)
@settings(deadline=None, max_examples=200)
def test_dress_does_not_change_the_verdict(number: int, dress: str) -> None:
    output = f"<<1+1=2>>\n### {dress.format(number)}"
    for gold, right in [(str(number), True), (str(number + 1), False)]:
        assert gsm8k.TASK.score(output, Example("", (), gold)).correct is right


@given(
    st.lists(st.text(alphabet="ab1=<>+", min_size=1), max_size=4), st.text(alphabet="0123456789,", min_size=1)
)
@settings(deadline=None, max_examples=100)
def test_a_written_line_is_read_back(steps: list[str], answer: str) -> None:
    (example,) = gsm8k.parse_icot(
        [f"What is #1?||{' '.join(steps)} #### {answer}"], empty_steps="none"
    ).examples
    assert example == Example("What is #1?", tuple(steps), answer)
