"""An example is a question, the steps of its reasoning, an answer, and whatever else its file says."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Protocol

from coconut_lm.errors import UserError
from coconut_lm.files import atomic_write, read_text

SHOWN = 10  # bad rows named in one message


@dataclass(frozen=True)
class Example:
    """One question with its gold steps and answer; `extra` holds all else of its record, and is kept."""

    question: str
    steps: tuple[str, ...]
    answer: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Its record in a file."""
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


def write_examples(path: str | os.PathLike[str], examples: Iterable[Example], *, force: bool = False) -> None:
    """A JSON list, or JSON lines when the name ends in .jsonl; whole or not at all."""
    lines = [json.dumps(example.to_json(), ensure_ascii=False) for example in examples]
    with atomic_write(path, force=force) as file:
        if Path(path).suffix == ".jsonl":
            file.writelines(line + "\n" for line in lines)
        else:
            file.write("[\n" + ",\n".join(lines) + "\n]\n")


def read_examples(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> list[Example]:
    """The first `limit` examples of a JSON list, a .jsonl file, a data set folder, or a data set on the hub.

    `split` and `name` (the hub's configuration) are for folders and the hub.
    """
    path = Path(source).expanduser()
    if path.is_file():
        rows = _json_lines(path) if path.suffix == ".jsonl" else _json_list(path)
    else:
        rows = _dataset(str(source), path, split, name)
    return _examples(str(source), islice(rows, limit))


def _examples(source: str, rows: Iterable[tuple[str, Any]]) -> list[Example]:
    examples: list[Example] = []
    bad: list[str] = []
    seen: dict[str, str] = {}  # where an "id" was first
    for where, row in rows:
        problem = _problem(row) or _repeated(row, where, seen)
        if problem:
            bad.append(f"{where}: {problem}")
        else:
            extra = {key: value for key, value in row.items() if key not in ("question", "steps", "answer")}
            examples.append(Example(row["question"], tuple(row["steps"]), row["answer"], extra))
    if bad:
        more = f"\n  ... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(
            f"{source}: {len(bad)} of {len(bad) + len(examples)} rows are no examples\n  "
            + "\n  ".join(bad[:SHOWN])
            + more,
            expected='objects like {"question": "...", "steps": ["...", "..."], "answer": "..."}',
            do="mend these rows, or leave them out",
        )
    if not examples:
        raise UserError(f"{source} holds no examples", expected="at least one")
    return examples


def _problem(row: Any) -> str | None:
    """What keeps a row from being an example, if anything."""
    if not isinstance(row, dict):
        return f"is {_kind(row)}, not an object"
    for key in ("question", "steps", "answer"):
        if key not in row:
            return f"has no {key!r} (it has {', '.join(map(repr, row)) or 'nothing'})"
    for key in ("question", "answer"):
        if not isinstance(row[key], str):
            return f"{key!r} is {_kind(row[key])}, not a string"
    if not row["question"].strip():
        return "asks nothing: 'question' is empty"
    if not isinstance(row["steps"], list):
        return f"'steps' is {_kind(row['steps'])}, not a list of strings"
    for number, step in enumerate(row["steps"], start=1):
        if not isinstance(step, str):
            return f"step {number} is {_kind(step)}, not a string"
    # JSON can spell half a surrogate pair, which no tokenizer takes and no UTF-8 file holds.
    for text in (row["question"], *row["steps"], row["answer"]):
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            return "holds half of a surrogate pair (\\ud800 to \\udfff)"
    return None


def _repeated(row: dict[str, Any], where: str, seen: dict[str, str]) -> str | None:
    """Two examples of one "id" are a file put together twice, or two files that do not belong together."""
    if row.get("id") is None:
        return None
    first = seen.setdefault(json.dumps(row["id"], sort_keys=True), where)
    return None if first == where else f"has the id of {first}: {row['id']!r}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


def _json_list(path: Path) -> Iterator[tuple[str, Any]]:
    text = _text(path)
    rows = _parse(text, path, 1)
    if not isinstance(rows, list):
        raise UserError(f"{path} is not a list of examples", given=_kind(rows), expected="[{...}, {...}]")
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    # Not splitlines: a JSON string may hold U+2028 and its like, which that would break at.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _parse(line, path, number)


def _text(path: Path) -> str:
    text = read_text(path)
    if not text.strip():
        raise UserError(
            f"{path} is empty", expected="a JSON list of examples, or one example a line (.jsonl)"
        )
    return text


def _parse(text: str, path: Path, line: int) -> Any:
    """JSON that starts in this line of the file."""

    def no_number(name: str) -> NoReturn:
        raise UserError(f"{path} holds {name}, which is not JSON", do="write null or a number")

    try:
        return json.loads(text, parse_constant=no_number)
    except json.JSONDecodeError as error:
        several = error.msg == "Extra data" and path.suffix != ".jsonl"
        raise UserError(
            f"{path} is not JSON: {error.msg}",
            given=f"line {line + error.lineno - 1}, column {error.colno}",
            do="give a file of JSON lines a name that ends in .jsonl" if several else "",
        ) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be a file of examples") from None


def _dataset(source: str, path: Path, split: str | None, name: str | None) -> Iterator[tuple[str, Any]]:
    """Rows of a folder saved by or readable to `datasets`, or of the hub."""
    hub = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source)
    if not path.is_dir() and (not hub or path.suffix in (".json", ".jsonl", ".txt")):
        raise UserError(f"{path} does not exist", expected="a JSON file, a data set folder, or a hub id")
    import datasets

    saved = any((path / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json"))
    try:
        found = datasets.load_from_disk(path) if saved else datasets.load_dataset(str(path), name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{source} is no JSON file here, and cannot be read as a data set",
            given=f"{type(error).__name__}: {error}",
            do="check the spelling, the connection and your access",
        ) from None
    if isinstance(found, dict):
        found = _one_split(source, found, split)
    return ((f"row {number}", row) for number, row in enumerate(found, start=1))


def _one_split(source: str, splits: Mapping[str, Any], split: str | None) -> Any:
    if split is None and len(splits) == 1:
        (split,) = splits
    if split is None or split not in splits:
        raise UserError(
            f"{source} has several splits" if split is None else f"{source} has no such split",
            given=split,
            expected=" or ".join(splits),
            do="choose one with split=",
        )
    return splits[split]
