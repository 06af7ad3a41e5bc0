"""The checklist of `coconut-lm check`: data, rows, vocabulary, passes, losses, gradients, answer, memory."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from coconut_lm import launch, monitors, parallel, picture, plan, preflight
from coconut_lm.answer import Answerer
from coconut_lm.assembly import Loaded, heart
from coconut_lm.collate import Batch, collate
from coconut_lm.config import Config
from coconut_lm.data.example import Example
from coconut_lm.data.survey import PLAIN, survey
from coconut_lm.dataview import example_view, legend, survey_tables
from coconut_lm.errors import UserError
from coconut_lm.feed import tensors
from coconut_lm.methods import Row
from coconut_lm.preflight import Finding
from coconut_lm.tokens import END, LATENT, PAUSE, START, seed_token
from coconut_lm.train import Data, Watch

DRAWN = 4  # rows of the picture
AT_ONCE = 8  # rows that gradients are looked at on
STAGES = 12  # stages shown at most; icot has one for each token
WRITTEN = 24  # tokens of a first answer


class Notes(Watch):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@dataclass(frozen=True)
class Checkup:
    """A run as far as it goes without training, and what can be said of it."""

    config: Config
    train: Sequence[Example]
    valid: Sequence[Example]
    loaded: Loaded
    data: Data
    notes: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def of(cls, config: Config) -> "Checkup":
        if config.only_eval:
            raise UserError(
                "this configuration trains nothing", given="only_eval: true", do="give one that trains"
            )
        train, valid = launch.examples(config)
        accelerator, notes = parallel.accelerator(config), Notes()
        loaded, data = launch.prepare(config, train, valid, accelerator, notes)
        loaded.model.to(accelerator.device)
        return cls(config, train, valid, loaded, data, notes.texts)

    def __iter__(self) -> Iterator[Finding]:
        """All findings; a model is asked for nothing where its rows do not fit it."""
        yield from (self.statistics(), self.rows())
        fitting = [self.lengths(), self.vocabulary()]
        yield from fitting
        if not all(each.ok for each in fitting):
            return
        yield from (self.new_rows(), self.passes(), self.loss(), self.thoughts(), self.gradient_to_thoughts())
        yield from (self.gradient_to_weights(), self.answer(), self.memory())

    # -- data --

    def statistics(self) -> Finding:
        found = {"train": survey(self.train), "valid": survey(self.valid)}
        tasks = {each["task"] for each in found.values()} | {self.config.task or PLAIN}
        tasks -= {PLAIN}
        unanswered = sum(each["oddities"]["empty_answers"] for each in found.values())
        asked = {example.question for example in self.train}
        both = sum(example.question in asked for example in self.valid)
        counts = f"{len(self.train):,} to train on, {len(self.valid):,} to validate"
        told = [f"{counts}, task {self.data.task.name}"]
        told += [f"{unanswered} without an answer"] if unanswered else []
        told += [f"{both} questions in both"] if both else []
        told += [f"of several tasks: {', '.join(sorted(tasks))}"] if len(tasks) > 1 else []
        ok = not unanswered and len(tasks) < 2 and both < len(self.valid)
        shown = tuple(survey_tables(str(self.config.train_path), found["train"]))
        return Finding("data", ok, "; ".join(told), {**found, "in_both": both}, shown)

    @cached_property
    def stages(self) -> list[int]:
        """Those that the plan goes through."""
        rows, config = self.data.train, self.config
        most = int(rows.examples.lengths().max())  # icot's last stage is all tokens that there could be
        planned = {min(rows.stage(epoch), most) for epoch in range(config.resume, config.num_epochs)}
        return sorted(planned)[:STAGES]

    def rows(self) -> Finding:
        """One example at every stage."""
        rows = self.data.valid
        made = {stage: rows.row(0, stage) for stage in self.stages}
        view = example_view(self.data.examples[0], rows, self.loaded.tokenizer, 0, self.stages)
        told = [f"stage {s}: {len(row.input_ids)} tokens, {counted(row.thoughts)}" for s, row in made.items()]
        values = {s: {"tokens": len(row.input_ids), "thoughts": row.thoughts} for s, row in made.items()}
        return Finding("rows", True, "; ".join(told), {"stages": values}, (legend(), view))

    def lengths(self) -> Finding:
        found = preflight.rows_fit(self.loaded, self.data.train)
        return replace(found, detail="; ".join([found.detail, *self.notes]))

    # -- vocabulary --

    def vocabulary(self) -> Finding:
        found = preflight.ids_known(self.loaded, self.data.train)
        new = self._new_ids()
        told = ", ".join(f"{token} {number}" for token, number in new.items())
        size = len(self.loaded.tokenizer)
        detail = f"{size - len(new):,} tokens and {told}; {found.detail}" if new else found.detail
        return replace(found, name="vocabulary", detail=detail, values={**found.values, "new": new})

    def _new_ids(self) -> dict[str, int]:
        """Those of the model's latent tokens; none where it does not think."""
        config = heart(self.loaded.model).config
        ids = (config.start_token_id, config.end_token_id, config.latent_token_id, config.pause_token_id)
        found = dict(zip((START, END, LATENT, PAUSE), ids, strict=True))
        return {token: number for token, number in found.items() if number is not None}

    @torch.no_grad()
    def new_rows(self) -> Finding:
        """What they start from, how long they are, and whether they are trained."""
        new, trained = self._new_ids(), preflight.markers_train(self.loaded)
        if not new:
            return replace(trained, name="new rows")
        table, asked = heart(self.loaded.model).get_input_embeddings(), seed_token(self.loaded.tokenizer)
        ids = torch.tensor([*new.values(), asked], device=heart(self.loaded.model).device)
        *rows, seed = table(ids).float()
        norms = {token: row.norm().item() for token, row in zip(new, rows, strict=True)}
        same = all(torch.equal(row, seed) for row in rows)
        fresh = self.config.new_token_init == "<<" and self.config.load_model_path is None
        sane = all(math.isfinite(norm) and norm > 0 for norm in norms.values())
        told = ", ".join(f"{norm:.3g}" for norm in norms.values())
        detail = f"lengths {told}; {'equal to' if same else 'other than'} the row of << ({seed.norm():.3g})"
        return Finding(
            "new rows",
            trained.ok and sane and (same or not fresh),
            f"{detail}; {trained.detail}",
            {"norms": norms, "seed_norm": seed.norm().item(), "equal_to_seed": same},
        )

    # -- passes --

    @cached_property
    def chosen(self) -> list[Row]:
        return preflight.sample(self.data.train, min(AT_ONCE, self.config.batch_size_training))

    def batch(self, rows: Sequence[Row]) -> Batch:
        return collate(rows, self.loaded.tokens)

    @cached_property
    def reached(self) -> preflight.Reach:
        return preflight.reach(self.loaded.model, self.batch(self.chosen))

    def passes(self) -> Finding:
        """Over the first rows at the last stage."""
        rows = self.data.train
        batch = self.batch([rows.row(index, self.stages[-1]) for index in range(min(len(rows), DRAWN))])
        drawn, count = picture.passes(batch, self.loaded.tokens), len(batch.columns) + 1
        detail = f"{count} over {len(batch.index)} rows of {batch.input_ids.shape[1]} columns"
        return Finding("passes", True, detail, {"passes": count, "picture": drawn}, ("\n".join(drawn),))

    def loss(self) -> Finding:
        """Of the same examples with their thoughts, without them, and at the first stage."""
        rows, indices = self.data.train, [row.index for row in self.chosen]
        first = rows.stage(self.config.resume)
        values = {f"stage {first}, where training starts": self._loss([rows.row(i, first) for i in indices])}
        if any(row.thoughts for row in self.chosen):
            values[counted(self.chosen[0].thoughts)] = self.reached.loss
            values["the same rows without thoughts"] = self._loss([_unthinking(row) for row in self.chosen])
        guess = math.log(heart(self.loaded.model).config.vocab_size)
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        ok = all(map(math.isfinite, [*values.values(), self.reached.loss]))
        return Finding("loss", ok, f"{told} (guessing: {guess:.3g})", {**values, "guessing": guess})

    def _loss(self, rows: Sequence[Row]) -> float:
        batch = self.batch(rows)
        return preflight.reach(self.loaded.model, batch).loss

    def thoughts(self) -> Finding:
        """What the monitors of training say of them now."""
        batch, model = self.batch(self.chosen), self.loaded.model
        inputs: dict[str, Any] = {**tensors(batch, heart(model).device), "columns": batch.columns}
        values = monitors.monitor(model, inputs)
        if not values:
            return Finding("thoughts", True, "nothing is thought")
        told = [
            f"{values['norm_ratio']:.3g} times as long as embeddings, of rank {values['effective_rank']:.3g}"
        ]
        return Finding("thoughts", True, "; ".join([*told, *monitors.warnings(values)]), values)

    # -- gradients --

    def gradient_to_thoughts(self) -> Finding:
        return preflight.thoughts_reached(self.reached)

    def gradient_to_weights(self) -> Finding:
        """The weights without a gradient are named, also those that are no fault: the first matrices of new
        adapters wait for the second ones, which start at zero."""
        found, weights = preflight.weights_reached(self.reached), self.reached.weights
        none = [name for name, norm in weights.items() if norm is None]
        zero = [name for name, norm in weights.items() if norm == 0 and "lora_A" not in name]
        more = [
            f"{what} {', '.join(names[: preflight.NAMED])} ({len(names)} in all)"
            for what, names in (("none to", none), ("zero at", zero))
            if names
        ]
        values = {**found.values, "none": none, "zero": zero}
        return replace(found, detail="; ".join([found.detail, *more]), values=values)

    # -- what comes out, what it takes --

    def answer(self) -> Finding:
        """An answer to the first question: nonsense from a new model, but made of words."""
        rows, tokens = self.data.valid, self.loaded.tokens
        try:
            answerer = Answerer(self.loaded.model, tokens, WRITTEN)
            (reply,) = answerer([rows.prompt(0, rows.stage(self.config.num_epochs - 1))])
        except UserError as error:
            return Finding("answer", False, str(error).splitlines()[0])
        text = self.loaded.tokenizer.decode(reply.ids)
        ok = tokens.latent not in reply.ids and all(map(math.isfinite, reply.thought_norms))
        ended = "ended" if reply.ended else f"cut at {WRITTEN} tokens"
        return Finding("answer", ok, f"{text!r} ({ended})", {"text": text, "ended": reply.ended})

    def memory(self) -> Finding:
        try:
            found = plan.plan(self.config)
        except UserError as error:
            return Finding("memory", True, f"not planned: {str(error).splitlines()[0]}")
        needed, there = found.worst().total, memory_of(heart(self.loaded.model).device)
        values = {"needed": needed, "there": there}
        detail = f"about {needed / plan.GIB:.2f} GiB of {there / plan.GIB:.1f} GiB on one device"
        if needed <= there:
            return Finding("memory", True, detail, values)
        helps = [" ".join(each.keys) for each in plan.remedies(found) if each.bytes <= there]
        what = f"; {helps[0]} would do" if helps else "; see coconut-lm plan"
        return Finding("memory", False, detail + what, values)


def counted(thoughts: int) -> str:
    return "1 thought" if thoughts == 1 else f"{thoughts} thoughts"


def _unthinking(row: Row) -> Row:
    """The row without its thoughts; the markers stay."""
    ids = row.input_ids
    left = np.concatenate([ids[: row.first], ids[row.first + row.thoughts :]]) if row.thoughts else ids
    shift = row.supervised_from - row.thoughts
    return replace(row, input_ids=left, supervised_from=shift, thoughts=0, first=-1)


def memory_of(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
