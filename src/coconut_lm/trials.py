"""The same examples asked in several ways: a study. What is found is kept as it comes, failures too.

A row is what predictions.jsonl has: which trial, its tags, the prediction, and whether there is one.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from coconut_lm.data.example import Example, Task
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Judge, Reply
from coconut_lm.journal import Journal
from coconut_lm.methods import Row, Rows

BEARABLE = 0.01  # the share of answers that may fail
Found = dict[str, Any]
Branches = Callable[[Sequence[Row]], Sequence[Sequence[Reply]]]
Watch = Callable[[Iterable[Found], int], Iterable[Found]]


@dataclass(frozen=True)
class Questions:
    """What is asked in every trial, unless it says otherwise."""

    prompts: Rows
    examples: Sequence[Example]
    tokenizer: Any
    task: Task
    stage: int
    thoughts: int | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class Trial:
    """One way of asking: `generate` gives the replies of all branches of a prompt, `tags` go into its rows.

    With `prompts` and `thoughts` of its own it asks otherwise; with `judged` other examples are the gold."""

    name: str
    generate: Branches
    tags: Mapping[str, Any] = field(default_factory=dict)
    thoughts: int | None = None
    prompts: Rows | None = None
    judged: Sequence[Example] | None = None
    branches: int = 1


def carry_out(
    trials: Sequence[Trial],
    questions: Questions,
    journal: Journal,
    watch: Watch = lambda found, total: found,
) -> dict[str, list[Found]]:
    """The rows of each trial, in the order of the examples. What is there already is kept, but for what
    failed."""
    kept = _whole(trials, journal.rows())
    for trial in trials:
        done = {index for name, index, _ in kept if name == trial.name}
        left = {index for index in range(len(questions.examples)) if index not in done}
        coming = journal.keep(_asked(trial, questions, left), lambda row: row)
        for row in watch(coming, len(left) * trial.branches) if left else ():
            kept[_key(row)] = row
    order = {trial.name: place for place, trial in enumerate(trials)}
    rows = [kept[key] for key in sorted(kept, key=lambda key: (order[key[0]], *key[1:]))]
    journal.finish(rows)
    found = defaultdict[str, list[Found]](list)
    for row in rows:
        found[row["trial"]].append(row)
    return dict(found)


def _key(row: Found) -> tuple[str, int, int]:
    return row["trial"], row["index"], row.get("branch", 0)


def _whole(trials: Sequence[Trial], rows: Iterable[Found]) -> dict[tuple[str, int, int], Found]:
    """What was answered, each example with all of its branches."""
    kept = {_key(row): row for row in rows if row["success"]}
    there = Counter(key[:2] for key in kept)
    branches = {trial.name: trial.branches for trial in trials}
    return {key: row for key, row in kept.items() if there[key[:2]] == branches[key[0]]}


def _asked(trial: Trial, questions: Questions, left: Set[int]) -> Iterator[Found]:
    """In batches of like lengths, the longest first. A batch of which some are left is asked whole, so that
    its rounding is what it would have been."""
    prompts = trial.prompts or questions.prompts
    thoughts = questions.thoughts if trial.thoughts is None else trial.thoughts
    rows = [prompts.prompt(index, questions.stage, thoughts) for index in range(len(questions.examples))]
    rows.sort(key=lambda row: -len(row.input_ids))
    judge = Judge(
        prompts, trial.judged or questions.examples, questions.tokenizer, questions.task, questions.stage
    )
    size = max(1, questions.batch_size // trial.branches)
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        if any(row.index in left for row in batch):
            answered = _answered(trial, judge, batch, first=start == 0)
            yield from (found for found in answered if found["index"] in left)


def _answered(trial: Trial, judge: Judge, rows: Sequence[Row], first: bool) -> Iterator[Found]:
    """What fails together may do one by one. Where all of the first fail, it is not the examples' fault."""
    begun = time.perf_counter()
    try:
        replies = trial.generate(rows)
    except (RuntimeError, UserError) as error:
        if len(rows) == 1:
            yield _failure(trial, judge, rows[0], error)
            return
        alone = [found for row in rows for found in _answered(trial, judge, [row], first=False)]
        if first and not any(found["success"] for found in alone):
            raise
        yield from alone
        return
    share = (time.perf_counter() - begun) / sum(map(len, replies))
    for row, branches in zip(rows, replies, strict=True):
        for branch, reply in enumerate(branches):
            yield _found(trial, judge, row, branch, reply, share)


def _found(trial: Trial, judge: Judge, row: Row, branch: int, reply: Reply, seconds: float) -> Found:
    told = {"branch": branch, "logprob": reply.logprob} if trial.branches > 1 else {}
    prediction = judge(row, reply, seconds).to_json()
    return {"trial": trial.name, **trial.tags, **told, **prediction, **reply.notes} | {
        "success": True,
        "error": None,
    }


def _failure(trial: Trial, judge: Judge, row: Row, error: Exception) -> Found:
    example = judge.examples[row.index]
    said = " ".join(str(error).split())
    about = {"index": row.index, "id": example.extra.get("id"), "question": example.question}
    return {"trial": trial.name, **trial.tags, **about, "gold": example.answer} | {
        "success": False,
        "error": f"{type(error).__name__}: {said}",
    }


# -- what is found, counted --


def succeeded(rows: Iterable[Found]) -> list[Found]:
    return [row for row in rows if row["success"]]


def failures(found: Mapping[str, Sequence[Found]]) -> dict[str, int]:
    """How many answers there are not, of how many. An example's branches are one answer: it fails whole."""
    rows = [row for each in found.values() for row in each if not row.get("branch")]
    return {"n": len(rows) - len(succeeded(rows)), "of": len(rows)}


def too_many(failed: Mapping[str, int]) -> bool:
    return failed["n"] > BEARABLE * failed["of"]


def verdicts(rows: Iterable[Found]) -> dict[int, bool]:
    """Was each example answered right; those that failed are not there."""
    return {row["index"]: bool(row["correct"]) for row in rows if row["success"]}
