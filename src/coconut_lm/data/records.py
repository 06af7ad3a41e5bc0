"""Other people's records: reading them, what is wrong with which of them, and text cut into sentences."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.files import read_text

SHOWN = 10  # bad records that an error quotes
T = TypeVar("T")


@dataclass(frozen=True)
class Parsed:
    """The examples, and what was wrong with the records that gave none."""

    examples: list[Example]
    skipped: list[str] = field(default_factory=list)


class BadRecord(Exception):
    """What is wrong with one record."""


def parse(
    records: Iterable[tuple[str, T]],
    read: Callable[[T], list[Example]],
    *,
    skip_bad: bool,
    source: str,
    expected: str,
) -> Parsed:
    """Reads every named record; all that are bad are told at once, or skipped and listed."""
    examples: list[Example] = []
    bad: list[str] = []
    for name, record in records:
        try:
            examples += read(record)
        except BadRecord as problem:
            bad.append(f"{name}: {problem}")
    if bad and not skip_bad:
        more = [f"... and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        listed = "\n    ".join(["", *bad[:SHOWN], *more])
        raise UserError(
            f"{source}: {len(bad)} bad of {len(bad) + len(examples)}",
            given=listed,
            expected=expected,
            do="mend them, or skip them (skip_bad)",
        )
    if not examples:
        raise UserError(f"{source} holds nothing to learn from", given=f"{len(bad)} bad", expected=expected)
    return Parsed(examples, bad)


def json_object(text: str, *keys: str) -> dict[str, Any]:
    """The JSON object in a line, which must hold text under these keys."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise BadRecord(f"not JSON ({error})") from None
    return with_text(record, *keys)


def with_text(record: Any, *keys: str) -> dict[str, Any]:
    """The record itself, if it is an object that holds text under these keys."""
    if not isinstance(record, dict):
        raise BadRecord("not an object")
    for key in keys:
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise BadRecord(f"no text under {key!r}")
    return record


Rows = Iterator[tuple[str, Any]]


def read_records(
    source: str | os.PathLike[str], revision: str | None = None, name: str | None = None
) -> Rows:
    """Named records of a .json, .jsonl or .parquet file, a folder of them, or a data set on the hub.

    Each has the `split` that it, its file or its folder names, if one does. `name` is the part of a data set
    on the hub that has several.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        rows = _folder(path)
    elif path.suffix in _READERS and path.is_file():
        rows = _with_split(_READERS[path.suffix](path), Path(path.absolute().parent.name, path.name))
    elif path.suffix or path.exists() or str(source).count("/") != 1:
        raise UserError(
            f"cannot read records from {source}",
            expected=f"a file ({', '.join(_READERS)}), a folder of them, or a hub id (owner/name)",
        )
    else:
        rows = _hub(str(source), revision, name)
    return rows


def _folder(folder: Path) -> Rows:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _READERS)
    if not paths:
        raise UserError(f"{folder} holds no records", expected=f"files: {', '.join(_READERS)}")
    for path in paths:
        yield from _with_split(_READERS[path.suffix](path), path.relative_to(folder.parent))


def _with_split(rows: Rows, path: Path) -> Rows:
    parts = (*path.parent.parts, *re.split(r"[^a-z]+", path.stem.lower()))
    named = [part for part in parts if part in ("train", "valid", "validation", "test")]
    for name, record in rows:
        if isinstance(record, dict) and named:
            record = {"split": named[-1], **record}
        yield f"{path.name}, {name}", record


def _json(path: Path) -> Rows:
    content = _loaded(read_text(path), path)
    records = content if isinstance(content, list) else [content]
    return ((f"record {number}", record) for number, record in enumerate(records, start=1))


def _json_lines(path: Path) -> Rows:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _loaded(line, path)


def _loaded(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON", given=error) from None


def _parquet(path: Path) -> Rows:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a parquet file", given=error) from None
    return ((f"row {number}", record) for number, record in enumerate(records, start=1))


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _hub(source: str, revision: str | None, name: str | None) -> Rows:
    import datasets

    try:
        which = (source,) if name is None else (source, name)
        found = datasets.load_dataset(*which, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{source} is no file here, and cannot be read from the hub",
            given=f"{type(error).__name__}: {error}",
            do="check the spelling and the connection, or fetch its files and give those",
        ) from None
    for split, rows in found.items():
        for number, record in enumerate(rows, start=1):
            yield f"{split} row {number}", {"split": split, **record}


_SENTENCE_END = re.compile(
    r"(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bvs\.)(?<!\bMrs\.)(?<!\be\.g\.)(?<!\bi\.e\.)"
    r"(?<=[.!?])\s+(?=[\"'(\[$\\]?\s*[A-Z0-9$\\])|\n+"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text: they end with . ! or ? before a capital or a formula, or with the line."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]
