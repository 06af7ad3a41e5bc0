"""An example is a question, the steps of its reasoning, an answer, and whatever else its file says."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from coconut_lm.files import atomic_write


@dataclass(frozen=True)
class Example:
    question: str
    steps: tuple[str, ...]
    answer: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "answer": self.answer,
            "steps": list(self.steps),
            **self.extra,
        }


@dataclass(frozen=True)
class Verdict:
    """What scoring one output says: was it right, and which answer was read out of it."""

    correct: bool
    extracted: str
    gold: str


class Task(Protocol):
    """What evaluation needs to know of a data set."""

    name: str
    max_new_tokens: int

    def score(self, output: str, example: Example) -> Verdict:
        """Judges the text a model wrote after the prompt."""


def write_examples(
    path: str | os.PathLike[str], examples: Iterable[Example], *, force: bool = False
) -> None:
    """A JSON list, or JSON lines when the name ends in .jsonl; whole or not at all."""
    lines = [json.dumps(example.to_json(), ensure_ascii=False) for example in examples]
    with atomic_write(path, force=force) as file:
        if Path(path).suffix == ".jsonl":
            file.writelines(line + "\n" for line in lines)
        else:
            file.write("[\n" + ",\n".join(lines) + "\n]\n")
