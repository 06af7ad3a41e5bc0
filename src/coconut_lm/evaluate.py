"""A model's answers, judged and counted: predictions as they come, and what they add up to.

`generate` is any callable from prompts to replies: nothing here knows what computes.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import fmean
from typing import Any

from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example, Task
from coconut_lm.data.survey import PLAIN, ROOMS, floors, readable
from coconut_lm.errors import UserError
from coconut_lm.methods import Row, Rows
from coconut_lm.statistics import wilson
from coconut_lm.tokens import END, LATENT, PAUSE, START

_MARKERS = re.compile("|".join(map(re.escape, (START, END, LATENT, PAUSE))))
_ANSWER = re.compile(r"^[ \t]*###", re.MULTILINE)


@dataclass(frozen=True)
class Reply:
    """What was written after one prompt."""

    ids: tuple[int, ...]  # without end-of-text
    ended: bool  # end-of-text was written
    thought_norms: tuple[float, ...] = ()


Generate = Callable[[Sequence[Row]], Sequence[Reply]]


@dataclass(frozen=True)
class Prediction:
    """One example: what was asked, written and read out of it, whether it is right, what it cost."""

    index: int
    id: Any
    question: str
    prompt: str
    output: str
    extracted: str
    gold: str
    correct: bool
    cot_match: bool | None  # None where no step was to be written
    written: int  # tokens, without end-of-text
    thoughts: int
    ended: bool
    thought_norms: tuple[float, ...]
    seconds: float  # its share of its batch's time
    read: int = 0  # tokens of the prompt, thoughts included

    @property
    def passes(self) -> int:
        """Forward passes: the prompt takes one more than it has thoughts and gives the first token."""
        return self.thoughts + max(1, self.written + self.ended)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"thought_norms": [round(norm, 4) for norm in self.thought_norms]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Prediction":
        known = {item.name: row[item.name] for item in fields(cls) if item.name in row}
        return cls(**known | {"thought_norms": tuple(row.get("thought_norms", ()))})


def task_named(name: str | None, scoring: str = "tolerant") -> Task:
    """How answers are judged."""
    if name in ROOMS:
        task: Task = replace(ROOMS[name].TASK, scoring=scoring)
        return task
    if name != PLAIN:
        raise UserError("unknown task", given=name, expected=", ".join([*ROOMS, PLAIN]))
    return WordedTask(PLAIN, scoring=scoring)


def budget(prompts: Rows, task: Task, stage: int, data: str = "") -> int:
    """How many tokens may be written: the task's limit, or more where the gold texts need it. The published
    rule goes by the name of the data."""
    if _by_the_letter(task):
        return 64 if "gsm" in data or "math" in data else 128
    longest = max(len(row.input_ids) - row.supervised_from for row in _gold_rows(prompts, stage))
    return max(task.max_new_tokens, -(-longest // 64) * 64)


def predict(
    generate: Generate,
    prompts: Rows,
    examples: Sequence[Example],
    *,
    tokenizer: Any,
    task: Task,
    stage: int,
    thoughts: int | None = None,
    batch_size: int = 32,
    indices: Iterable[int] | None = None,
) -> Iterator[Prediction]:
    """Predictions as they come, in batches of like lengths, the longest first: what does not fit, fails soon.

    `thoughts` overrides the number that the stage implies; `indices` are the examples that are asked.
    """
    judge = _Judge(prompts, examples, tokenizer, task, stage)
    asked = range(len(examples)) if indices is None else indices
    rows = [prompts.prompt(index, stage, thoughts) for index in asked]
    rows.sort(key=lambda row: -len(row.input_ids))
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        begun = time.perf_counter()
        replies = generate(batch)
        share = (time.perf_counter() - begun) / len(batch)
        for row, reply in zip(batch, replies, strict=True):
            yield judge(row, reply, share)


@dataclass(frozen=True)
class _Judge:
    prompts: Rows
    examples: Sequence[Example]
    tokenizer: Any
    task: Task
    stage: int

    def __call__(self, row: Row, reply: Reply, seconds: float) -> Prediction:
        example = self.examples[row.index]
        prompt_ids = row.input_ids.tolist()
        prompt, output, whole = self._texts(prompt_ids, [*reply.ids], [*prompt_ids, *reply.ids])
        letter = _by_the_letter(self.task)
        # The published rules read question and output as one text.
        verdict = self.task.score(whole if letter else output, example)
        matched = _published_cot_match(whole, example) if letter else self._cot_match(row.index, output)
        return Prediction(
            index=row.index,
            id=example.extra.get("id"),
            question=example.question,
            prompt=prompt,
            output=output,
            extracted=verdict.extracted,
            gold=verdict.gold,
            correct=verdict.correct,
            cot_match=matched,
            written=len(reply.ids),
            thoughts=row.thoughts,
            ended=reply.ended,
            thought_norms=reply.thought_norms,
            seconds=seconds,
            read=len(prompt_ids),
        )

    def _cot_match(self, index: int, output: str) -> bool | None:
        """Whether the steps that are left to write at this stage were written, and nothing else."""
        gold = self.prompts.row(index, self.stage)
        answer = len(self.prompts.examples[index].answer)
        (steps,) = self._texts(gold.input_ids[gold.supervised_from : -answer].tolist())
        if not steps.strip():
            return None
        written = _ANSWER.split(_MARKERS.sub("", output), maxsplit=1)[0]
        return written.strip() == steps.strip()

    def _texts(self, *ids: list[int]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(list(ids), skip_special_tokens=True)
        return texts


def _by_the_letter(task: Task) -> bool:
    return getattr(task, "scoring", None) == "reference"


def _published_cot_match(whole: str, example: Example) -> bool:
    """Between the first line break and the first "#", against all steps."""
    return whole.partition("\n")[2].partition("#")[0].strip() == "\n".join(example.steps)


def _gold_rows(prompts: Rows, stage: int) -> Iterator[Row]:
    return (prompts.row(index, stage) for index in range(len(prompts)))


def rate(verdicts: Iterable[bool]) -> dict[str, Any]:
    """How many are true, and the 95 % interval of the rate."""
    counts = Counter(map(bool, verdicts))
    right, n = counts[True], counts.total()
    low, high = wilson(right, n)
    return {"rate": right / n if n else None, "right": right, "n": n, "low": low, "high": high}


def summarise(
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    task: str = PLAIN,
    *,
    flops: Callable[[Prediction], float] | None = None,
) -> dict[str, Any]:
    """What predictions add up to. Thoughts count as tokens; end-of-text does not, as in the published figures
    (but for one: 3.0 tokens of ProntoQA answers have it)."""
    if not predictions:
        raise UserError("nothing was predicted", expected="at least one example")
    asked = [examples[each.index] for each in predictions]
    chains = [each.cot_match for each in predictions if each.cot_match is not None]
    thoughts = {each.thoughts for each in predictions}
    return {
        "n": len(predictions),
        "thoughts": thoughts.pop() if len(thoughts) == 1 else None,
        "accuracy": rate(each.correct for each in predictions),
        "cot_match": rate(chains) if chains else None,
        "ended": rate(each.ended for each in predictions),
        "tokens": {
            "mean": fmean(each.written + each.thoughts for each in predictions),
            "written": fmean(each.written for each in predictions),
            "latent": fmean(each.thoughts for each in predictions),
            "with_end": fmean(each.written + each.thoughts + each.ended for each in predictions),
        },
        "passes": {"mean": fmean(each.passes for each in predictions)},
        "flops": {"mean": fmean(map(flops, predictions))} if flops else None,
        "seconds": {"per_example": fmean(each.seconds for each in predictions)},
        "groups": _groups(predictions, asked, task),
        "floors": _floors(asked, task),
        "swaps": swaps(predictions, examples),
    }


def _groups(
    predictions: Sequence[Prediction], asked: Sequence[Example], task: str
) -> dict[str, dict[str, Any]]:
    """Accuracy by the number of steps, and by whether the strongest shortcut gives the right answer."""
    room, known = ROOMS.get(task), {id(example) for example in readable(asked, task)}
    keys: dict[str, dict[str, list[bool]]] = {"steps": {}, "shortcut": {}}
    for each, example in zip(predictions, asked, strict=True):
        steps = sum(bool(step.strip()) for step in example.steps)
        keys["steps"].setdefault(str(steps), []).append(each.correct)
        if room and hasattr(room, "shortcut_right") and id(example) in known:
            verdict = {1.0: "right", 0.5: "undecided", 0.0: "wrong"}[room.shortcut_right(example)]
            keys["shortcut"].setdefault(verdict, []).append(each.correct)
    order: dict[str, Callable[[str], int]] = {"steps": int, "shortcut": ["right", "undecided", "wrong"].index}
    return {
        name: {key: rate(groups[key]) for key in sorted(groups, key=order[name])}
        for name, groups in keys.items()
        if groups
    }


def _floors(asked: Sequence[Example], task: str) -> dict[str, Any]:
    """What rules reach on these examples that never follow the chain."""
    room, known = ROOMS.get(task), readable(asked, task)
    return floors(room, known) if known and hasattr(room, "shortcuts") else {}


def swaps(predictions: Iterable[Prediction], examples: Sequence[Example]) -> dict[str, Any] | None:
    """Of pairs that differ in the asked entity alone: accuracy on the swapped ones, and how often both are
    right. None where there are no pairs."""
    pairs: dict[Any, dict[bool, bool]] = {}
    for each in predictions:
        extra = examples[each.index].extra
        if "pair" in extra and "counterfactual" in extra:
            pairs.setdefault(extra["pair"], {})[bool(extra["counterfactual"])] = each.correct
    whole = [pair for pair in pairs.values() if len(pair) == 2]
    if not whole:
        return None
    return {
        "n": len(whole),
        "accuracy": rate(pair[True] for pair in whole),
        "consistency": rate(all(pair.values()) for pair in whole),
    }
