"""The heart in MLX: the walk of coconut_lm.model, around a model of mlx_lm.

Shapes: B rows, T columns, W columns of a window, K thoughts, D width, N supervised positions, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import torch
from mlx.utils import tree_flatten
from torch import Tensor

from coconut_lm import layout
from coconut_lm.collate import Batch
from coconut_lm.configuration import CoconutConfig
from coconut_lm.errors import UserError
from coconut_lm.methods import IGNORED
from coconut_lm.mlx import base as bases
from coconut_lm.mlx import feedback as feedbacks
from coconut_lm.mlx.bridge import to_mlx, to_torch
from coconut_lm.mlx.cache import Columns, PassCache, windows
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.weights import FEEDBACK, PREFIX

LAST = -1  # the layer whose states the head reads


class Feed(Protocol):
    """A feedback, of whatever make."""

    window: int

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array: ...


@dataclass(frozen=True)
class Origin:
    """The torch model it was made of: its tensors as mlx_lm's `sanitize` gets them, and who shares one."""

    shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    ties: Mapping[str, str]
    kind: str


@dataclass(frozen=True)
class Trail:
    """As coconut_lm.outputs.Trail."""

    hidden_BWD: mx.array
    thoughts_B: mx.array


@dataclass(frozen=True)
class Walked:
    """The last hidden states of the columns, what was fed as thoughts, and how to go on from there."""

    hidden_BTD: mx.array
    fed: list[mx.array]  # one (B, D) for each of the columns
    is_latent_BT: mx.array
    trail: Trail


class Coconut(nn.Module):
    def __init__(
        self, base: nn.Module, feedback: feedbacks.Feedback, config: CoconutConfig, origin: Origin
    ) -> None:
        super().__init__()
        self.base, self.feedback = base, feedback
        self.latent = config.latent_token_id if config.latent_token_id is not None else -1
        self.origin = origin
        self._windows = windows(base, config.get_text_config())
        shape = config.get_text_config()
        rows = 1 + (getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads)
        cache = self.caches(mx.zeros(rows, mx.int32))
        self.scale = bases.input_scale(base, rows, shape.hidden_size, cache, origin.kind)

    def caches(self, left_B: mx.array) -> list[PassCache]:
        """Empty ones, of rows padded so much on the left."""
        return [PassCache(left_B, window) for window in self._windows]

    def columns(self) -> list[Columns]:
        """Empty ones to write with."""
        return [Columns(window) for window in self._windows]

    def __call__(
        self,
        ids_BT: mx.array,
        mask_BT: mx.array,
        columns: Sequence[int],
        cache: Sequence[Any] | None = None,
        trail: Trail | None = None,
        feed: Feed | None = None,
        layer: int = LAST,
    ) -> Walked:
        """Run up to a latent column, feed the last hidden state in there, run on. The mask is that of the
        columns in the cache too; `feed` stands in for the feedback, `layer` is whose states it gets."""
        if cache is None:
            cache = self.caches(mx.argmax(mask_BT, axis=1).astype(mx.int32))
        embeds_BTD = bases.embedding(self.base)(ids_BT)
        is_latent_BT = ids_BT == self.latent
        seen = mask_BT.shape[1] - ids_BT.shape[1]
        feed = feed or self.feedback
        before_B = mx.zeros(len(ids_BT), mx.int32) if trail is None else trail.thoughts_B
        hidden: list[mx.array] = []
        source = [] if trail is None else [trail.hidden_BWD]
        fed: list[mx.array] = []
        for start, stop in pairwise([0, *columns, ids_BT.shape[1]]):
            if start == stop:  # the first column is a thought
                continue
            chunk_BTD = embeds_BTD[:, start:stop]
            if start in columns:
                index_B = before_B + is_latent_BT[:, :start].sum(1)
                thought_BD = self._thought(source, mask_BT[:, : seen + start], index_B, feed)
                fed.append(mx.where(is_latent_BT[:, start, None], thought_BD, chunk_BTD[:, 0]))
                chunk_BTD = mx.concatenate([fed[-1][:, None], chunk_BTD[:, 1:]], axis=1)
            last_BWD, source_BWD = self._pass(chunk_BTD, cache, layer)
            hidden.append(last_BWD)
            source.append(source_BWD)
        end = Trail(_newest(source, feed.window), before_B + is_latent_BT.sum(1))
        return Walked(mx.concatenate(hidden, axis=1), fed, is_latent_BT, end)

    def logits(self, hidden_BTD: mx.array) -> mx.array:
        return bases.logits(self.base, hidden_BTD)

    def _pass(self, embeds_BWD: mx.array, cache: Sequence[Any], layer: int) -> tuple[mx.array, mx.array]:
        """The last states, and those of `layer`, numbered as transformers numbers them: 0 is what goes in."""
        blocks = len(self.base.layers)
        if not -blocks - 1 <= layer <= blocks:
            raise UserError("the model has no such layer", given=layer, expected=f"{-blocks - 1} to {blocks}")
        if (at := layer % (blocks + 1)) == blocks:
            last_BWD = bases.states(self.base, embeds_BWD, cache)
            return last_BWD, last_BWD
        with bases.watched(self.base, at) as entered:
            return bases.states(self.base, embeds_BWD, cache), entered[0]

    def _thought(self, states: list[mx.array], mask_BT: mx.array, index_B: mx.array, feed: Feed) -> mx.array:
        """What is fed next, made from the newest states of all columns so far."""
        states_BWD = _newest(states, feed.window)
        thought_BD = feed(states_BWD, mask_BT[:, -states_BWD.shape[1] :], index_B)
        return (thought_BD / self.scale).astype(states_BWD.dtype)


