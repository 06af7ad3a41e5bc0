"""GSM8K: grade-school word problems, from the published text files or from the original JSON lines.

The published text (iCoT, arXiv 2405.14838) has a line `question||step step ... #### answer` for each problem.
"""

import ast
import operator
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from coconut_lm.data import latex
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example, Verdict, write_examples
from coconut_lm.data.numbers import as_number, numbers, show
from coconut_lm.data.records import BadRecord, Parsed, json_object, parse, sentences, with_text
from coconut_lm.errors import UserError
from coconut_lm.files import read_text

# A problem without steps: one empty step as in the published files, no example at all, or no steps.
EMPTY_STEPS: dict[str, list[tuple[str, ...]]] = {"keep": [("",)], "drop": [], "none": [()]}
ICOT = "question||<<step>> <<step>> #### answer"
ORIGINAL = '{"question": "...", "answer": "rationale with <<1+1=2>>\\n#### answer"}'

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def _sentence_steps(rationale: str) -> list[str]:
    return sentences(_ANNOTATION.sub("", rationale))


# The steps of an original record: its calculator annotations, or its sentences without them.
STEPS: dict[str, Callable[[str], list[str]]] = {
    "annotations": _ANNOTATION.findall,
    "sentences": _sentence_steps,
}


def parse_icot(
    lines: Iterable[str], *, empty_steps: str = "keep", skip_bad: bool = False, source: str = "the text"
) -> Parsed:
    """The published text format; blank lines are passed over."""
    _check("empty_steps", empty_steps, EMPTY_STEPS)
    return _parse(lines, lambda line: _icot(line, empty_steps), skip_bad, source, ICOT)


def parse_original(
    lines: Iterable[str],
    *,
    steps: str = "annotations",
    empty_steps: str = "keep",
    skip_bad: bool = False,
    source: str = "the text",
) -> Parsed:
    """The original JSON lines; `steps` are their <<...>> annotations or the sentences of their rationale."""
    _check("empty_steps", empty_steps, EMPTY_STEPS)
    _check("steps", steps, STEPS)

    def read(line: str) -> list[Example]:
        return example_of(json_object(line), steps=steps, empty_steps=empty_steps)

    return _parse(lines, read, skip_bad, source, ORIGINAL)


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    steps: str = "annotations",
    empty_steps: str = "keep",
    limit: int | None = None,
    skip_bad: bool = False,
    force: bool = False,
) -> Parsed:
    """Reads a file of either format, as its first line tells, and writes the first `limit` examples."""
    lines = read_text(source).split("\n")
    if next(filter(str.strip, lines), "").lstrip().startswith("{"):
        parsed = parse_original(
            lines, steps=steps, empty_steps=empty_steps, skip_bad=skip_bad, source=str(source)
        )
    else:
        parsed = parse_icot(lines, empty_steps=empty_steps, skip_bad=skip_bad, source=str(source))
    parsed = Parsed(parsed.examples[:limit], parsed.skipped)
    if out is not None:
        write_examples(out, parsed.examples, force=force)
    return parsed


def _check(what: str, given: str, known: Iterable[str]) -> None:
    if given not in known:
        raise UserError(f"unknown {what}", given=given, expected=", ".join(known))


def _parse(
    lines: Iterable[str], read: Callable[[str], list[Example]], skip_bad: bool, source: str, expected: str
) -> Parsed:
    named = ((f"line {number}", line) for number, line in enumerate(lines, start=1) if line.strip())
    return parse(named, read, skip_bad=skip_bad, source=source, expected=expected)


def _icot(line: str, empty_steps: str) -> list[Example]:
    question, bar, rest = line.partition("||")
    if not bar or "||" in rest:
        raise BadRecord("no || between question and steps" if not bar else "more than one ||")
    if "##" not in rest:
        raise BadRecord("no #### before the answer")
    # Split at single spaces, as the published files were: two spaces give an empty step between them.
    field = rest.split("##")[0].strip()
    return _example(question, field.split(" ") if field else [], rest.split("##")[-1], empty_steps)


