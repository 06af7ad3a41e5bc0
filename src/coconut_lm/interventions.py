"""Prompts read otherwise than the model reads them: with noise, with other thoughts, in branches.

Each of these is a `Read` of the Answerer's. Nothing is changed in the model for longer than a reading.

Shapes: B rows, K thoughts, W columns of a window, D width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coconut_lm.answer import Pick, Read, Reading, greedily, read
from coconut_lm.collate import Batch
from coconut_lm.feedback import Feedback, Noisy
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.onepass import LAST
from coconut_lm.outputs import CoconutOutput, Thoughts, Trail
from coconut_lm.votes import spread

Wrap = Callable[[Batch, Feedback], Feedback]


@contextmanager
def feeding(model: CoconutForCausalLM, feedback: Feedback) -> Iterator[None]:
    """Within the block, thoughts are what this feedback makes of hidden states."""
    own = model.feedback
    model.feedback = feedback.train(model.training)
    try:
        yield
    finally:
        model.feedback = own


def fed_by(wrap: Wrap, **how: Any) -> Read:
    """Reads with another feedback, which `wrap` makes for a batch, around the model's own or in its place."""

    def read_so(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        with feeding(model, wrap(batch, model.feedback)):
            return read(model, batch, columns, **how)

    return read_so


def thoughts_of(model: CoconutForCausalLM, batch: Batch) -> list[int]:
    """How many thoughts each prompt has."""
    if not model.config.thinks:
        return [0] * len(batch.index)
    counts: list[int] = (batch.input_ids == model.config.latent_token_id).sum(1).tolist()
    return counts


# -- noise --


def noisy(kind: str, scale: float, *, layer: int = LAST, branches: int = 1, **settings: Any) -> Read:
    """Reads with noise on thoughts: `settings` are those of `Noisy`. What it did is in the notes.

    With several branches each draws noise of its own; what comes before the first noise is read once.
    """

    def read_so(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        keys, steps = batch.index.tolist(), thoughts_of(model, batch)
        perturbing = Noisy(model.feedback, kind, scale, keys=keys, steps=steps, **settings)
        with feeding(model, perturbing):
            if branches == 1:
                output = read(model, batch, columns, thought_layer=layer).output
                return Reading(output, _notes(perturbing, output))
            first = _first(perturbing)
            at = _column_of(model, batch, first)
            output = fan_out(model, batch, columns, branches, at, thought_layer=layer)
        return Reading(output, _notes(perturbing, output, spreads(output, branches, first)))

    return read_so


def _first(perturbing: Noisy) -> int:
    """The number of the first thought with noise."""
    return perturbing.start if perturbing.where == "all" else int(perturbing.where)


def _column_of(model: CoconutForCausalLM, batch: Batch, thought: int) -> int:
    """Where the first of these prompts has its thought of this number; behind all of them if none has."""
    latent_BT = (batch.input_ids == model.config.latent_token_id) & (batch.attention_mask == 1)
    is_it_BT = latent_BT & (latent_BT.cumsum(1) == thought + 1)
    return int(is_it_BT.any(0).argmax()) if is_it_BT.any() else batch.input_ids.shape[1]


def _notes(
    perturbing: Noisy, output: CoconutOutput, apart: Sequence[Mapping[str, Any]] | None = None
) -> list[Mapping[str, Any]] | None:
    """The figures of the noise."""
    if output.thoughts is None:
        return None
    figures = perturbing.diagnostics(output.thoughts.is_thought_BK)
    told = apart or [{}] * len(figures)
    return [{"diagnostics": each, **more} for each, more in zip(figures, told, strict=True)]


# -- branches --


def fan_out(
    model: CoconutForCausalLM,
    batch: Batch,
    columns: Sequence[int],
    branches: int,
    at: int | None = None,
    **how: Any,
) -> CoconutOutput:
    """Reads the columns before `at` once, and what follows in so many branches of each row, side by side.

    Without `at` the whole prompt is read once: the branches differ in what is written.
    """
    width = batch.input_ids.shape[1]
    at = width if at is None else at
    ids, mask = (torch.from_numpy(a).to(model.device) for a in (batch.input_ids, batch.attention_mask))
    asked: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1, "return_thoughts": True, **how}
    before = model(
        ids[:, :at],
        attention_mask=mask[:, :at],
        mask_on_host=batch.attention_mask[:, :at],
        columns=[column for column in columns if column < at],
        **asked,
    )
    _multiply(before, branches)
    if at == width:
        return before
    after = model(
        ids[:, at:].repeat_interleave(branches, 0),
        attention_mask=mask.repeat_interleave(branches, 0),
        mask_on_host=np.repeat(batch.attention_mask, branches, 0),
        past_key_values=before.past_key_values,
        trail=before.trail,
        columns=[column - at for column in columns if column >= at],
        **asked,
    )
    after.thoughts = _joined(before.thoughts, after.thoughts, columns)
    return after


def _multiply(output: CoconutOutput, branches: int) -> None:
    """So many rows of each, side by side."""
    output.past_key_values.batch_repeat_interleave(branches)
    output.logits = output.logits.repeat_interleave(branches, 0)
    trail, trace = output.trail, output.thoughts
    assert trail is not None
    output.trail = Trail(*(each.repeat_interleave(branches, 0) for each in vars(trail).values()))
    if trace is not None:
        fed, real = (each.repeat_interleave(branches, 0) for each in (trace.fed_BKD, trace.is_thought_BK))
        output.thoughts = Thoughts(trace.columns, fed, real)


def _joined(before: Thoughts | None, after: Thoughts | None, columns: Sequence[int]) -> Thoughts | None:
    parts = [each for each in (before, after) if each is not None]
    fed, real = ([getattr(each, name) for each in parts] for name in ("fed_BKD", "is_thought_BK"))
    return Thoughts(list(columns), torch.cat(fed, 1), torch.cat(real, 1)) if parts else None


def branched(branches: int, layer: int = LAST) -> Read:
    """Reads prompts once, for so many texts behind each."""

    def read_so(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        output = fan_out(model, batch, columns, branches, thought_layer=layer)
        return Reading(output, spreads(output, branches, 0))

    return read_so


def spreads(output: CoconutOutput, branches: int, first: int) -> list[Mapping[str, Any]] | None:
    """How far apart the branches of each prompt think, from thought number `first` on; for each row."""
    if output.thoughts is None:
        return None
    real_BK = output.thoughts.is_thought_BK
    after_BK = (real_BK & (real_BK.cumsum(1) > first)).cpu().numpy()
    fed_BKD = output.thoughts.fed_BKD.cpu().double().numpy()
    told: list[Mapping[str, Any]] = []
    for row in range(0, len(fed_BKD), branches):
        apart = spread(fed_BKD[row : row + branches, after_BK[row]])
        told += [{"spread": asdict(apart) if apart else None}] * branches
    return told


# -- sampling --


def sampled(temperature: float, top_p: float = 1.0, seed: int = 0) -> Callable[[Batch, int, int], Pick]:
    """Picks tokens by chance, which hangs on the seed, the example, the branch and the place alone: neither
    the batch nor any noise changes it. Temperature 0 is greedy.

    Of the tokens sorted by probability those stay that have no more than `top_p` before them.
    """
    if temperature == 0:
        return greedily

    def picks(batch: Batch, branches: int, room: int) -> Pick:
        keys = [(seed, example, branch) for example in batch.index.tolist() for branch in range(branches)]
        chance_BT = torch.from_numpy(np.stack([np.random.default_rng(key).random(room) for key in keys]))

        def pick(logits_BV: Tensor, rows_B: Tensor, column: int) -> Tensor:
            chance_B = chance_BT[rows_B.cpu(), column].to(logits_BV.device, torch.float32)
            return nucleus(logits_BV, chance_B, temperature, top_p)

        return pick

    return picks


def nucleus(logits_BV: Tensor, chance_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """The tokens that a number in [0, 1) picks from the likeliest ones."""
    p_BV = (logits_BV.float() / temperature).softmax(-1)
    p_BV, order_BV = torch.sort(p_BV, dim=-1, descending=True, stable=True)
    kept_BV = p_BV * (p_BV.cumsum(-1) - p_BV <= top_p)
    upto_BV = kept_BV.cumsum(-1)
    place_B = (upto_BV <= chance_B[:, None] * upto_BV[:, -1:]).sum(-1)
    last_B = (kept_BV > 0).sum(-1) - 1  # a chance may be rounded to 1
    return order_BV.gather(1, place_B.minimum(last_B)[:, None])[:, 0]
