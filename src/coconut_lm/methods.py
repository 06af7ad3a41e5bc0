"""Curriculum, stages and the eight methods side by side: an example and a stage make a row or a prompt.

An epoch has a scheduled stage; a sample may depart from it. The stage says how much of the written reasoning
is gone and how many slots stand in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from coconut_lm.errors import UserError
from coconut_lm.schema import Icot
from coconut_lm.tokens import PAUSE, Encoded, EncodedSet, Ids, LatentTokens

ALL = 1 << 30  # more reasoning tokens than any example has
IGNORED = -100  # the label of what is not learned


@dataclass(frozen=True)
class Curriculum:
    """What the stages are, in the words of the configuration. Epochs are whole or parts, from 0."""

    c_thought: int = 1
    epochs_per_stage: int = 1
    max_latent_stage: int = 0
    pad_latent_to_max: bool = True
    uniform_prob: float = 0.0
    stage_mix: Literal["uniform", "proportional"] = "uniform"
    after_last_stage: Literal["remove_all", "hold"] = "remove_all"
    first_epoch: int = 0
    pause_tokens: int | None = None  # method `pause`; None: as many as the last stage has thoughts
    icot: Icot = field(default_factory=Icot)

    @classmethod
    def of(cls, config: Any) -> "Curriculum":
        """From any object with these attributes, such as a run's configuration."""
        return cls(**{item.name: getattr(config, item.name) for item in fields(cls)})

    @property
    def last_stage(self) -> int:
        """After the latent stages comes one where all steps are gone, unless the last latent one is held."""
        return self.max_latent_stage + (self.after_last_stage == "remove_all")

    def held(self, stage: int) -> int:
        """The stage that stands for it: with `hold`, none comes after the last latent one."""
        return min(stage, self.max_latent_stage) if self.after_last_stage == "hold" else stage


# -- the stage an epoch has --


def stage_zero(curriculum: Curriculum, epoch: float) -> int:
    return 0


