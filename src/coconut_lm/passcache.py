"""The cache of all passes: nothing is copied that need not be, nothing is kept twice.

New columns go into room behind those in use. In training the room is as large as the batch is long, so every
pass attends to views of one tensor, and autograd keeps these views; to join keys anew for every pass would
copy them as often as there are thoughts.

Shapes: B rows, H heads, T columns, E width of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from coconut_lm.packing import Packing

SPARE = 64  # columns of room, at least


@dataclass
class Room:
    """A tensor with columns to spare, and the newest view of those in use."""

    whole_BHTE: Tensor
    used_BHTE: Tensor


class RoomyLayer(DynamicLayer):
    """Its keys and values are views of rooms. `columns` is how many there will be, where that is known;
    `packing` says how what comes next is packed."""

    def __init__(self, columns: int = 0) -> None:
        super().__init__()
        self.columns = columns
        self.packing: Packing | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states.detach()[:, :, :0], value_states.detach()[:, :, :0]
        self._rooms: tuple[Room | None, Room | None] = (None, None)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        given, packing = (key_states, value_states), self.packing
        if packing is not None:
            key_states, value_states = map(packing.unpack_heads, given)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if torch.is_grad_enabled() and not self.columns:
            return super().update(key_states, value_states, *args, **kwargs)
        before, columns = self._rooms, self.columns
        if torch.is_grad_enabled():
            keys = _grown(before[0], self.keys, key_states, columns)
            values = _grown(before[1], self.values, value_states, columns)
        else:
            keys = _append(before[0], self.keys, key_states, columns)
            values = _append(before[1], self.values, value_states, columns)
        self._rooms = (keys, values)
        self.keys, self.values = keys.used_BHTE, values.used_BHTE
        # What comes first needs nothing from here, and attends to itself as it is.
        return given if packing is not None and packing.first else (self.keys, self.values)


class RoomySlidingLayer(DynamicSlidingWindowLayer):
    """In training, views of one tensor too: of its last columns. Keys that someone exchanged are joined."""

    keys: Tensor | None
    values: Tensor | None

    def __init__(self, sliding_window: int, columns: int) -> None:
        super().__init__(sliding_window)
        self.columns = columns
        self._rooms: tuple[Room | None, Room | None] = (None, None)
        self._shown: Tensor | None = None  # the keys, as they were left here

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled() or self.keys is not self._shown:
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = (
            _grown(room, new.detach()[:, :, :0] if room is None else room.used_BHTE, new, self.columns)
            for room, new in zip(self._rooms, (key_states, value_states), strict=True)
        )
        self._rooms = (keys, values)
        self.cumulative_length += key_states.shape[-2]
        seen = self.sliding_window - 1 + key_states.shape[-2]
        self.keys, self.values = (room.used_BHTE[:, :, -self.sliding_window + 1 :] for room in (keys, values))
        self._shown = self.keys
        return keys.used_BHTE[:, :, -seen:], values.used_BHTE[:, :, -seen:]


def _append(room: Room | None, used_BHTE: Tensor, new_BHTE: Tensor, columns: int) -> Room:
    """`new` behind `used`, in its own room if that is free behind it and large enough, else in a new one.

    Whoever reordered, cropped or copied the keys holds another tensor than the room's newest view.
    """
    before, after = used_BHTE.shape[2], used_BHTE.shape[2] + new_BHTE.shape[2]
    if room is None or room.used_BHTE is not used_BHTE or room.whole_BHTE.shape[2] < after:
        size = max(columns, after + max(SPARE, after // 4))
        whole_BHTE = new_BHTE.new_empty(*new_BHTE.shape[:2], size, new_BHTE.shape[3])
        whole_BHTE[:, :, :before] = used_BHTE
        room = Room(whole_BHTE, used_BHTE)
    room.whole_BHTE[:, :, before:after] = new_BHTE
    room.used_BHTE = room.whole_BHTE[:, :, :after]
    return room


def _grown(room: Room | None, used_BHTE: Tensor, new_BHTE: Tensor, columns: int) -> Room:
    """As `_append`, with gradient. A layer that is computed again writes the same columns again."""
    before, after = used_BHTE.shape[2], used_BHTE.shape[2] + new_BHTE.shape[2]
    if room is None or room.used_BHTE is not used_BHTE or room.whole_BHTE.shape[2] < after:
        size = max(columns, after)  # who goes on behind the last column that was foreseen pays for it
        whole_BHTE = new_BHTE.new_empty(*new_BHTE.shape[:2], size, new_BHTE.shape[3])
        whole_BHTE.data[:, :, :before] = used_BHTE.detach()
        room = Room(whole_BHTE, used_BHTE)
    return Room(room.whole_BHTE, _Grown.apply(new_BHTE, used_BHTE, room.whole_BHTE))


class _Grown(torch.autograd.Function):
    """As joining `used` and `new`, but `used` stands in `whole` already."""

    @staticmethod
    def forward(ctx: Any, new_BHTE: Tensor, used_BHTE: Tensor, whole_BHTE: Tensor) -> Tensor:
        ctx.before = used_BHTE.shape[2]
        after = ctx.before + new_BHTE.shape[2]
        # `data`: to write behind a view that autograd has saved does not change what it saved.
        whole_BHTE.data[:, :, ctx.before : after] = new_BHTE
        return whole_BHTE.data[:, :, :after]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad_BHTE[:, :, ctx.before :], grad_BHTE[:, :, : ctx.before], None


class PassCache(DynamicCache):
    """`columns`: how long the rows will be, where that is known from the start."""

    def __init__(self, config: PreTrainedConfig, columns: int = 0) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [_roomy(layer, columns) for layer in self.layers]

    def expect(self, packing: Packing | None) -> None:
        """How the keys and values of the next pass are packed."""
        for layer in self.layers:
            layer.packing = packing


def _roomy(layer: Any, columns: int) -> Any:
    if type(layer) is DynamicLayer:
        return RoomyLayer(columns)
    if type(layer) is DynamicSlidingWindowLayer and columns:
        return RoomySlidingLayer(layer.sliding_window, columns)
    return layer
