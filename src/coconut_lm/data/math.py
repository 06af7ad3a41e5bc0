"""MATH (arXiv 2103.03874): competition problems with written solutions, from the hub or from files.

A record has `problem` and `solution`, often `level` and `type`; the answer stands in a box of the solution.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coconut_lm.data import latex
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example, Verdict
from coconut_lm.data.numbers import as_number
from coconut_lm.data.records import BadRecord, parse, read_records, sentences, with_text
from coconut_lm.errors import UserError

EXPECTED = '{"problem": "...", "solution": "... \\\\boxed{answer}"}'
# The last revision with both splits; the one after it has the test problems behind the others, under "train".
REVISIONS = {"qwedsacf/competition_math": "d9afe06952835e34b5a148b90043bc04aa09e519"}

Splits = dict[str, list[Example]]

_FORMULA = re.compile(
    r"\[asy\].*?\[/asy\]|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\$\$.*?\$\$|(?<!\\)\$(?:\\.|[^$\\])*\$|\\\[.*?\\\]|\\\(.*?\\\)",
    re.DOTALL,
)


_STOPPED = re.compile(r"\.\s*(?:\$+|\\[\])]|\\end\{\w+\*?\})$")


def line_steps(solution: str) -> list[str]:
    """A step for each line that is not empty."""
    return [line.strip() for line in solution.splitlines() if line.strip()]


def sentence_steps(solution: str) -> list[str]:
    """A step for each sentence, on one line; a formula is never cut, whatever stops and breaks it holds."""
    formulas: list[str] = []

    def mask(match: re.Match[str]) -> str:
        formulas.append(" ".join(match[0].split()))
        # A formula can begin a sentence, as the $ says, and can end one.
        return "$\0. " if _STOPPED.search(match[0]) else "$\1"

    paragraphs = re.split(r"\n\s*\n", _FORMULA.sub(mask, solution))
    cut = [step for paragraph in paragraphs for step in sentences(" ".join(paragraph.split()))]
    hidden = iter(formulas)
    return [re.sub(r"\$(?:\x00\.|\x01)", lambda _: next(hidden), step) for step in cut]


STEPS: dict[str, Callable[[str], list[str]]] = {"lines": line_steps, "sentences": sentence_steps}
BOXES = {"last": -1, "first": 0}  # which box holds the answer
SPLITS = ("original", "shuffled")


def _as_they_are(steps: list[str]) -> list[str]:
    return steps


def _without_boxes(steps: list[str]) -> list[str]:
    return [latex.unbox(step) for step in steps]


def _before_the_box(steps: list[str]) -> list[str]:
    return [step for step in steps if not latex.boxes(step)]


# What becomes of the box in the steps: it stays, its content stays, or the steps that hold one go.
BOX_IN_STEPS: dict[str, Callable[[list[str]], list[str]]] = {
    "keep": _as_they_are,
    "unbox": _without_boxes,
    "drop": _before_the_box,
}


@dataclass(frozen=True)
class Recipe:
    """How a solution becomes steps and an answer, and how the records are split."""

    box: str = "last"
    steps: str = "sentences"
    box_in_steps: str = "unbox"
    split: str = "original"
    extra: tuple[str, ...] = ("level", "type")
    valid_share: float = 0.1
    seed: int = 42

    def __post_init__(self) -> None:
        known: dict[str, Iterable[str]] = {
            "box": BOXES,
            "steps": STEPS,
            "box_in_steps": BOX_IN_STEPS,
            "split": SPLITS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise UserError(f"unknown {name}", given=getattr(self, name), expected=", ".join(values))


# seed001: the files of the first public use of MATH with latent thoughts; its steps tell the boxed answer.
PRESETS = {
    "sentences": Recipe(),
    "seed001": Recipe("first", "lines", "keep", "shuffled", extra=()),
}


@dataclass(frozen=True)
class Converted:
    """Examples by split, and what was wrong with the records that gave none."""

    splits: Splits
    skipped: list[str]


def convert(
    *sources: str | os.PathLike[str], recipe: Recipe = PRESETS["sentences"], skip_bad: bool = False
) -> Converted:
    """Examples from .json, .jsonl or .parquet files, folders of JSON records, or data sets on the hub."""
    origins: list[str | None] = []

    def read(record: Any) -> list[Example]:
        examples = [example_of(record, recipe)]
        origins.append(record.get("split"))
        return examples

    records = [row for source in sources for row in read_records(source, REVISIONS.get(str(source)))]
    parsed = parse(records, read, skip_bad=skip_bad, source=", ".join(map(str, sources)), expected=EXPECTED)
    pairs = list(zip(origins, parsed.examples, strict=True))
    split = _original if recipe.split == "original" else _shuffled
    return Converted(split(pairs, recipe), parsed.skipped)


def example_of(record: Any, recipe: Recipe) -> Example:
    """One record, told by a recipe; a record's own `answer` goes before the box."""
    record = with_text(record, "problem", "solution")
    solution = record["solution"]
    answer = record.get("answer") or answer_of(solution, recipe.box)
    steps = BOX_IN_STEPS[recipe.box_in_steps](STEPS[recipe.steps](solution))
    extra = {name: record[name] for name in recipe.extra if name in record}
    return Example(record["problem"], tuple(steps), answer, extra)


