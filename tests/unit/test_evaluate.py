"""Evaluation with a fake model: what is judged and counted, and the files of it."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import UserError
from coconut_lm.data.example import Example
from coconut_lm.evaluate import (
    Prediction,
    Reply,
    Setting,
    budget,
    evaluate,
    predict,
    summarise,
    task_named,
)
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.tokens import LatentTokens, encode, latent_tokens, load_tokenizer

ASSETS = Path(__file__).parents[1] / "assets"
TOKENIZER: Any = load_tokenizer(ASSETS / "gpt2-tokenizer", pause=True)
TOKENS: LatentTokens = latent_tokens(TOKENIZER)
EXAMPLES = [
    Example("Three and four?", ("<<3+4=7>>",), "7"),
    Example("Two times three,\nless one, what is it?", ("<<2*3=6>>", "<<6-1=5>>"), "5", {"id": "b"}),
    Example("Nine?", ("<<3*3=9>>", "<<9+0=9>>", "<<9*1=9>>"), "9"),
    Example("No steps?", ("",), "0"),
]
SETTING = Setting("run/checkpoint_1", "w", "data.json", "d", "gsm8k", "coconut", 1, None, "tolerant", 64)


def rows(method: str = "coconut", examples: Sequence[Example] = EXAMPLES, **curriculum: Any) -> Rows:
    curriculum = {"c_thought": 2, "max_latent_stage": 2} | curriculum
    return Rows(encode(examples, TOKENIZER), TOKENS, method, Curriculum(**curriculum))


class Writer:
    """Writes a text after each prompt, and remembers what it was asked."""

    def __init__(self, text: Callable[[int], str], stop_after: int | None = None) -> None:
        self.text, self.stop_after = text, stop_after
        self.batches: list[list[Row]] = []

    def __call__(self, prompts: Sequence[Row]) -> list[Reply]:
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(list(prompts))
        return [
            Reply(tuple(TOKENIZER.encode(self.text(p.index))), True, (1.5,) * p.thoughts) for p in prompts
        ]

    @property
    def asked(self) -> list[int]:
        return [prompt.index for batch in self.batches for prompt in batch]


def answers(index: int) -> str:
    return f"### {EXAMPLES[index].answer}"


def predictions(writer: Writer, prompts: Rows, scoring: str = "tolerant", **how: Any) -> list[Prediction]:
    how = {"stage": 1, "task": task_named("gsm8k", scoring), "tokenizer": TOKENIZER} | how
    found = predict(writer, prompts, EXAMPLES, **how)
    return sorted(found, key=lambda each: each.index)


def test_the_longest_prompts_come_first_in_batches_of_like_lengths() -> None:
    writer = Writer(answers)
    found = predictions(writer, rows(), batch_size=2)
    lengths = [len(prompt.input_ids) for batch in writer.batches for prompt in batch]
    assert lengths == sorted(lengths, reverse=True) and [len(batch) for batch in writer.batches] == [2, 2]
    assert sorted(writer.asked) == [each.index for each in found] == [0, 1, 2, 3]
    assert all(each.correct and each.seconds > 0 for each in found)


def test_only_some_examples_are_asked() -> None:
    writer = Writer(answers)
    assert [each.index for each in predictions(writer, rows(), indices=[3, 1])] == [1, 3]
    assert sorted(writer.asked) == [1, 3]


def test_what_a_prediction_tells() -> None:
    one = predictions(Writer(lambda index: "<<6-1=5>>\n### 5.0"), rows())[1]
    assert (one.id, one.extracted, one.gold, one.correct, one.cot_match) == ("b", "5", "5", True, True)
    assert one.question == EXAMPLES[1].question and one.output == "<<6-1=5>>\n### 5.0"
    assert one.prompt == one.question + "\n<|start-latent|><|latent|><|latent|><|end-latent|>"
    assert one.thoughts == 2 and one.thought_norms == (1.5, 1.5)
    assert one.written == len(TOKENIZER.encode(one.output)) and one.ended
    assert one.read == len(TOKENIZER.encode(one.prompt))
    assert one.passes == 2 + one.written + 1  # the prompt in three, the first token with the last of them


@pytest.mark.parametrize(
    ("stage", "output", "match"),
    [
        (0, "<<2*3=6>>\n<<6-1=5>>\n### 5", True),
        (0, "<<6-1=5>>\n### 5", False),
        (1, "<<6-1=5>>\n### 5", True),
        (1, "<<2*3=6>>\n<<6-1=5>>\n### 5", False),
        (1, "<|end-latent|><<6-1=5>>\n### 5", True),
        (1, "<<6-1=5>>\nso\n### 5", False),
        (1, "<<6-1=5>>", True),
        (1, "", False),
        (2, "### 5", None),
        (3, "### 5", None),
    ],
)
def test_only_steps_that_the_stage_still_writes_are_matched(
    stage: int, output: str, match: bool | None
) -> None:
    assert predictions(Writer(lambda index: output), rows(), stage=stage)[1].cot_match is match


def test_steps_are_matched_whatever_the_method_cuts() -> None:
    whole = "<<2*3=6>>\n<<6-1=5>>\n### 5"
    cut = TOKENIZER.decode(TOKENIZER.encode("<<2*3=6>>\n<<6-1=5>>\n")[3:])
    for method, stage, output, match in (
        ("cot", 0, whole, True),
        ("no_cot", 0, "### 5", None),
        ("no_thoughts", 1, "<<6-1=5>>\n### 5", True),
        ("icot", 3, cut + "### 5", True),
        ("icot", 3, whole, False),
    ):
        found = predictions(Writer(lambda index, text=output: text), rows(method), stage=stage)
        assert found[1].cot_match is match, (method, stage)


def test_nothing_is_to_be_matched_where_the_data_have_no_steps() -> None:
    assert predictions(Writer(answers), rows("cot"), stage=0)[3].cot_match is None


@pytest.mark.parametrize(
    ("output", "extracted", "right"),
    [
        ("", "", False),
        ("# 4 # 5", "5", True),
        ("### 5\n# 4", "4", False),
        ("#", "", False),
        ("\n\n", "", False),
    ],
)
def test_odd_outputs(output: str, extracted: str, right: bool) -> None:
    one = predictions(Writer(lambda index: output), rows())[1]
    assert (one.extracted, one.correct) == (extracted, right)


def test_thoughts_as_asked() -> None:
    found = predictions(Writer(answers), rows(), thoughts=5)
    assert {each.thoughts for each in found} == {5}
    with pytest.raises(UserError, match="impossible thoughts for method cot"):
        predictions(Writer(answers), rows("cot"), thoughts=1)


def test_the_budget_holds_the_longest_gold_text() -> None:
    task = task_named("gsm8k")
    assert budget(rows("cot"), task, 0) == 64
    long = [Example("How?", tuple(["<<1+1=2>>"] * 30), "2")]
    assert budget(rows("cot", long), task, 0) == 256 and budget(rows("no_cot", long), task, 0) == 64
    letter = task_named("gsm8k", "reference")
    paths = ("gsm_valid.json", "math.json", "prosqa.json")
    assert [budget(rows("cot", long), letter, 0, path) for path in paths] == [64, 64, 128]


def test_an_unknown_task() -> None:
    with pytest.raises(UserError, match="expected: *prosqa, prontoqa, math, gsm8k, mmlu, plain"):
        task_named("gsm")
    with pytest.raises(UserError, match="unknown scoring"):
        task_named("gsm8k", "lenient")


def test_what_predictions_add_up_to() -> None:
    found = predictions(Writer(lambda index: "### 5"), rows(pad_latent_to_max=False), stage=2)
    metrics = summarise(found, EXAMPLES, "gsm8k", flops=lambda each: each.read)
    assert metrics["n"] == 4 and metrics["thoughts"] is None  # one step: two thoughts; more steps: four
    assert metrics["accuracy"]["right"] == 1 and metrics["accuracy"]["rate"] == 0.25
    assert metrics["cot_match"] == {"rate": 0.0, "right": 0, "n": 1} | {
        key: metrics["cot_match"][key] for key in ("low", "high")
    }
    assert metrics["tokens"] == {"mean": 5.0, "written": 2.0, "latent": 3.0, "with_end": 6.0}
    assert metrics["passes"]["mean"] == 6.0 and metrics["ended"]["rate"] == 1.0
    assert metrics["flops"]["mean"] == sum(each.read for each in found) / 4
    assert {key: group["right"] for key, group in metrics["groups"]["steps"].items()} == {
        "0": 0,
        "1": 0,
        "2": 1,
        "3": 0,
    }
    assert metrics["floors"] == {} and metrics["swaps"] is None and "shortcut" not in metrics["groups"]
    json.dumps(metrics)
    with pytest.raises(UserError, match="nothing was predicted"):
        summarise([], EXAMPLES)


@pytest.mark.parametrize(
    ("data", "published", "without_end"),
    [("gsm8k", 2.2, 2.086), ("prosqa", 8.2, 8.21), ("prontoqa", 3.0, 2.0)],
)
def test_published_token_counts_are_those_without_end(
    data: str, published: float, without_end: float
) -> None:
    """But for ProntoQA's answers, whose 3.0 tokens have it (its written chains, 92.5, do not)."""
    with gzip.open(ASSETS / f"coconut_paper_{data}_valid.json.gz") as file:
        examples = [Example(r["question"], tuple(r["steps"]), r["answer"]) for r in json.load(file)]
    encoded = encode(examples, TOKENIZER)
    mean = sum(len(each.answer) - 1 for each in encoded) / len(encoded)
    assert mean == pytest.approx(without_end, abs=0.001)
    assert abs(mean + (data == "prontoqa") - published) < 0.12
    if data == "prontoqa":
        chains = sum(len(each.answer) - 1 + sum(map(len, each.steps)) for each in encoded) / len(encoded)
        assert chains == pytest.approx(92.5, abs=0.1)


