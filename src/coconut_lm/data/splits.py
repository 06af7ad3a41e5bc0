"""Files of examples cut into train, valid and test; several files written as one."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from coconut_lm.data.example import Example, write_examples
from coconut_lm.errors import UserError
from coconut_lm.files import refuse_overwrite

Splits = dict[str, list[Example]]


def size(written: str, of: int) -> int:
    """200, 0.1 and 10% as a number of examples."""
    try:
        share = float(written.removesuffix("%")) / 100 if written.endswith("%") else float(written)
        count = int(written) if written.isdecimal() else round(share * of)
    except (ValueError, OverflowError):
        count, share = -1, 0.0
    if count < 0 or not written.isdecimal() and not 0 <= share < 1:
        raise UserError("not a size", given=repr(written), expected="a number, or a share such as 0.1 or 10%")
    return count


def split(examples: Sequence[Example], *, valid: int, test: int, seed: int = 0) -> Splits:
    """Shuffled parts of these sizes, the rest for training. Twins and repeated questions stay together, so a
    part may fall short by what would not fit."""
    if valid + test >= len(examples):
        raise UserError(
            "nothing is left to train on",
            given=f"{valid} to validate and {test} to test of {len(examples)}",
            do="make these parts smaller",
        )
    groups = together(examples)
    Random(seed).shuffle(groups)
    parts: Splits = {"train": [], "valid": [], "test": []}
    room = {"valid": valid, "test": test}
    for group in groups:
        part = next((name for name, left in room.items() if len(group) <= left), "train")
        parts[part] += group
        if part in room:
            room[part] -= len(group)
    empty = [name for name in parts if not parts[name] and (name == "train" or room[name])]
    if empty:
        raise UserError(
            f"nothing is left for {' and '.join(empty)}",
            given=f"the smallest of {len(groups)} groups that must stay together has {min(map(len, groups))}",
            do="choose other sizes",
        )
    return parts


def write(
    folder: Path,
    splits: Mapping[str, Sequence[Example]],
    *,
    prefix: str = "",
    suffix: str = ".json",
    force: bool,
) -> dict[Path, int]:
    """PREFIXtrain.json and so on, all of them or none, and how many examples each holds; none without any."""
    files = {folder / f"{prefix}{name}{suffix}": examples for name, examples in splits.items() if examples}
    for path in files:
        refuse_overwrite(path, force)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".partial-") as beside:
        for path, examples in files.items():
            write_examples(Path(beside) / path.name, examples)
        for path in files:
            os.replace(Path(beside) / path.name, path)
    return {path: len(examples) for path, examples in files.items()}


def together(examples: Sequence[Example]) -> list[list[Example]]:
    """Groups that share a question or the `pair` of a counterfactual, directly or through others."""
    leader = list(range(len(examples)))

    def find(at: int) -> int:
        while leader[at] != at:
            leader[at] = at = leader[leader[at]]
        return at

    seen: dict[tuple[str, str], int] = {}
    for at, example in enumerate(examples):
        for mark in _marks(example):
            first, here = sorted((find(seen.setdefault(mark, at)), find(at)))
            leader[here] = first
    groups: dict[int, list[Example]] = {}
    for at, example in enumerate(examples):
        groups.setdefault(find(at), []).append(example)
    return list(groups.values())


def _marks(example: Example) -> list[tuple[str, str]]:
    pair = example.extra.get("pair")
    marks = [("question", " ".join(example.question.split()))]
    return marks if pair is None else [*marks, ("pair", json.dumps(pair, sort_keys=True))]
