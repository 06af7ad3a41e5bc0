"""What a model is given in place of its thoughts: others' thoughts, means, noise, or others' keys and values.

Shapes: N examples, B rows, K thoughts, T columns, H heads, E width of a head, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from coconut_lm import base as bases
from coconut_lm import noise
from coconut_lm.answer import Answerer, Read, Reading, read
from coconut_lm.collate import Batch, collate_prompts
from coconut_lm.errors import UserError
from coconut_lm.feedback import Feedback
from coconut_lm.interventions import fed_by
from coconut_lm.methods import Row
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.outputs import CoconutOutput
from coconut_lm.passcache import PassCache, RoomyLayer
from coconut_lm.tokens import LatentTokens

# -- thoughts as they were --


@dataclass(frozen=True)
class Recorded:
    """What a model fed to itself about each example, on the host, and how many thoughts that were: -1 where
    it could not be read."""

    fed_NKD: Tensor
    counts_N: Tensor

    @cached_property
    def is_thought_NK(self) -> Tensor:
        return torch.arange(self.fed_NKD.shape[1]) < self.counts_N[:, None]

    @cached_property
    def sums_KD(self) -> Tensor:
        return (self.fed_NKD * self.is_thought_NK[..., None]).sum(0)


def record(answerer: Answerer, prompts: Sequence[Row], batch_size: int) -> Recorded:
    """The thoughts about these prompts, in their order."""
    found: dict[int, Tensor] = {}

    def reading(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        done = read(model, batch, columns)
        found.update(zip(batch.index.tolist(), _thoughts(model, done.output), strict=True))
        return done

    reader = Answerer(answerer.model, answerer.tokens, 1, read=reading)  # one token needs no pass more
    ordered = sorted(prompts, key=lambda prompt: -len(prompt.input_ids))
    for start in range(0, len(ordered), batch_size):
        _each(reader, ordered[start : start + batch_size])
    width = max((each.shape[-1] for each in found.values() if len(each)), default=0)
    dtype = torch.promote_types(answerer.model.dtype, torch.float32)
    nothing = torch.zeros(0, width, dtype=dtype)
    kept = [found.get(prompt.index) for prompt in prompts]
    counts_N = torch.tensor([-1 if each is None else len(each) for each in kept])
    some = [nothing if each is None or len(each) == 0 else each for each in kept]
    return Recorded(pad_sequence(some, batch_first=True), counts_N)


def _each(reader: Answerer, prompts: Sequence[Row]) -> None:
    """What fails together may do one by one."""
    try:
        reader(prompts)
    except RuntimeError:
        for prompt in prompts if len(prompts) > 1 else ():
            _each(reader, [prompt])


def _thoughts(model: CoconutForCausalLM, output: CoconutOutput) -> Sequence[Tensor]:
    """Each row's, as its feedback made them."""
    trace = output.thoughts
    if trace is None:
        return [torch.zeros(0)] * len(output.logits)
    fed = trace.fed_BKD[trace.is_thought_BK] * bases.input_scale(model.config.get_text_config())
    fed = fed.to(torch.promote_types(fed.dtype, torch.float32))  # to be fed again as it was
    return fed.cpu().split(trace.is_thought_BK.sum(1).tolist())


# -- what may stand in their place: of the rows of a batch, (B, K, D) --

Substitute = Callable[[Recorded, Tensor], Tensor]


def zero(known: Recorded, rows_B: Tensor) -> Tensor:
    return torch.zeros_like(known.fed_NKD[rows_B])


def mean(known: Recorded, rows_B: Tensor) -> Tensor:
    """Of the other examples' thoughts at that place; of all the others' where no other has one there."""
    real_BK1 = known.is_thought_NK[rows_B][..., None]
    others_BKD = known.sums_KD - known.fed_NKD[rows_B] * real_BK1
    counts_BK1 = known.is_thought_NK.sum(0)[:, None] - real_BK1.to(torch.int64)
    anywhere_B1D = others_BKD.sum(1, keepdim=True) / counts_BK1.sum(1, keepdim=True).clamp_min(1)
    return torch.where(counts_BK1 > 0, others_BKD / counts_BK1.clamp_min(1), anywhere_B1D)


def first(known: Recorded, rows_B: Tensor) -> Tensor:
    """One's own first thought, again and again."""
    return known.fed_NKD[rows_B, :1].expand(-1, known.fed_NKD.shape[1], -1)


def constant(vector_D: Tensor) -> Substitute:
    """The same for all, such as a token's embedding."""
    return lambda known, rows_B: vector_D.to(known.fed_NKD).expand_as(known.fed_NKD[rows_B])


def gaussian(seed: int) -> Substitute:
    """Any direction, of the thought's own length; drawn by (seed, example, thought)."""

    def drawn(known: Recorded, rows_B: Tensor) -> Tensor:
        own_BKD = known.fed_NKD[rows_B]
        keys = [(seed, row, thought) for row in rows_B.tolist() for thought in range(own_BKD.shape[1])]
        g_BKD = noise.draw("gaussian", keys, own_BKD).view_as(own_BKD)
        return g_BKD * (own_BKD.norm(dim=-1, keepdim=True) / g_BKD.norm(dim=-1, keepdim=True))

    return drawn


def shuffled(seed: int) -> Substitute:
    """One's own in another order, in which none stands where it was; drawn by (seed, example)."""

    def moved(known: Recorded, rows_B: Tensor) -> Tensor:
        own_BKD = known.fed_NKD[rows_B]
        counts = known.counts_N[rows_B].tolist()
        order = np.tile(np.arange(own_BKD.shape[1]), (len(counts), 1))
        for line, row, count in zip(order, rows_B.tolist(), counts, strict=True):
            line[:count] = elsewhere(count, np.random.default_rng((seed, row)))
        return own_BKD.gather(1, torch.from_numpy(order)[..., None].expand_as(own_BKD))

    return moved


