"""ProntoQA as a reader sees it: the answer follows from the rules, and the file looks like the real one."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import prontoqa
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError

ASSET = Path(__file__).parents[1] / "assets" / "coconut_paper_prontoqa_valid.json.gz"


def released() -> list[Example]:
    records = json.loads(gzip.decompress(ASSET.read_bytes()))
    return [Example(r["question"], tuple(r["steps"]), r["answer"]) for r in records]


def singular(word: str) -> str:
    return word.lower().removesuffix("es")


def read(sentence: str) -> tuple[str, str, bool]:
    """Subject, what is said of it, and whether it is denied."""
    for pattern in (
        r"(?:Each|Every) (\w+pus) is (not )?(?:an? )?(\w+)\.",
        r"(\w+puses) are (not )?(\w+)\.",
        r"([A-Z]\w+) is (not )?(?:an? )?(\w+)\.",
    ):
        if found := re.fullmatch(pattern, sentence):
            subject = found[1] if found[1] in prontoqa.NAMES else singular(found[1])
            what = singular(found[3]) if found[3].endswith("puses") else found[3]
            return subject, what, bool(found[2])
    raise AssertionError(sentence)


def sentences(text: str) -> list[str]:
    return re.findall(r"\S[^.]*\.", text)


def derived(context: str, name: str) -> dict[str, bool]:
    """All that follows about an entity: concept or property, and whether it is denied."""
    rules = [read(sentence) for sentence in sentences(context)]
    known = {what: denied for subject, what, denied in rules if subject == name}
    for _ in rules:
        for subject, what, denied in rules:
            if subject in known:
                assert known.setdefault(what, denied) is denied, "the text contradicts itself"
    return known


def check(example: Example) -> None:
    context, _, query = example.question.partition("True or false: ")
    name, what, denied = read(query)
    known = derived(context, name)
    assert example.answer == str(known[what] is denied)
    said = sentences(" ".join(example.steps))
    assert read(said[-1]) == (name, what, known[what])
    for at, sentence in enumerate(said):
        if at == 0 or at % 2:
            assert sentence in context
        else:
            (_, before, _), (subject, after, denies) = read(said[at - 2]), read(said[at - 1])
            assert subject == before and read(sentence) == (name, after, denies)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_every_made_answer_follows_from_the_text(hops: int, seed: int) -> None:
    (example,) = prontoqa.make(1, seed=seed, hops=hops)
    check(example)
    context, _, query = example.question.partition("True or false: ")
    name, what, _ = read(query)
    told = [read(sentence) for sentence in sentences(context)]
    assert len(told) == 4 * hops + 5 and len(example.steps) == hops + 1
    assert [subject for subject, _, _ in told].count(name) == 2
    about = [(subject, denied) for subject, said, denied in told if said == what]
    assert len(about) == 2 and about[0][1] is not about[1][1]


def test_the_released_file_is_read_the_same_way() -> None:
    for example in released():
        check(example)
        assert {*prontoqa.CONCEPTS} >= {singular(w) for w in re.findall(r"\w+pus(?:es)?", example.question)}


def test_made_data_look_like_the_released_file() -> None:
    made, real = prontoqa.statistics(prontoqa.make(2000)), prontoqa.statistics(released())
    for key in (
        "context_sentences",
        "facts",
        "rules_about_asked_property",
        "steps_shares",
        "concepts",
        "names",
    ):
        assert made[key] == real[key]
    assert made["context_sentences"] == 25 and made["steps_shares"] == {"6": 1.0}
    assert made["question_words"] == pytest.approx(real["question_words"], abs=1)
    assert made["negated_rules"] == pytest.approx(real["negated_rules"], abs=0.35)
    assert made["answer_false"] == pytest.approx(0.5, abs=0.04)
    assert made["query_negated"] == pytest.approx(0.52, abs=0.05)


def test_shortcuts_of_the_released_file_and_of_made_data() -> None:
    assert prontoqa.shortcuts(released()) == {
        "guess": 0.5,
        "always_false": 0.555,
        "polarity": 0.525,
        "linked_rule": 1.0,
    }
    floors = prontoqa.shortcuts(list(prontoqa.make(2000)))
    assert floors["polarity"] == pytest.approx(0.55, abs=0.035)
    assert floors["linked_rule"] == 1.0


def test_polarity_calls_a_negated_query_false() -> None:
    example = Example("Each impus is red. Max is an impus. True or false: Max is not red.", (), "False")
    assert prontoqa.shortcut_right(example) == 1
    assert prontoqa.shortcut_right(Example(example.question, (), "True")) == 0
    told_twice = Example(example.question.replace("Each", "Impuses are not red. Each"), (), "False")
    assert prontoqa.shortcut_right(told_twice, "linked_rule") == 0.5


def test_templates_names_and_articles() -> None:
    text = " ".join(example.question for example in prontoqa.make(300))
    forms = Counter(re.findall(r"Each|Every|\w+puses are", text))
    assert 0.22 < forms["Each"] / (300 * 23) < 0.28 and 0.22 < forms["Every"] / (300 * 23) < 0.28
    assert not re.search(r"\ba impus|\ban [^i]", text) and "an impus" in text
    families = {word: at for at, family in enumerate(prontoqa.FAMILIES) for word in family}
    for example in prontoqa.make(50):
        words = {word for word in re.findall(r"\w+", example.question) if word in families}
        assert len(words) == len({families[word] for word in words}) == 11


def as_bytes(count: int, **given: Any) -> list[str]:
    return [json.dumps(example.to_json()) for example in prontoqa.make(count, **given)]


def test_same_seed_same_bytes_for_any_number_of_processes() -> None:
    one = as_bytes(600, seed=2)
    assert one == as_bytes(600, seed=2, processes=2)
    assert one[:5] == as_bytes(5, seed=2) and not set(one) & set(as_bytes(600, seed=3))


def test_path_lengths_come_with_their_odds() -> None:
    lengths = Counter(
        len(example.steps) - 1 for example in prontoqa.make(500, hops="1-5", hop_weights="0,1,0,0,3")
    )
    assert set(lengths) == {2, 5} and 0.68 < lengths[5] / 500 < 0.82


@pytest.mark.parametrize(
    "given", [{"hops": 0}, {"hops": 6}, {"hops": "many"}, {"hops": 2, "hop_weights": "1,1"}, {"processes": 0}]
)
def test_impossible_settings_are_refused_before_anything_is_made(given: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        prontoqa.make(1, **given)


def raw(example: Example) -> dict[str, Any]:
    """An example as the original generator writes it."""
    question, mark, query = example.question.partition(" True or false:")
    chain = sentences(" ".join(example.steps))
    test = {
        "question": question,
        "query": mark.strip() + query,
        "chain_of_thought": chain,
        "answer": example.answer,
    }
    return {"test_example": test}


def test_the_generators_json_becomes_the_released_records() -> None:
    examples = released()
    source = {f"example{at}": raw(example) for at, example in enumerate(examples, 1)}
    splits = prontoqa.convert(source)
    assert {name: len(split) for name, split in splits.items()} == {"train": 180, "valid": 4, "test": 16}
    assert splits["train"] + splits["valid"] + splits["test"] == examples


def test_ten_thousand_split_as_published() -> None:
    record = raw(released()[0])
    splits = prontoqa.convert({f"example{at}": record for at in range(10_000)})
    assert [len(split) for split in splits.values()] == [9000, 200, 800]


def test_convert_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "5hop_0shot_random.json"
    path.write_text(json.dumps({"example1": raw(released()[0])}), encoding="utf-8")
    assert prontoqa.convert(path)["test"] == [released()[0]]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"example1": 3}', '{"example1": {"test_example": {"query": "x"}}}']
)
def test_convert_says_what_is_wrong_with_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "raw.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        prontoqa.convert(path)
    with pytest.raises(UserError):
        prontoqa.convert(tmp_path / "missing.json")


def test_convert_names_every_bad_record() -> None:
    good = raw(released()[0])
    chainless = {"test_example": good["test_example"] | {"chain_of_thought": []}}
    with pytest.raises(UserError, match="(?s)b: not an object.*c: no list of sentences"):
        prontoqa.convert({"a": good, "b": 3, "c": chainless})


def test_a_question_of_another_kind_is_no_prontoqa() -> None:
    with pytest.raises(UserError, match="not a ProntoQA question"):
        prontoqa.parse("Is Tom a lempus or scrompus?")


@pytest.mark.parametrize(
    ("output", "correct"),
    [
        ("Max is an impus.\n### True", True),
        ("### true.", True),
        ("### False", False),
        ("True", True),
        ("", False),
    ],
)
def test_scores(output: str, correct: bool) -> None:
    assert prontoqa.TASK.score(output, Example("?", (), "True")).correct is correct
    assert (prontoqa.TASK.name, prontoqa.TASK.max_new_tokens) == ("prontoqa", 128)
