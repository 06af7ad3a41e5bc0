"""What an epoch is measured by: the loss on the validation rows, and the answers to their questions.

The same figures for any number of ranks: each row and each question counts once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from coconut_lm import monitors, parallel
from coconut_lm.answer import Answerer
from coconut_lm.assembly import Loaded, heart
from coconut_lm.collate import shard
from coconut_lm.config import Config
from coconut_lm.data.example import Example, Task
from coconut_lm.evaluate import Prediction, budget, predict, summarise
from coconut_lm.feed import Place, fixed, share, tensors
from coconut_lm.methods import Rows
from coconut_lm.runfolder import EVALUATION, PREDICTIONS, write_json, write_lines

MONITORED = 32  # rows whose thoughts are looked at


@dataclass(frozen=True)
class Validator:
    config: Config
    loaded: Loaded
    model: nn.Module  # as it is trained: a copy or a part on every rank
    rows: Rows
    examples: Sequence[Example]
    task: Task
    accelerator: Accelerator
    sharded: bool
    answered: Callable[[Prediction, int], None]
    asked_to_stop: Callable[[], bool] = lambda: False

    @property
    def place(self) -> Place:
        return Place(self.accelerator.process_index, self.accelerator.num_processes)

    def __call__(self, stage: int, out: Path) -> tuple[dict[str, Any], list[Prediction]] | None:
        """The figures of an epoch, and the answers in the order of the data, which are kept in `out`; None
        if a rank was asked to stop."""
        begun = time.perf_counter()
        loss, predictions = self.loss(stage), self.answers(stage)
        if any(parallel.everywhere(self.accelerator, [float(self.asked_to_stop())])):
            return None
        found = summarise(predictions, self.examples, self.task.name)
        if self.accelerator.is_main_process:
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

    @torch.no_grad()
    def loss(self, stage: int) -> float:
        """The mean over tokens, or the reference's mean over batches."""
        self.model.eval()
        total, weights = 0.0, 0.0
        for part in fixed(self.rows, stage, self.config.eval_batch_size, self.place):
            (batch,) = part.batches
            given = tensors(batch, self.accelerator.device)
            loss = self.model(**given, columns=batch.columns, num_items_in_batch=part.supervised).loss
            (value,) = parallel.everywhere(self.accelerator, [loss.item()])
            weight = part.supervised if self.config.loss_norm == "tokens" else 1
            total, weights = total + value * weight, weights + weight
        return total / weights

    def answers(self, stage: int) -> list[Prediction]:
        """What the model writes to every question, each asked of one rank."""
        total, place = len(self.examples), self.place
        most = self.config.max_new_tokens or budget(self.rows, self.task, stage, self.config.val_path or "")
        thoughts = max(self.rows.prompt(index, stage).thoughts for index in range(total))
        answerer = Answerer(
            heart(self.loaded.model),
            self.rows.tokens,
            most,
            synced=self.sharded,
            min_columns=thoughts if self.sharded else 0,
        )
        found = []
        with self.accelerator.autocast():
            for each in predict(
                answerer,
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
                if self.asked_to_stop() and not self.sharded:
                    break
        everyone: list[Prediction] = gather_object(found) if place.world > 1 else found
        return sorted({each.index: each for each in everyone}.values(), key=lambda each: each.index)

    def _asked_here(self, total: int) -> list[int]:
        """A rank's questions. In shards all ranks must make as many batches: some ask a question that another
        has, which counts once."""
        own: list[int] = shard(np.arange(total), self.place.rank, self.place.world).tolist()
        lacking = self.sharded and len(own) < -(-total // self.place.world)
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
            inputs = tensors(batch, self.accelerator.device)
            found["monitors"] = monitors.monitor(self.model, {**inputs, "columns": batch.columns})
        if window := monitors.window_weights(heart(self.loaded.model)):
            found["window"] = window
        return found
