"""Public test sets by name, as examples: from the hub, or from records and examples in files."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coconut_lm.data import gsm8k, math, mmlu
from coconut_lm.data.example import Example, read_examples
from coconut_lm.data.records import parse, read_records
from coconut_lm.errors import UserError


@dataclass(frozen=True)
class Source:
    """Where records are on the hub, what they look like, and how one of them is read."""

    hub: str
    name: str | None
    expected: str
    read: Callable[[Any], list[Example]]


def _gsm8k(record: Any) -> list[Example]:
    return gsm8k.example_of(record, steps="sentences", empty_steps="none")


def _math(record: Any) -> list[Example]:
    return [math.example_of(record, math.PRESETS["sentences"])]


def _mmlu(record: Any) -> list[Example]:
    return [mmlu.example_of(record)]


SOURCES = {
    "gsm8k": Source("openai/gsm8k", "main", gsm8k.ORIGINAL, _gsm8k),
    "gsm-symbolic": Source("apple/GSM-Symbolic", "main", gsm8k.ORIGINAL, _gsm8k),
    "mmlu": Source("cais/mmlu", "all", mmlu.EXPECTED, _mmlu),
    "math": Source("nlile/hendrycks-MATH-benchmark", None, math.EXPECTED, _math),
}


def examples(
    benchmark: str,
    source: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> list[Example]:
    """Examples of a file, a folder or a hub id, which may hold examples or the benchmark's own records.

    Without a `source`, or with the benchmark's name for one: its test split on the hub. The first `limit` of
    them, or, with a `seed`, as many drawn at random, in the order of the draw.
    """
    if benchmark not in SOURCES:
        raise UserError("unknown benchmark", given=benchmark, expected=", ".join(SOURCES))
    if source is None or str(source) == benchmark:
        source, split = SOURCES[benchmark].hub, split or "test"
    found = _read(SOURCES[benchmark], source, split)
    if seed is not None:
        return random.Random(seed).sample(found, min(limit or len(found), len(found)))
    return found[:limit]


def _read(known: Source, source: str | os.PathLike[str], split: str | None) -> list[Example]:
    if any(Path(source, mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")):
        return read_examples(source, split=split)  # a folder that `datasets` saved
    named = read_records(source, name=known.name if str(source) == known.hub else None)
    rows = [(where, row) for where, row in named if split is None or _split(row, split) == split]
    if not rows:
        raise UserError(f"{source} has nothing of this split", given=split)
    if all(isinstance(row, dict) and "steps" in row for _, row in rows):
        return read_examples(source, split=split)
    return parse(rows, known.read, skip_bad=False, source=str(source), expected=known.expected).examples


def _split(row: Any, otherwise: str) -> str:
    return str(row.get("split", otherwise)) if isinstance(row, dict) else otherwise