def _newest(states: list[mx.array], window: int) -> mx.array:
    """So many of the newest states, or all."""
    states_BWD = states[-1][:, -window:]
    for earlier_BTD in reversed(states[:-1]):
        if (lacking := window - states_BWD.shape[1]) == 0:
            break
        states_BWD = mx.concatenate([earlier_BTD[:, -lacking:], states_BWD], axis=1)
    return states_BWD


def loss(net: Coconut, batch: Batch, items: int) -> mx.array:
    """The sum of the cross-entropies at the supervised positions, over the `items` they are counted with."""
    where_N = batch.supervised
    arrays = (batch.input_ids, batch.attention_mask, where_N, batch.labels.ravel()[where_N + 1])
    return summed(net, *map(mx.array, arrays), columns=batch.columns) / items


def summed(
    net: Coconut,
    ids_BT: mx.array,
    mask_BT: mx.array,
    where_N: mx.array,
    target_N: mx.array,
    *,
    columns: Sequence[int],
) -> mx.array:
    """As `loss`, of arrays alone, so that it may be compiled: positions whose target is IGNORED count
    nothing, and `where` may be filled up with them. Logits are computed at these positions only."""
    hidden_BTD = net(ids_BT, mask_BT, columns).hidden_BTD
    states_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[where_N]
    logits_NV = net.logits(states_ND[None])[0].astype(mx.float32)
    counts_N = target_N != IGNORED
    each_N = nn.losses.cross_entropy(logits_NV, mx.where(counts_N, target_N, 0))
    return mx.where(counts_N, each_N, 0.0).sum()


def of(heart: CoconutForCausalLM) -> Coconut:
    """The same model in MLX. Float64 becomes float32."""
    kind, tensors = heart.config.base_config.model_type, layout.to_mlx(heart.base_causallm)
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    origin = Origin(shapes, layout.ties(heart.base_causallm), kind)
    base = bases.new(layout.config_for_mlx(heart.base_causallm.config))
    bases.load(base, {name: to_mlx(tensor) for name, tensor in tensors.items()}, kind)
    if (rotations := getattr(heart.base_causallm.base_model, "rotary_emb", None)) is not None and hasattr(
        rotations, "inv_freq"
    ):
        bases.rotate(base, 1 / to_mlx(rotations.inv_freq))
    net = Coconut(base, feedbacks.of(heart.feedback), heart.config, origin)
    mx.eval(net.parameters())
    return net


def give_back(net: Coconut) -> dict[str, Tensor]:
    """The state dict of the torch model: what `sanitize` makes of its tensors, undone."""
    held: dict[str, mx.array] = dict(tree_flatten(net.base.parameters()))
    shapes = net.origin.shapes
    places: list[str] = []

    def sanitized(arrays: list[mx.array]) -> list[mx.array]:
        made = bases.sanitized(net.base, dict(zip(shapes, arrays, strict=True)))
        places[:] = made
        return list(made.values())

    zeros = [mx.zeros(shape) for shape, _ in shapes.values()]
    sanitized(zeros)
    # It moves numbers about and changes none, so its transpose is its inverse.
    _, undone = mx.vjp(lambda *arrays: sanitized(list(arrays)), zeros, [held[place] for place in places])
    tensors = {
        name: to_torch(array).to(dtype)
        for (name, (_, dtype)), array in zip(shapes.items(), undone, strict=True)
    }
    named = layout.from_mlx(tensors, net.origin.kind)
    named |= {name: named[other] for name, other in net.origin.ties.items()}
    feedback = {FEEDBACK + name: tensor for name, tensor in feedbacks.give_back(net.feedback).items()}
    return {PREFIX + name: tensor for name, tensor in named.items()} | feedback