def example_of(record: Any, *, steps: str = "annotations", empty_steps: str = "keep") -> list[Example]:
    """One record of the original, or of GSM-Symbolic, whose ids stay: of a template and its instance."""
    record = with_text(record, "question", "answer")
    rationale, mark, answer = record["answer"].rpartition("####")
    if not mark:
        raise BadRecord("no #### in the answer")
    extra = {key: record[key] for key in ("id", "instance", "original_id") if record.get(key) is not None}
    if {"id", "instance"} <= extra.keys():  # a template's id alone is that of all its instances
        extra["id"] = f"{extra['id']}-{extra['instance']}"
    return _example(record["question"], STEPS[steps](rationale), answer, empty_steps, extra)


def _example(
    question: str, steps: Sequence[str], answer: str, empty_steps: str, extra: Mapping[str, Any] | None = None
) -> list[Example]:
    if not question.strip():
        raise BadRecord("no question")
    if not answer.strip():
        raise BadRecord("no answer after ####")
    return [Example(question, kept, answer.strip(), extra or {}) for kept in _kept(steps, empty_steps)]


def _kept(steps: Sequence[str], empty_steps: str) -> list[tuple[str, ...]]:
    return [tuple(steps)] if steps else EMPTY_STEPS[empty_steps]


class NumberTask(WordedTask):
    """A Task whose answer is a number: 18, 18.0, $18.00 and "18 eggs." are the same, and % is a unit."""

    def score(self, output: str, example: Example) -> Verdict:
        """Numbers are compared exactly; a gold answer in words as words."""
        if self.scoring == "reference":
            return super().score(output, example)
        found, gold = answer_in(output), as_number(example.answer)
        if gold is None:  # a gold answer in words
            return WordedTask(self.name).score(output, example)
        return Verdict(correct=found == gold, extracted="" if found is None else show(found), gold=show(gold))


TASK = NumberTask("gsm8k", max_new_tokens=64)


def answer_in(output: str) -> Fraction | None:
    """The number after the last mark of an answer (the result, if an equation is there), else the last."""
    after = latex.marked(output)
    if after is None:
        return next(reversed(numbers(output)), None)
    for line in after.splitlines():
        if found := numbers(line.rpartition("=")[2]) or numbers(line):
            return found[0]
    return None


_OPERATORS: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(expression: str) -> Fraction | None:
    """The exact value of + - * / and brackets over numbers; None for anything else."""
    cleaned = expression.replace(",", "").replace("%", "/100").replace("$", "").strip()
    if len(cleaned) > 200:  # deeper nesting than people write
        return None
    try:
        return _value(ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", cleaned), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


def _value(node: ast.AST) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(repr(node.value))
    raise ValueError("not arithmetic")


def equation(step: str) -> tuple[str, str] | None:
    """Both sides of the equation that a step states."""
    left, equals, right = step.strip().removeprefix("<<").removesuffix(">>").rpartition("=")
    return (left.strip(), right.strip()) if equals else None


def holds(step: str) -> bool | None:
    """Whether a step's equation is true, to the decimals its result shows; None if it is not arithmetic."""
    sides = equation(step)
    left, right = map(evaluate, sides) if sides else (None, None)
    if sides is None or left is None or right is None:
        return None
    decimals = len(sides[1].partition(".")[2])
    return left == right or (decimals > 0 and abs(left - right) < Fraction(1, 10**decimals))


def last_is_answer(example: Example) -> bool:
    """Whether the last step's value is the answer."""
    sides = equation(example.steps[-1]) if example.steps else None
    value = evaluate(sides[1]) if sides else None
    return value is not None and value == as_number(example.answer)


def statistics(examples: Sequence[Example]) -> dict[str, Any]:
    """Steps, equations that hold, last steps that are the answer, words of questions, kinds of answers."""
    checks = Counter(holds(step) for example in examples for step in example.steps if step.strip())
    words = sorted(len(example.question.split()) for example in examples)
    steps = Counter(len([step for step in example.steps if step.strip()]) for example in examples)
    return {
        "examples": len(examples),
        "distinct_questions": len({example.question for example in examples}),
        "steps": {str(count): steps[count] for count in sorted(steps)},
        "without_steps": steps[0],
        "last_step_is_answer": sum(map(last_is_answer, examples)),
        "equations": {"true": checks[True], "false": checks[False], "not_arithmetic": checks[None]},
        "question_words": {
            "mean": sum(words) / max(1, len(words)),
            "p95": words[int(0.95 * (len(words) - 1))] if words else 0,
            "max": max(words, default=0),
        },
        "answers_not_numbers": sum(as_number(example.answer) is None for example in examples),
        "answers_with_commas": sum("," in example.answer for example in examples),
    }