def elsewhere(count: int, random: np.random.Generator) -> np.ndarray:
    """A permutation that leaves nothing where it was: one random circle (Sattolo's)."""
    order = np.arange(count)
    for last in range(count - 1, 0, -1):
        other = int(random.integers(last))
        order[last], order[other] = order[other], order[last]
    return order


def anothers(donors: Sequence[int], theirs: Recorded | None = None, share: float = 1.0) -> Substitute:
    """The donor's, or so much of the way to it from one's own; `theirs` are the donors' where these are not
    among the examples. Donors have as many thoughts."""
    donors_N = torch.tensor(donors)

    def given(known: Recorded, rows_B: Tensor) -> Tensor:
        of = known if theirs is None else theirs
        if of.counts_N[donors_N[rows_B]].min() < 0:
            raise UserError("the clean thoughts about the donor could not be read")
        return known.fed_NKD[rows_B].lerp(of.fed_NKD[donors_N[rows_B]], share)

    return given


# -- fed --


class Substituted(Feedback):
    """Feeds what it was given; with `only`, in place of that thought alone, and the inner goes on from it."""

    def __init__(self, inner: Feedback, given_BKD: Tensor, only: int | None = None) -> None:
        super().__init__()
        self.inner, self.given_BKD, self.only = inner, given_BKD, only
        self.window = inner.window

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        # Where a row has no thought its number may be one too many, and what is given is not used.
        at_B = index_B.clamp(max=self.given_BKD.shape[1] - 1)
        given_BKD = self.given_BKD.to(h_BWD.device)
        given_BD = given_BKD[torch.arange(len(at_B), device=at_B.device), at_B]
        if self.only is None:
            return given_BD
        return torch.where((index_B == self.only)[:, None], given_BD, self.inner(h_BWD, mask_BW, index_B))


def fed(known: Recorded, substitute: Substitute, only: int | None = None) -> Read:
    """Reads with these in place of thoughts."""

    def wrap(batch: Batch, own: Feedback) -> Feedback:
        rows_B = torch.from_numpy(batch.index)
        if known.counts_N[rows_B].min() < 0:
            raise UserError("the clean thoughts about this example could not be read")
        return Substituted(own, substitute(known, rows_B), only)

    return fed_by(wrap)


def telling(read_so: Read, notes: Sequence[Mapping[str, Any]]) -> Read:
    """The same, with a note on each example."""

    def noted(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        return Reading(read_so(model, batch, columns).output, [notes[row] for row in batch.index.tolist()])

    return noted


# -- keys and values --


def exchangeable(model: CoconutForCausalLM) -> bool:
    """Whether the cache keeps all columns as they came: one with sliding windows does not."""
    return all(type(layer) is RoomyLayer for layer in PassCache(model.config.get_text_config()).layers)


def interchanged(
    donor: Callable[[int], Row], tokens: LatentTokens, what: Literal["thoughts", "question"]
) -> Read:
    """Reads prompts, exchanges keys and values for the donors' at the columns of the thoughts, or at all
    before and between them, and reads on behind the last thought. Donors' thoughts stand at the same
    columns."""

    def read_so(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int]) -> Reading:
        if not columns:
            return read(model, batch, columns)
        donors = collate_prompts([donor(row) for row in batch.index.tolist()], tokens)
        at = columns[-1] + 1
        own, theirs = (_upto(model, each, columns, at) for each in (batch, donors))
        thoughts_BT = batch.input_ids[:, :at] == tokens.latent
        assert np.array_equal(thoughts_BT, donors.input_ids[:, :at] == tokens.latent)
        assert np.array_equal(batch.attention_mask, donors.attention_mask)
        taken_BT = torch.from_numpy(thoughts_BT if what == "thoughts" else ~thoughts_BT).to(model.device)
        _exchange(own.past_key_values, theirs.past_key_values, taken_BT)
        return Reading(_rest(model, batch, at, own))

    return read_so


def _upto(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int], at: int) -> CoconutOutput:
    """The columns before `at`."""
    mask = batch.attention_mask[:, :at]
    return model(
        torch.from_numpy(batch.input_ids[:, :at]).to(model.device),
        attention_mask=torch.from_numpy(mask).to(model.device),
        mask_on_host=mask,
        columns=columns,
        use_cache=True,
        logits_to_keep=1,
        return_thoughts=True,
    )


def _exchange(own: Any, theirs: Any, taken_BT: Tensor) -> None:
    taken_B1T1 = taken_BT[:, None, :, None]
    for mine, other in zip(own.layers, theirs.layers, strict=True):
        mine.keys = torch.where(taken_B1T1, other.keys, mine.keys)
        mine.values = torch.where(taken_B1T1, other.values, mine.values)


def _rest(model: CoconutForCausalLM, batch: Batch, at: int, before: CoconutOutput) -> CoconutOutput:
    """The columns from `at` on, in which nothing is thought."""
    output: CoconutOutput = model(
        torch.from_numpy(batch.input_ids[:, at:]).to(model.device),
        attention_mask=torch.from_numpy(batch.attention_mask).to(model.device),
        mask_on_host=batch.attention_mask,
        past_key_values=before.past_key_values,
        columns=(),
        use_cache=True,
        logits_to_keep=1,
    )
    output.thoughts = before.thoughts
    return output
