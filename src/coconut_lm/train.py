"""The trainer: epochs of optimizer steps, each epoch validated and saved. It does not know the method, nor
what computes.

A step's loss is the mean over the tokens that its whole global batch learns from, however that batch is cut
over ranks and micro-batches.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from coconut_lm import card, export, monitors, resume
from coconut_lm.assembly import Loaded, heart
from coconut_lm.collate import Order
from coconut_lm.config import Config, dump
from coconut_lm.data.example import Example, Task
from coconut_lm.engine import Engine
from coconut_lm.engine import place as place_of
from coconut_lm.evaluate import Prediction
from coconut_lm.faults import diverged
from coconut_lm.feed import Share, steps
from coconut_lm.methods import Rows
from coconut_lm.runfolder import RUN, Progress, RunFolder
from coconut_lm.track import Tracker
from coconut_lm.validation import Validator


@dataclass(frozen=True)
class Data:
    """What is learned from, and what is asked at the end of an epoch."""

    train: Rows
    valid: Rows
    examples: Sequence[Example]
    task: Task
    fingerprint: str = ""
    """Of the training examples."""
    asked: str = ""
    """Fingerprint of the validation examples."""


class Watch:
    """Someone who looks on. This one does not."""

    def note(self, text: str) -> None: ...

    def begins(self, text: str) -> None: ...

    def epoch(self, epoch: int, stage: int, steps: int, done: int) -> None: ...

    def step(self, record: dict[str, Any]) -> None: ...

    def answered(self, prediction: Prediction, total: int) -> None: ...

    def validated(self, record: dict[str, Any], predictions: Sequence[Prediction]) -> None: ...


class Trainer:
    def __init__(
        self,
        config: Config,
        loaded: Loaded,
        data: Data,
        folder: RunFolder,
        engine: Engine,
        tracker: Tracker,
        *,
        watch: Watch | None = None,
    ) -> None:
        self.config, self.loaded, self.data, self.folder = config, loaded, data, folder
        self.engine, self.tracker, self.watch = engine, tracker, watch or Watch()
        self.place = place_of(engine.accelerator, config.gradient_accumulation_steps)
        self.order = self.order_of(config, data.train, self.place.world)
        self.validator = self._validator()
        self.record: dict[str, Any] | None = None  # of the last epoch
        self.warned: set[str] = set()
        engine.renew()
        self.progress = Progress(
            epoch=config.resume,
            global_batch=self.order.batch_size,
            data=data.fingerprint,
            asked=data.asked,
        )
        self.stop, self.stopping = resume.Stop(), False  # what was heard here, what the ranks agreed on

    @property
    def first(self) -> bool:
        """The rank that writes."""
        return self.engine.accelerator.is_main_process

    @staticmethod
    def order_of(config: Config, rows: Rows, ranks: int) -> Order:
        """The global batches of every epoch."""
        lengths = rows.examples.lengths() if config.group_by_length else None
        size = config.batch_size_training * config.gradient_accumulation_steps * ranks
        return Order(len(rows), size, config.seed, lengths, shuffle=config.shuffle)

    def _validator(self) -> Validator:
        return Validator(
            config=self.config,
            loaded=self.loaded,
            engine=self.engine,
            rows=self.data.valid,
            examples=self.data.examples,
            task=self.data.task,
            answered=self.watch.answered,
            asked_to_stop=lambda: self.stop.asked,
        )

    # -- the loop --

    def fit(self) -> bool:
        """Trains to the end of the plan; False if it was asked to stop before."""
        self._go_on()
        self.watch.begins(self._account())
        if not self.finished:
            self.tracker.start()
        with self.stop:
            while not self.finished:
                self._train_epoch(self.progress.epoch)
                if self.stopping or not self._close_epoch(self.progress.epoch):
                    self._save(self.folder.step(self.progress.step))
                    return False
        return True

    def _account(self) -> str:
        """What is trained on what, and from where on."""
        everything, learned = self.engine.sizes()
        some = "" if learned == everything else f", {learned:,} of them learned"
        ranks = f" x {self.place.world}" if self.place.world > 1 else ""
        begun = f"; goes on from step {self.progress.step}" if self.progress.step else ""
        return (
            f"{self.config.method}: {everything:,} weights{some} on {self.engine.where}{ranks}, "
            f"{len(self.data.train):,} examples, {self.order.batch_size} a step, "
            f"{self.order.steps:,} steps an epoch{begun}"
        )

    @property
    def finished(self) -> bool:
        at_the_end = self.progress.validated and self.progress.step >= self.last_step
        return self.progress.epoch >= self.config.num_epochs or at_the_end

    @property
    def last_step(self) -> int:
        """Optimizer steps of the whole plan."""
        planned = self.order.steps * (self.config.num_epochs - self.config.resume)
        return min(planned, self.config.max_steps or planned)

    def _train_epoch(self, epoch: int) -> None:
        stage, done = self.data.train.stage(epoch), self.progress.batches
        if done == 0 and self._starts_anew(stage):
            self.engine.renew()
        self.progress = replace(self.progress, stage=stage)
        self.watch.epoch(epoch, stage, self.order.steps, done)
        shares = steps(self.data.train, self.order, epoch, self.place, done, self.config.num_workers)
        self.engine.begin()
        for part in self._until_asked(shares):
            begun = time.perf_counter()
            record = self._step(part) | {"epoch": epoch, "stage": stage, "tokens": part.tokens}
            seconds = time.perf_counter() - begun
            record |= {"seconds": seconds, "tokens_per_second": part.tokens / seconds}
            self.progress = replace(
                self.progress,
                batches=self.progress.batches + 1,
                step=self.progress.step + 1,
                validated=False,
            )
            self.tracker.log("step", step=self.progress.step, **record)
            self.watch.step(record)

    def _until_asked(self, shares: Iterator[Share]) -> Iterator[Share]:
        """The steps until the plan's last or a wish to stop, with a save where one is due."""
        if self.progress.step >= self.last_step:
            return
        for part in shares:
            yield part
            every = self.config.save_steps
            if self.stopping or self.progress.step >= self.last_step:
                return
            if every and self.progress.step % every == 0 and self.progress.batches < self.order.steps:
                self._save(self.folder.step(self.progress.step))

    def _step(self, part: Share) -> dict[str, Any]:
        """One optimizer step over a rank's share of the global batch."""
        rate = self._rate()
        found = self.engine.gradient(part, self.stop.asked)
        self.stopping = found.stop
        self._refuse_odd("loss is", found.loss, part)
        self._refuse_odd("gradient's norm is", found.norm, part)
        self.engine.learn(rate)
        return {"loss": found.loss, "lr": rate, "grad_norm": found.norm, "memory": self.engine.memory()}

    def _refuse_odd(self, what: str, value: float, part: Share) -> None:
        if not math.isfinite(value):
            raise diverged(f"{what} {value}", part, self.progress.step + 1, self.folder.path, self.place.rank)

    def _starts_anew(self, stage: int) -> bool:
        when = self.config.reset_optimizer
        return when == "epoch" or (when == "stage" and stage != self.progress.stage)

    def _rate(self) -> float:
        """The learning rate of the next step: a function of the step alone."""
        step, warm, shape = self.progress.step, self.config.warmup_steps, self.config.lr_scheduler
        if step < warm:
            return self.config.lr * (step + 1) / warm
        done = (step - warm) / max(1, self.last_step - warm)
        left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return self.config.lr * left[shape]

    # -- what an epoch ends with --

    def _close_epoch(self, epoch: int) -> bool:
        """Validates, keeps the record, saves; False if it was asked to stop meanwhile.

        An epoch that max_steps cut short is not counted."""
        stage = self.data.valid.stage(epoch) if self.config.eval_stage is None else self.config.eval_stage
        found = self.validator(stage, self.folder.evaluation(f"epoch_{epoch + 1}"))
        if found is None:
            return False
        record, predictions = found
        record |= {"epoch": epoch, "stage": stage, "train_loss": self._train_loss(epoch)}
        self.record = record
        best = self.progress.best is None or record["val_accuracy"] > self.progress.best
        whole = self.progress.batches == self.order.steps
        self.progress = replace(
            self.progress,
            epoch=epoch + whole,
            batches=0 if whole else self.progress.batches,
            best=record["val_accuracy"] if best else self.progress.best,
            validated=True,
        )
        self.tracker.log("epoch", step=self.progress.step, **record)
        self.watch.validated(record, predictions)
        self._warn(record.get("monitors", {}))
        kept = whole and (best or not self.config.save_only_improve)
        self._save(self.folder.checkpoint(epoch + 1) if kept else self.folder.step(self.progress.step))
        return True

    def _warn(self, figures: dict[str, Any]) -> None:
        """Of what looks like collapse, once for each piece of advice, which stands behind the figures."""
        for text in monitors.warnings(figures):
            advice = text.rpartition(":")[2]
            if advice not in self.warned:
                self.watch.note(text)
            self.warned.add(advice)

    def _train_loss(self, epoch: int) -> float | None:
        """Of all steps of the epoch, those before an interruption too."""
        losses = [line["loss"] for line in self.folder.logged("step") if line["epoch"] == epoch]
        return fmean(losses) if losses else None

    # -- saving and going on --

    def _save(self, place: Path) -> None:
        if self.config.debug:
            return
        whole = self.engine.weights()
        for name in heart(self.loaded.model).tied_weights:  # once is enough
            whole.pop(name, None)
        with resume.whole(place, self.engine.accelerator) as folder:
            if self.first:
                if self.config.save_mlx_file and place == self.folder.checkpoint(self.progress.epoch):
                    file = self.folder.mlx_file(place)
                    export.to_mlx_file(heart(self.loaded.model), file, whole, force=True)
                self._save_model(folder, whole)
                self.loaded.tokenizer.save_pretrained(folder)
                dump(self.config, folder / RUN)
                self.progress.write(folder)
                card.write(folder, self.config, self.progress, self.record)
            self.engine.save_state(folder)
        if self.first:
            resume.tidy(self.folder, place, self.config.keep_last)

    def _save_model(self, folder: Path, whole: dict[str, Any]) -> None:
        if self.loaded.model is not heart(self.loaded.model):  # peft's names say what is around the model
            whole = {f"base_model.model.{name}": weight for name, weight in whole.items()}
        self.loaded.model.save_pretrained(folder, state_dict=whole)

    def _go_on(self) -> None:
        """Takes up where the newest checkpoint stands, or begins."""
        if self.first:
            resume.recover(self.folder)
        self.engine.accelerator.wait_for_everyone()
        place = self.folder.newest()
        if place is None:
            resume.refuse_stateless(self.folder)
            return self.tracker.rewind(0, 0)
        found = Progress.read(place)
        resume.refuse_other(place, found, self.progress)
        self.engine.load_state(place)
        self.progress = found
        if self.first:
            resume.tidy(self.folder, place, self.config.keep_last)
        if not self.finished:
            self.tracker.rewind(found.step, found.epoch)
        self.record = next(reversed(self.folder.logged("epoch")), None)
