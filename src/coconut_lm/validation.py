"""What an epoch is measured by: the loss on the validation rows, and the answers to their questions.

The same figures for any number of ranks: each row and each question counts once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from coconut_lm import parallel
from coconut_lm.answer import Answerer
from coconut_lm.assembly import Loaded
from coconut_lm.collate import shard
from coconut_lm.config import Config
from coconut_lm.data.example import Example, Task
from coconut_lm.engine import Engine
from coconut_lm.engine import place as place_of
from coconut_lm.evaluate import Prediction, budget, predict, summarise
from coconut_lm.feed import Place, fixed, share
from coconut_lm.methods import Rows
from coconut_lm.runfolder import EVALUATION, PREDICTIONS, write_json, write_lines

MONITORED = 32  # rows whose thoughts are looked at


@dataclass(frozen=True)
class Validator:
    config: Config
    loaded: Loaded
    engine: Engine
    rows: Rows
    examples: Sequence[Example]
    task: Task
    answered: Callable[[Prediction, int], None]
    asked_to_stop: Callable[[], bool] = lambda: False

    @property
    def place(self) -> Place:
        return place_of(self.engine.accelerator)

    def __call__(self, stage: int, out: Path) -> tuple[dict[str, Any], list[Prediction]] | None:
        """The figures of an epoch, and the answers in the order of the data, which are kept in `out`; None
        if a rank was asked to stop."""
        begun = time.perf_counter()
        loss, predictions = self.loss(stage), self.answers(stage)
        if any(parallel.everywhere(self.engine.accelerator, [float(self.asked_to_stop())])):
            return None
        found = summarise(predictions, self.examples, self.task.name)
        if self.engine.accelerator.is_main_process:
            self._keep(out, stage, found, predictions)
        accuracy, chains = found["accuracy"], found["cot_match"]
        record = {
            "val_loss": loss,
            "val_accuracy": accuracy["rate"],
            "val_right": accuracy["right"],
            "val_n": accuracy["n"],
            "val_low": accuracy["low"],
            "val_high": accuracy["high"],
            "val_cot_match": chains["rate"] if chains else None,
            "val_tokens": found["tokens"]["mean"],
            **self.monitored(stage),
        }
        return record | {"seconds": time.perf_counter() - begun}, predictions

    def loss(self, stage: int) -> float:
        """The mean over tokens, or the reference's mean over batches."""
        total, weights = 0.0, 0.0
        for part in fixed(self.rows, stage, self.config.eval_batch_size, self.place):
            (batch,) = part.batches
            value = self.engine.loss(batch, part.supervised)
            weight = part.supervised if self.config.loss_norm == "tokens" else 1
            total, weights = total + value * weight, weights + weight
        return total / weights

    def answers(self, stage: int) -> list[Prediction]:
        """What the model writes to every question, each asked of one rank."""
        total, place, sharded = len(self.examples), self.place, self.engine.sharded
        most = self.config.max_new_tokens or budget(self.rows, self.task, stage, self.config.val_path or "")
        thoughts = max(self.rows.prompt(index, stage).thoughts for index in range(total))
        found = []
        with self.engine.answering() as model:
            for each in predict(
                Answerer(
                    model, self.rows.tokens, most, synced=sharded, min_columns=thoughts if sharded else 0
                ),
                self.rows,
                self.examples,
                tokenizer=self.loaded.tokenizer,
                task=self.task,
                stage=stage,
                batch_size=self.config.eval_batch_size,
                indices=self._asked_here(total),
            ):
                found.append(each)
                self.answered(each, total)
                if self.asked_to_stop() and not sharded:
                    break
        everyone: list[Prediction] = gather_object(found) if place.world > 1 else found
        return sorted({each.index: each for each in everyone}.values(), key=lambda each: each.index)

    def _asked_here(self, total: int) -> list[int]:
        """A rank's questions. In shards all ranks must make as many batches: some ask a question that another
        has, which counts once."""
        own: list[int] = shard(np.arange(total), self.place.rank, self.place.world).tolist()
        lacking = self.engine.sharded and len(own) < -(-total // self.place.world)
        return [*own, 0] if lacking else own

    def _keep(self, out: Path, stage: int, found: dict[str, Any], predictions: Sequence[Prediction]) -> None:
        config = self.config
        said: dict[str, Any] = {
            "checkpoint": out.name.replace("epoch", "checkpoint"),
            "data": config.val_path,
        }
        said |= {"task": self.task.name, "method": config.method, "stage": stage, "scoring": config.scoring}
        write_lines(out / PREDICTIONS, [each.to_json() for each in predictions])
        write_json(out / EVALUATION, said | found)

    def monitored(self, stage: int) -> dict[str, Any]:
        """How the thoughts fare on rows that are the same every time."""
        first = [self.rows.row(index, stage) for index in range(min(MONITORED, len(self.rows)))]
        found: dict[str, Any] = {}
        if any(row.thoughts for row in first):
            (batch,) = share(first, self.rows.tokens, replace(self.place, rank=0, world=1)).batches
            found["monitors"] = self.engine.monitors(batch)
        if window := self.engine.window():
            found["window"] = window
        return found
