"""Verdicts counted: rates with their intervals, in groups, beside what shortcuts reach, over pairs."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from coconut_lm.data.example import Example
from coconut_lm.data.survey import ROOMS, floors, readable
from coconut_lm.statistics import Pairs, mcnemar, paired_difference, wilson

_SHORTCUT = {1.0: "right", 0.5: "undecided", 0.0: "wrong"}
_ORDER: dict[str, Callable[[str], int]] = {"steps": int, "shortcut": [*_SHORTCUT.values()].index}


def rate(verdicts: Iterable[bool]) -> dict[str, Any]:
    """How many are true, and the 95 % interval of the rate."""
    counts = Counter(map(bool, verdicts))
    right, n = counts[True], counts.total()
    low, high = wilson(right, n)
    return {"rate": right / n if n else None, "right": right, "n": n, "low": low, "high": high}


def difference(a: Mapping[int, bool], b: Mapping[int, bool]) -> dict[str, Any]:
    """B's rate less A's on the examples that both have verdicts on, its 95 % interval, and McNemar's p."""
    shared = [key for key in a if key in b]
    pairs = Pairs.of([a[key] for key in shared], [b[key] for key in shared])
    low, high = paired_difference(pairs)
    p = mcnemar(pairs.only_a, pairs.only_b)
    return {"difference": pairs.difference, "low": low, "high": high, "p": p}


def groups(verdicts: Sequence[bool], examples: Sequence[Example], task: str) -> dict[str, dict[str, Any]]:
    """By the number of steps (of ProsQA the length of the path), and by what the strongest shortcut says."""
    found: dict[str, dict[str, list[bool]]] = {}
    for verdict, example in zip(verdicts, examples, strict=True):
        for name, key in _keys(example, task).items():
            found.setdefault(name, {}).setdefault(key, []).append(verdict)
    return {
        name: {key: rate(found[name][key]) for key in sorted(found[name], key=_ORDER[name])} for name in found
    }


def _keys(example: Example, task: str) -> dict[str, str]:
    keys = {"steps": str(sum(bool(step.strip()) for step in example.steps))}
    rule = getattr(ROOMS.get(task), "shortcut_right", None)
    if rule and readable([example], task):
        keys["shortcut"] = _SHORTCUT[rule(example)]
    return keys


def shortcut_floors(examples: Sequence[Example], task: str) -> dict[str, Any]:
    """What rules reach on these examples that never follow the chain."""
    room, known = ROOMS.get(task), readable(examples, task)
    return floors(room, known) if known and hasattr(room, "shortcuts") else {}


def pairs(verdicts: Sequence[bool], examples: Sequence[Example]) -> list[tuple[bool, bool]]:
    """The verdicts on an example and on its twin, where a file holds both."""
    found: dict[Any, dict[bool, bool]] = {}
    for verdict, example in zip(verdicts, examples, strict=True):
        if "pair" in example.extra and "counterfactual" in example.extra:
            found.setdefault(example.extra["pair"], {})[bool(example.extra["counterfactual"])] = verdict
    return [(pair[False], pair[True]) for pair in found.values() if len(pair) == 2]


def swaps(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any] | None:
    """Accuracy on twins, in which only the asked entity and so the answer differ, and how often both are
    right; None where there are none."""
    if not pairs:
        return None
    return {
        "n": len(pairs),
        "accuracy": rate(twin for _, twin in pairs),
        "consistency": rate(all(pair) for pair in pairs),
    }
