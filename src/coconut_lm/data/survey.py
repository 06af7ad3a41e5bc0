"""What a file of examples holds: which task, how much, how long, what is odd, which shortcuts answer it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from coconut_lm.data import gsm8k, math, mmlu, prontoqa, prosqa
from coconut_lm.data.example import Example
from coconut_lm.data.numbers import as_number
from coconut_lm.errors import UserError
from coconut_lm.statistics import wilson

ROOMS: dict[str, ModuleType] = {
    "prosqa": prosqa,
    "prontoqa": prontoqa,
    "math": math,
    "gsm8k": gsm8k,
    "mmlu": mmlu,
}
PLAIN = "plain"
SAMPLE = 200  # examples that tell the task

_OPTIONS = re.compile(r"Is \w+ an? \w+ or \w+\?$|\[R\] \d+$")
_LATEX = re.compile(r"\\[A-Za-z]+|\$[^$\d\s][^$]*\$")


def _is_math(example: Example) -> bool:
    return any(_LATEX.search(text) for text in (example.question, *example.steps, example.answer))


def _is_mmlu(example: Example) -> bool:
    return example.answer.strip() in mmlu.options(example.question)


def _is_gsm8k(example: Example) -> bool:
    return any("<<" in step for step in example.steps) or as_number(example.answer) is not None


# What an example of each task looks like; the first that fits.
SIGNS: dict[str, Callable[[Example], bool]] = {
    "prosqa": lambda example: bool(_OPTIONS.search(example.question)),
    "prontoqa": lambda example: "True or false: " in example.question,
    "mmlu": _is_mmlu,
    "math": _is_math,
    "gsm8k": _is_gsm8k,
}


def task_of(examples: Sequence[Example]) -> str:
    """The task that most of the first examples look like; `plain` if there is none."""
    first = examples[:SAMPLE]
    votes = Counter(next((t for t, fits in SIGNS.items() if fits(e)), PLAIN) for e in first)
    task, count = votes.most_common(1)[0]
    return task if 2 * count > len(first) else PLAIN


def survey(examples: Sequence[Example], task: str | None = None) -> dict[str, Any]:
    """Everything that `coconut-lm data stats` tells, ready for JSON."""
    task = task or task_of(examples)
    if task not in ROOMS and task != PLAIN:
        raise UserError("unknown task", given=task, expected=", ".join([*ROOMS, PLAIN]))
    room, known = ROOMS.get(task), readable(examples, task)
    return {
        "task": task,
        "examples": len(examples),
        "words": {
            "question": _summary(len(example.question.split()) for example in examples),
            "steps": _summary(len(" ".join(example.steps).split()) for example in examples),
            "answer": _summary(len(example.answer.split()) for example in examples),
        },
        "steps": _counts(len(example.steps) for example in examples),
        "oddities": oddities(examples) | {"without_graph": len(examples) - len(known)},
        "statistics": room.statistics(known) if room and known else {},
        "floors": floors(room, known) if known and hasattr(room, "shortcuts") else {},
    }


def readable(examples: Sequence[Example], task: str) -> Sequence[Example]:
    """The examples that the task's own figures can be had of: a ProsQA example may come without its graph."""
    if task != "prosqa":
        return examples
    return [example for example in examples if all(field in example.extra for field in prosqa.FIELDS)]


def floors(room: Any, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """The accuracy of every rule that skips the reasoning, highest first, with its 95 % interval."""
    rates, n = room.shortcuts(examples), len(examples)
    found = {}
    for rule in sorted(rates, key=rates.get, reverse=True):
        low, high = wilson(rates[rule] * n, n) if rule != "guess" else (0.5, 0.5)  # the coin is not measured
        found[rule] = {"rate": rates[rule], "n": n, "low": low, "high": high}
    return found


def oddities(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples are not as one would wish."""
    questions = Counter(" ".join(example.question.split()) for example in examples)
    return {
        "repeated_questions": _repeats(questions),
        "empty_answers": sum(not example.answer.strip() for example in examples),
        "without_steps": sum(not example.steps for example in examples),
        "with_empty_steps": sum(any(not step.strip() for step in e.steps) for e in examples),
    }


def _repeats(counts: Counter[str]) -> int:
    """Those beyond the first of their kind."""
    return counts.total() - len(counts)


def _counts(values: Iterable[int]) -> dict[str, int]:
    counts = Counter(values)
    return {str(value): counts[value] for value in sorted(counts)}


def _summary(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "mean": sum(ordered) / len(ordered),
        "min": ordered[0],
        "median": ordered[last // 2],
        "p95": ordered[int(0.95 * last)],
        "max": ordered[last],
    }