_SAID = re.compile(r"(?:answer|final answer|the answer is)\s*:\s*(.+)|the answer is\s+(.+)", re.IGNORECASE)


def answer_of(solution: str, box: str = "last") -> str:
    """What the last or first box holds, else what is said to be the answer, else a short last line."""
    found = latex.boxes(solution)
    said = _SAID.search(solution)
    last = (line_steps(solution) or [""])[-1]
    if found:
        answer = latex.unbox(found[BOXES[box]].content)
    elif said:
        answer = said[1] or said[2]
    else:
        answer = last if len(last) <= 200 else ""
    answer = " ".join(latex.strip_math(answer).split())
    if not answer:
        raise BadRecord('no answer: no \\boxed{...}, no "answer: ...", no short last line')
    return answer


Pairs = Sequence[tuple[str | None, Example]]


def _original(pairs: Pairs, recipe: Recipe) -> Splits:
    """The records' own splits; validation problems come out of train where there are none."""
    if any(origin is None for origin, _ in pairs):
        raise UserError(
            "the records do not say which split they are of",
            expected='a "split" in each, a file or folder named train or test, or a hub data set',
            do="give both files or the folder above, or choose split=shuffled",
        )
    splits: Splits = {}
    for origin, example in pairs:
        splits.setdefault({"validation": "valid"}.get(str(origin), str(origin)), []).append(example)
    if "train" in splits and "valid" not in splits:
        train = splits["train"]
        order = list(range(len(train)))
        random.Random(recipe.seed).shuffle(order)
        held = set(order[: int(len(train) * recipe.valid_share)])
        splits["train"] = [example for at, example in enumerate(train) if at not in held]
        splits["valid"] = [train[at] for at in sorted(held)]
    return splits


def _shuffled(pairs: Pairs, recipe: Recipe) -> Splits:
    """All records in one seeded shuffle; a share for validation, as many for test, the rest for training."""
    examples = [example for _, example in pairs]
    random.Random(recipe.seed).shuffle(examples)
    share = int(len(examples) * recipe.valid_share)
    return {
        "valid": examples[:share],
        "test": examples[share : 2 * share],
        "train": examples[2 * share :],
    }


class LatexTask(WordedTask):
    """A Task whose answer is a formula: right if it says the same, however it is written."""

    def score(self, output: str, example: Example) -> Verdict:
        """Compares the formula that the output ends with."""
        if self.scoring == "reference":
            return super().score(output, example)
        found = latex.final_answer(output)
        return Verdict(
            latex.equal(example.answer, found), latex.normalise(found), latex.normalise(example.answer)
        )


TASK = LatexTask("math", max_new_tokens=512)


def statistics(examples: Sequence[Example]) -> dict[str, Any]:
    """Steps, boxes and answers that the steps give away, lengths in words, kinds of answers."""
    steps = Counter(len(example.steps) for example in examples)
    boxes = Counter(len(latex.boxes("\n".join(example.steps))) for example in examples)
    return {
        "examples": len(examples),
        "distinct_questions": len({example.question for example in examples}),
        "steps": _summary([len(example.steps) for example in examples]),
        "single_step": steps[1],
        "without_steps": steps[0],
        "boxes": {str(count): boxes[count] for count in sorted(boxes)},
        "answer_in_steps": sum(any(e.answer in step for step in e.steps) for e in examples),
        "answer_in_first_step": sum(bool(e.steps) and e.answer in e.steps[0] for e in examples),
        "question_words": _summary([len(example.question.split()) for example in examples]),
        "solution_words": _summary([len(" ".join(example.steps).split()) for example in examples]),
        "questions_with_newlines": sum("\n" in example.question for example in examples),
        "with_drawings": sum("[asy]" in "\n".join((e.question, *e.steps)) for e in examples),
        "answers_with_commas": sum("," in example.answer for example in examples),
        "answers_that_are_numbers": sum(as_number(example.answer) is not None for example in examples),
    }


def _summary(values: Sequence[int]) -> dict[str, float]:
    ordered = sorted(values) or [0]
    last = len(ordered) - 1
    return {
        "mean": sum(ordered) / len(ordered),
        "median": ordered[last // 2],
        "p95": ordered[int(0.95 * last)],
        "max": ordered[last],
    }