def by_epoch(curriculum: Curriculum, epoch: float) -> int:
    return min((int(epoch) + curriculum.first_epoch) // curriculum.epochs_per_stage, curriculum.last_stage)


def last(curriculum: Curriculum, epoch: float) -> int:
    return curriculum.last_stage


def tokens_by_epoch(curriculum: Curriculum, epoch: float) -> int:
    """The stage of icot is the number of reasoning tokens removed."""
    icot = curriculum.icot
    removed = int(epoch * icot.remove_per_epoch + 1e-6)  # 0.29 epochs of 100 are 28.999..
    return ALL if removed >= icot.remove_all_after else removed


# -- the stage a sample draws --


def as_scheduled(curriculum: Curriculum, stage: int, n_steps: int, rng: Generator) -> int:
    return stage


def mixed(curriculum: Curriculum, stage: int, n_steps: int, rng: Generator) -> int:
    """Proportional: stage i of 0..stage with probability ~ i + 1. Uniform: sometimes any of 0..n_steps."""
    if curriculum.stage_mix == "proportional":
        weights = np.arange(1, stage + 2)
        return int(rng.choice(stage + 1, p=weights / weights.sum()))
    return int(rng.integers(n_steps + 1)) if rng.random() < curriculum.uniform_prob else stage


def a_few_more(curriculum: Curriculum, stage: int, n_steps: int, rng: Generator) -> int:
    return stage + int(rng.geometric(1 - np.exp(-curriculum.icot.smoothing))) - 1


# -- reasoning tokens cut from the left --


def no_reasoning(curriculum: Curriculum, example: Encoded, stage: int) -> int:
    return 0


def all_reasoning(curriculum: Curriculum, example: Encoded, stage: int) -> int:
    return ALL


def stage_steps(curriculum: Curriculum, example: Encoded, stage: int) -> int:
    stage = curriculum.held(stage)
    return ALL if stage > curriculum.max_latent_stage else sum(map(len, example.steps[:stage]))


def stage_tokens(curriculum: Curriculum, example: Encoded, stage: int) -> int:
    return stage


# -- slots between question and reasoning --


def no_slots(curriculum: Curriculum, n_steps: int, stage: int, prompt: bool) -> int:
    return 0


def stage_slots(curriculum: Curriculum, n_steps: int, stage: int, prompt: bool) -> int:
    """Without padding to the maximum, a short example has fewer; in training only once all steps are gone."""
    stage, most = curriculum.held(stage), curriculum.max_latent_stage
    enough = most if curriculum.pad_latent_to_max else min(n_steps, most)
    return curriculum.c_thought * (min(stage, enough) if prompt or stage > most else stage)


def fixed_slots(curriculum: Curriculum, n_steps: int, stage: int, prompt: bool) -> int:
    given = curriculum.pause_tokens
    return curriculum.c_thought * curriculum.max_latent_stage if given is None else given


@dataclass(frozen=True)
class Method:
    """An epoch's stage, a sample's stage, what is cut, how many slots, what fills them, and any markers."""

    schedule: Callable[[Curriculum, float], int]
    draw: Callable[[Curriculum, int, int, Generator], int]
    cut: Callable[[Curriculum, Encoded, int], int]
    slots: Callable[[Curriculum, int, int, bool], int] = no_slots
    filler: Literal["latent", "pause"] | None = None
    markers: bool = False


METHODS = {
    "cot": Method(stage_zero, as_scheduled, no_reasoning),
    "no_cot": Method(stage_zero, as_scheduled, all_reasoning),
    "no_thoughts": Method(by_epoch, mixed, stage_steps),
    "coconut": Method(by_epoch, mixed, stage_steps, stage_slots, "latent", markers=True),
    "no_curriculum": Method(last, as_scheduled, stage_steps, stage_slots, "latent", markers=True),
    "pause_as_thought": Method(by_epoch, mixed, stage_steps, stage_slots, "pause", markers=True),
    "pause": Method(stage_zero, as_scheduled, all_reasoning, fixed_slots, "pause"),
    "icot": Method(tokens_by_epoch, a_few_more, stage_tokens),
}


@dataclass(frozen=True)
class Row:
    """Ids to learn from or to continue; ids before `supervised_from` are not learned."""

    input_ids: Ids
    supervised_from: int
    thoughts: int  # slots that a thought fills
    first: int  # column of the first of them, or -1
    index: int  # which example

    @property
    def labels(self) -> NDArray[np.int64]:
        """The ids, with IGNORED where nothing is learned."""
        labels = self.input_ids.astype(np.int64)
        labels[: self.supervised_from] = IGNORED
        return labels


class Rows:
    """Rows and prompts of encoded examples under one method and one curriculum, made when asked for."""

    def __init__(
        self,
        examples: EncodedSet,
        tokens: LatentTokens,
        method: str,
        curriculum: Curriculum | None = None,
        *,
        seed: int = 0,
    ) -> None:
        if method not in METHODS:
            raise UserError("unknown method", given=method, expected=", ".join(METHODS))
        self.examples = examples
        self.tokens = tokens
        self.name = method
        self.method = METHODS[method]
        self.curriculum = curriculum or Curriculum()
        self.seed = seed
        if self.method.filler == "pause" and tokens.pause is None:
            raise UserError(
                f"method {method} needs the token {PAUSE}", do="add_latent_tokens(.., pause=True)"
            )

    def __len__(self) -> int:
        return len(self.examples)

    def stage(self, epoch: float) -> int:
        """The scheduled stage."""
        return self.method.schedule(self.curriculum, epoch)

    def train_row(self, index: int, epoch: float) -> Row:
        """A row at the stage this sample draws: the same whoever asks, in whatever order."""
        rng = np.random.default_rng((self.seed, int(epoch), index))
        n_steps = len(self.examples[index].steps)
        return self.row(index, self.method.draw(self.curriculum, self.stage(epoch), n_steps, rng))

    def row(self, index: int, stage: int) -> Row:
        """Question, slots, what reasoning is left, answer."""
        example = self.examples[index]
        cut = self.method.cut(self.curriculum, example, stage)
        slots = self.method.slots(self.curriculum, len(example.steps), stage, False)
        reasoning = np.concatenate([example.answer[:0], *example.steps])
        return self._row(index, example, slots, [reasoning[cut:], example.answer])

    def prompt(self, index: int, stage: int, thoughts: int | None = None) -> Row:
        """What the model continues; `thoughts` overrides the number of slots."""
        example = self.examples[index]
        slots = self.method.slots(self.curriculum, len(example.steps), stage, True)
        if thoughts is not None:
            slots = self._checked(thoughts)
        return self._row(index, example, slots, [])

    def _checked(self, thoughts: int) -> int:
        if thoughts < 0 or (thoughts and not self.method.filler):
            possible = "0 or more" if self.method.filler else 0
            raise UserError(f"impossible thoughts for method {self.name}", given=thoughts, expected=possible)
        return thoughts

    def _row(self, index: int, example: Encoded, slots: int, learned: list[Ids]) -> Row:
        tokens, method = self.tokens, self.method
        filler = [tokens.latent if method.filler == "latent" else tokens.pause] * slots
        middle = [tokens.start, *filler, tokens.end] if method.markers else filler
        head = np.concatenate([example.question, np.array(middle, np.int32)])
        thoughts = slots if method.filler == "latent" else 0
        first = len(example.question) + method.markers if thoughts else -1
        return Row(np.concatenate([head, *learned]), len(head), thoughts, first, index)