def run(writer: Writer, out: Path, setting: Setting = SETTING, **how: Any) -> dict[str, Any]:
    return evaluate(writer, rows(), EXAMPLES, setting, tokenizer=TOKENIZER, out=out, **how)


def stored(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text("utf-8").splitlines()]
    return [
        {key: value for key, value in row.items() if key not in ("seconds", "batch_size")} for row in lines
    ]


def test_the_files(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(coming: Any, total: int) -> Any:
        for each in coming:
            seen.append(total)
            yield each

    metrics = run(Writer(answers), tmp_path, batch_size=3, batch_1=2, watch=watch, memory=lambda: (5, "all"))
    assert seen == [4] * 4
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics
    assert metrics | vars(SETTING) | {"thoughts": 2} == metrics
    assert metrics["seconds"]["batch_size"] == 3 and metrics["seconds"]["per_example_batch_1"] > 0
    assert (metrics["peak_memory"], metrics["memory_of"]) == (5, "all")
    assert [row["index"] for row in stored(tmp_path)] == [0, 1, 2, 3]  # as in the data
    text = (tmp_path / "validation_examples.txt").read_text("utf-8")
    assert "stage 1: 4 of 4 right" in text and "--- 1: right\nTwo times three,\nless one" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.json",
        "predictions.jsonl",
        "settings.json",
        "validation_examples.txt",
    ]


