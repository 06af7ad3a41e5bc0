"""A model's answers, judged and counted: predictions as they come, what they add up to, the files of it.

`generate` is any callable from prompts to replies: nothing here knows what computes.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from statistics import fmean
from typing import Any

from coconut_lm.costs import passes_of_answer
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example, Task
from coconut_lm.data.survey import PLAIN, ROOMS
from coconut_lm.errors import UserError
from coconut_lm.files import atomic_write, read_text
from coconut_lm.journal import Journal
from coconut_lm.methods import Row, Rows
from coconut_lm.runfolder import EVALUATION, PREDICTIONS, TEXTS, write_json
from coconut_lm.tally import groups, pairs, rate, shortcut_floors, swaps
from coconut_lm.tokens import END, LATENT, PAUSE, START

_MARKERS = re.compile("|".join(map(re.escape, (START, END, LATENT, PAUSE))))
_ANSWER = re.compile(r"^[ \t]*###", re.MULTILINE)


@dataclass(frozen=True)
class Reply:
    """What was written after one prompt."""

    ids: tuple[int, ...]  # without end-of-text
    ended: bool  # end-of-text was written
    thought_norms: tuple[float, ...] = ()
    logprob: float | None = None  # of all that was written, end-of-text too, where it was asked for
    notes: Mapping[str, Any] = field(default_factory=dict)  # what else its reader says of it


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
    batch_size: int | None = None  # questions that were asked at a time

    @property
    def passes(self) -> int:
        return passes_of_answer(self.thoughts, self.written + self.ended)

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
    judge = Judge(prompts, examples, tokenizer, task, stage)
    asked = range(len(examples)) if indices is None else indices
    rows = [prompts.prompt(index, stage, thoughts) for index in asked]
    rows.sort(key=lambda row: -len(row.input_ids))
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        begun = time.perf_counter()
        replies = generate(batch)
        share = (time.perf_counter() - begun) / len(batch)
        for row, reply in zip(batch, replies, strict=True):
            yield replace(judge(row, reply, share), batch_size=batch_size)


@dataclass(frozen=True)
class Judge:
    """Makes a prediction of a reply."""

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
    verdicts = [each.correct for each in predictions]
    chains = [each.cot_match for each in predictions if each.cot_match is not None]
    return {
        "n": len(predictions),
        "thoughts": _sole(each.thoughts for each in predictions),
        "accuracy": rate(verdicts),
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
        "seconds": {
            "per_example": fmean(each.seconds for each in predictions),
            "batch_size": _sole(each.batch_size for each in predictions),
            "per_example_batch_1": None,
        },
        "groups": groups(verdicts, asked, task),
        "floors": shortcut_floors(asked, task),
        "swaps": swaps(pairs(verdicts, asked)),
    }


def _sole(values: Iterable[int | None]) -> int | None:
    """The value that all have."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Setting:
    """What is evaluated and how: two evaluations of one setting find the same."""

    checkpoint: str
    weights: str  # tells one state of the checkpoint's files from another
    data: str
    data_sha256: str
    task: str
    method: str
    stage: int
    thoughts: int | None  # as asked; None: what the stage implies
    scoring: str
    max_new_tokens: int
    backend: str = "torch"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from another. A path has many names: content counts, where it is known."""
        named = {"checkpoint": self.weights, "data": self.data_sha256, "backend": self.backend == "torch"}
        return {key: value for key, value in vars(self).items() if not named.get(key)}


Watch = Callable[[Iterator[Prediction], int], Iterable[Prediction]]


def evaluate(
    generate: Generate,
    prompts: Rows,
    examples: Sequence[Example],
    setting: Setting,
    *,
    tokenizer: Any,
    out: str | os.PathLike[str],
    batch_size: int = 32,
    batch_1: int = 0,
    swapped: Sequence[bool] | None = None,
    flops: Callable[[Prediction], float] | None = None,
    memory: Callable[[], tuple[int, str]] | None = None,
    watch: Watch = lambda predictions, total: predictions,
    force: bool = False,
) -> dict[str, Any]:
    """Predicts, judges and counts, with files in the folder `out`; one that was interrupted goes on.

    The first `batch_1` examples are asked once more, one at a time, for the clock. `swapped` are the verdicts
    on the examples' twins, where these were asked. `watch` sees predictions come.
    """
    journal = _journal(out, setting, len(examples), force)
    earlier = _earlier(journal)
    task = task_named(setting.task, setting.scoring)
    asked = dict(tokenizer=tokenizer, task=task, stage=setting.stage, thoughts=setting.thoughts)
    kept = {row["index"]: Prediction.from_json(row) for row in journal.rows()}
    left = [index for index in range(len(examples)) if index not in kept]
    fresh = predict(generate, prompts, examples, batch_size=batch_size, indices=left, **asked)
    coming = chain(kept.values(), journal.keep(fresh, Prediction.to_json))
    predictions = sorted(watch(coming, len(examples)), key=lambda each: each.index)
    alone = list(predict(generate, prompts, examples, batch_size=1, indices=range(batch_1), **asked))
    metrics = vars(setting) | summarise(predictions, examples, setting.task, flops=flops)
    if swapped is not None:
        metrics["swaps"] = swaps([(p.correct, twin) for p, twin in zip(predictions, swapped, strict=True)])
    metrics["peak_memory"], metrics["memory_of"] = memory() if memory else (None, None)
    if not left:  # what was asked before is not measured again
        metrics |= {key: earlier[key] for key in ("peak_memory", "memory_of") if key in earlier}
        metrics["swaps"] = metrics["swaps"] or earlier.get("swaps")
        metrics["seconds"]["per_example_batch_1"] = earlier.get("seconds", {}).get("per_example_batch_1")
    if alone:
        metrics["seconds"]["per_example_batch_1"] = fmean(each.seconds for each in alone)
    journal.finish([each.to_json() for each in predictions])
    write_json(journal.folder / EVALUATION, metrics)
    with atomic_write(journal.folder / TEXTS) as file:
        file.writelines(_readable(predictions, metrics))
    return metrics


def keep(out: str | os.PathLike[str], setting: Setting, n: int, predictions: Iterable[Prediction]) -> None:
    """Predictions that were made elsewhere, such as by several ranks: `evaluate` finds them in `out`."""
    for _ in _journal(out, setting, n, False).keep(predictions, Prediction.to_json):
        pass


def _journal(out: str | os.PathLike[str], setting: Setting, n: int, force: bool) -> Journal:
    return Journal(out, setting.identity | {"n": n}, PREDICTIONS, force=force)


def _earlier(journal: Journal) -> dict[str, Any]:
    """The figures of what is finished; those of what is not would be another evaluation's, and go."""
    path = journal.folder / EVALUATION
    if journal.final.exists() and path.exists():
        found: dict[str, Any] = json.loads(read_text(path))
        return found
    path.unlink(missing_ok=True)
    return {}


def _readable(predictions: Sequence[Prediction], metrics: Mapping[str, Any]) -> Iterator[str]:
    """Every example in words."""
    right, n = metrics["accuracy"]["right"], metrics["n"]
    yield f"{metrics['checkpoint']} on {metrics['data']}, stage {metrics['stage']}: {right} of {n} right\n"
    for each in predictions:
        yield f"\n--- {each.index}: {'right' if each.correct else 'wrong'}\n{each.question}\n"
        yield f"expected:  {each.gold}\nextracted: {each.extracted}\noutput ({each.thoughts} thoughts):\n"
        yield each.output.rstrip("\n") + "\n"
