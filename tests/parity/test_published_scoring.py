"""`scoring: reference` judges as the published code does, defects included."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from coconut_lm.data.example import Example
from coconut_lm.evaluate import Prediction, Reply, predict, task_named
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.tokens import encode, latent_tokens, load_tokenizer

ASSETS = Path(__file__).parents[1] / "assets"
TOKENIZER: Any = load_tokenizer(ASSETS / "gpt2-tokenizer")
TABLE: list[dict[str, Any]] = json.loads((ASSETS / "reference_scoring_by_hand.json").read_text("utf-8"))
GOLDEN = ASSETS / "golden"


def published(whole: str, example: Example) -> tuple[bool, bool]:
    """The rules as published, over prompt and output in one text: answer right, steps right."""
    answer = whole.split("#")[-1].replace(",", "").strip()
    steps = ("\n".join(whole.split("\n")[1:])).split("#")[0].strip()
    return answer == example.answer.replace(",", "").strip(), steps == "\n".join(example.steps)


def judged(
    examples: Sequence[Example], outputs: Sequence[str | list[int]], task: str = "gsm8k", **how: Any
) -> list[Prediction]:
    def write(prompts: Sequence[Row]) -> list[Reply]:
        texts = [outputs[prompt.index] for prompt in prompts]
        ids = [TOKENIZER.encode(text) if isinstance(text, str) else text for text in texts]
        return [Reply(tuple(each), True) for each in ids]

    how = {"method": "cot", "stage": 0, "curriculum": Curriculum(), "scoring": "reference"} | how
    tokens = latent_tokens(TOKENIZER)
    prompts = Rows(encode(examples, TOKENIZER), tokens, how["method"], how["curriculum"])
    judge = task_named(task, how["scoring"])
    found = predict(write, prompts, examples, tokenizer=TOKENIZER, task=judge, stage=how["stage"])
    return sorted(found, key=lambda each: each.index)


@pytest.mark.parametrize("task", ["gsm8k", "prosqa", "prontoqa", "math", "plain"])
def test_a_table_made_by_hand(task: str) -> None:
    assert len(TABLE) >= 60 and len({json.dumps(row) for row in TABLE}) == len(TABLE)
    examples = [Example(row["question"], tuple(row["steps"]), row["answer"]) for row in TABLE]
    found = judged(examples, [row["output"] for row in TABLE], task)
    for row, example, each in zip(TABLE, examples, found, strict=True):
        by_hand = (row["correct"], row["cot_match"])
        assert (each.correct, each.cot_match) == by_hand == published(each.prompt + each.output, example), row


def test_outputs_recorded_from_the_published_code() -> None:
    """Its ids read as GPT-2 tokens are letters, digits and marks, "#" and comma among them."""
    recorded = json.loads((GOLDEN / "forward.json").read_text("utf-8"))["generated"]
    outputs = [[int(i) for i in ids] for ids in _outputs(recorded)]
    texts = [TOKENIZER.decode(ids) for ids in outputs]
    examples = [Example("q", ("s",), text.split("#")[-1].replace(",", "").strip() or "7") for text in texts]
    found = judged(examples, outputs)
    for each, example in zip(found, examples, strict=True):
        assert (each.correct, each.cot_match) == published(each.prompt + each.output, example)
    assert any(each.correct for each in found)


def _outputs(recorded: Any) -> list[list[int]]:
    return [record["output"] for record in recorded]


@pytest.mark.parametrize("method", ["cot", "coconut"])
def test_recorded_rows_as_outputs(method: str) -> None:
    """A model that writes the gold row at every stage is right; its steps match to the letter only where
    there are no markers and no step is gone, but by our own measure wherever steps are left."""
    records = json.loads((GOLDEN / "examples.json").read_text("utf-8"))
    rows = [row for row in json.loads((GOLDEN / "rows.json").read_text("utf-8")) if row["method"] == method]
    for row in rows:
        r = records[row["data"]][row["index"]]
        example = Example(r["question"], tuple(r["steps"]), r["answer"])
        how = {"method": method, "stage": row["stage"]} | {
            "curriculum": Curriculum(
                c_thought=row["c_thought"],
                max_latent_stage=row["max_latent_stage"],
                pad_latent_to_max=row["pad_latent_to_max"],
            )
        }
        output = row["input_ids"][row["supervised_from"] : -1]
        (letter,) = judged([example], [output], "plain", **how)
        (ours,) = judged([example], [output], "plain", scoring="tolerant", **how)
        gone = row["stage"] > row["max_latent_stage"] or row["stage"] >= len(example.steps)
        assert letter.correct and ours.correct
        assert letter.cot_match is (method == "cot" and "\n" not in example.question)
        assert ours.cot_match is (None if method == "coconut" and gone else True)
