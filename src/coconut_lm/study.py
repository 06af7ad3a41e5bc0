"""A study: one checkpoint asked one file of examples in several ways, with its folder and its summary.

RUN/KIND/DATA-CHECKPOINT-HASH/   settings.json   predictions.jsonl   KIND.json
"""

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from coconut_lm.answer import Answerer
from coconut_lm.assembly import open_checkpoint
from coconut_lm.config import load
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.exam import Exam, Examiner
from coconut_lm.journal import Journal
from coconut_lm.methods import METHODS
from coconut_lm.runfolder import PREDICTIONS, RunFolder, write_json
from coconut_lm.tally import shortcut_floors
from coconut_lm.trainingfree import THOUGHTS, open_instruct
from coconut_lm.trials import Branches, Found, Questions, Trial, Watch, carry_out, failures

DEFAULT_BATCH = 64


def examine(
    checkpoint: str, exam: Exam, config: Path | None = None, training_free: str | None = None
) -> Examiner:
    """A checkpoint's examiner; with `training_free`, a benchmark's name and perhaps a style of prompts
    (gsm8k:published), that of an instruct model."""
    if training_free is None:
        own = load(config, check_files=False) if config else None
        return Examiner(open_checkpoint(checkpoint, own), exam, checkpoint)
    if config:
        raise UserError(
            "an instruct model has no run",
            given=f"--config {config}",
            do="leave out --config or --training-free",
        )
    benchmark, _, style = training_free.partition(":")
    thoughts = THOUGHTS if exam.thoughts is None else exam.thoughts
    return Examiner(
        open_instruct(checkpoint, benchmark, thoughts=thoughts, style=style or "form"), exam, checkpoint
    )


class Study:
    """`asked` is what tells this study from others of its kind; what an examiner knows is added."""

    def __init__(
        self,
        kind: str,
        examiner: Examiner,
        asked: Mapping[str, Any],
        *,
        out: Path | None = None,
        force: bool = False,
    ) -> None:
        self.kind, self.examiner, self.asked = kind, examiner, {**examiner.loaded.told, **asked}
        self.identity = examiner.setting.identity | {"n": len(examiner.examples), "kind": kind, **self.asked}
        self.folder, self.force = out or self._place(), force

    def _place(self) -> Path:
        """Into the run's folder, if the checkpoint is in one; a name that another configuration has not."""
        setting = self.examiner.setting
        place = Path(self.examiner.loaded.place or setting.checkpoint).resolve()
        name = f"{Path(setting.data).stem}-{place.name}-{fingerprint(self.identity)}"
        runs = (RunFolder(above) for above in place.parents[:2] if RunFolder.is_one(above))
        return next((run.path / self.kind / name for run in runs), Path(self.kind, name))

    @cached_property
    def journal(self) -> Journal:
        """Its making claims the folder."""
        return Journal(self.folder, self.identity, PREDICTIONS, force=self.force)

    @cached_property
    def questions(self) -> Questions:
        examiner = self.examiner
        setting, exam = examiner.setting, examiner.exam
        return Questions(
            examiner.prompts,
            examiner.examples,
            examiner.loaded.tokenizer,
            examiner.task,
            setting.stage,
            setting.thoughts,
            exam.batch_size or DEFAULT_BATCH,
        )

    @property
    def examples(self) -> Sequence[Example]:
        return self.examiner.examples

    @cached_property
    def slots(self) -> list[int]:
        """How many thoughts each prompt has."""
        asked = self.questions
        prompts = (asked.prompts.prompt(i, asked.stage, asked.thoughts) for i in range(len(asked.examples)))
        return [prompt.thoughts for prompt in prompts]

    @property
    def thinks(self) -> bool:
        return METHODS[self.examiner.loaded.method].filler == "latent"

    def needs_thoughts(self, what: str) -> int:
        """The most that a prompt has; refuses to do `what` where none has any."""
        most = max(self.slots, default=0)
        if not self.thinks or most == 0:
            raise UserError(
                f"there are no thoughts to {what}",
                given=f"method {self.examiner.loaded.method}, stage {self.questions.stage}",
                expected="a checkpoint that thinks, at a stage with thoughts",
                do="give another checkpoint or --stage, or an instruct model with --training-free",
            )
        return most

    def needs_layer(self, layer: int) -> None:
        """Refuses a layer that the model has not."""
        layers = int(self.examiner.answerer.model.config.get_text_config().num_hidden_layers)
        if not -layers - 1 <= layer <= layers:
            raise UserError("no such layer", given=f"--layer {layer}", expected=f"{-layers - 1} to {layers}")

    def answers(self, **how: Any) -> Branches:
        """Replies to prompts; `how` are the Answerer's arguments."""
        known = self.examiner.answerer
        return Answerer(known.model, known.tokens, known.max_new_tokens, **how).branched

    def carry_out(
        self, trials: Sequence[Trial], watch: Watch = lambda found, total: found
    ) -> dict[str, list[Found]]:
        """The rows of each trial. SIGTERM stops it as Ctrl-C does; the same study goes on."""
        with interruptible():
            return carry_out(trials, self.questions, self.journal, watch)

    def head(self, found: Mapping[str, Sequence[Found]]) -> dict[str, Any]:
        """What every study's summary begins with."""
        setting, slots = self.examiner.setting, set(self.slots)
        kept = ("checkpoint", "weights", "data", "data_sha256", "task", "method", "stage", "scoring")
        return {
            "kind": self.kind,
            **{key: getattr(setting, key) for key in kept},
            "thoughts": slots.pop() if len(slots) == 1 else None,
            "n": len(self.examples),
            "max_new_tokens": setting.max_new_tokens,
            **self.asked,
            "failed": failures(found),
            "floors": shortcut_floors(self.examples, setting.task),
            "seconds": sum(row["seconds"] for rows in found.values() for row in rows if row["success"]),
        }

    def write(self, summary: Mapping[str, Any]) -> Path:
        """KIND.json, which ends the study."""
        path = self.folder / f"{self.kind}.json"
        write_json(path, summary)
        return path


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Of a configuration: eight letters that another has not."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM is Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