def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    expected = run(Writer(answers), whole, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        run(Writer(answers, stop_after=2), part, batch_size=1)
    assert not (part / "predictions.jsonl").exists()
    with open(part / "partial.jsonl", "a", encoding="utf-8") as file:
        file.write('{"index": 3, "corr')  # a line cut off
    writer = Writer(answers)
    metrics = run(writer, part, batch_size=1)
    assert len(writer.asked) == 2 and stored(part) == stored(whole)
    assert metrics | {"seconds": None} == expected | {"seconds": None}
    writer = Writer(answers)
    assert run(writer, part)["accuracy"] == expected["accuracy"] and writer.asked == []


def test_what_is_there_keeps_the_clock_and_the_memory_it_was_measured_with(tmp_path: Path) -> None:
    first = run(Writer(answers), tmp_path, batch_size=3, batch_1=2, memory=lambda: (5, "all"))
    again = run(Writer(answers), tmp_path, batch_size=1, memory=lambda: (1, "none"))
    assert again == first and again["seconds"]["batch_size"] == 3
    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        run(Writer(answers, stop_after=1), part, batch_size=2)
    mixed = run(Writer(answers), part, batch_size=1, memory=lambda: (7, "rest"))
    assert mixed["seconds"]["batch_size"] is None and mixed["peak_memory"] == 7


def test_figures_do_not_outlive_what_they_are_of(tmp_path: Path) -> None:
    run(Writer(answers), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(Writer(answers, stop_after=2), tmp_path, replace(SETTING, stage=2), batch_size=1, force=True)
    assert not (tmp_path / "metrics.json").exists()


def test_another_setting_is_refused_unless_forced(tmp_path: Path) -> None:
    run(Writer(answers), tmp_path)
    other = replace(SETTING, stage=2)
    with pytest.raises(UserError, match=r"given: *stage 2\n *expected: *stage 1\n *do: .*--force"):
        run(Writer(answers), tmp_path, other)
    assert run(Writer(lambda index: "### 1"), tmp_path, other, force=True)["accuracy"]["right"] == 0
    assert [row["output"] for row in stored(tmp_path)] == ["### 1"] * 4


def test_a_file_by_another_name_is_the_same(tmp_path: Path) -> None:
    known = replace(SETTING, weights="w", data_sha256="d", checkpoint="runs/a", data="valid.json")
    run(Writer(answers), tmp_path, known)
    writer = Writer(answers)
    run(writer, tmp_path, replace(known, checkpoint="/home/me/runs/a", data="./valid.json"))
    assert writer.asked == []
    with pytest.raises(UserError, match="data_sha256 other"):
        run(Writer(answers), tmp_path, replace(known, data_sha256="other"))


def test_a_folder_with_predictions_of_unknown_settings_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="predictions.jsonl exists"):
        run(Writer(answers), tmp_path)


def test_swapped_questions_count_for_consistency_alone(tmp_path: Path) -> None:
    metrics = run(Writer(lambda index: "### 5"), tmp_path, swapped=[True, True, False, False])
    assert metrics["n"] == 4 and metrics["accuracy"]["right"] == 1
    assert metrics["swaps"]["n"] == 4
    assert metrics["swaps"]["accuracy"]["right"] == 2 and metrics["swaps"]["consistency"]["right"] == 1
    assert run(Writer(answers), tmp_path) == metrics  # what was asked once is not forgotten


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(4)), st.integers(1, 5), st.integers(0, 3))
def test_neither_order_nor_batch_matters(order: list[int], batch_size: int, stage: int) -> None:
    plain = predictions(Writer(answers), rows(), stage=stage)
    other = predictions(Writer(answers), rows(), stage=stage, indices=order, batch_size=batch_size)
    same = {"seconds": 0, "batch_size": None}
    assert [replace(each, **same) for each in plain] == [replace(each, **same) for each in other]
    assert [Prediction.from_json(json.loads(json.dumps(each.to_json()))) for each in plain] == plain
