"""The cache of all passes: nothing is copied that need not be, nothing is kept twice.

With gradient, each pass attends to the keys and values of all columns so far, joined anew, and autograd would
keep every joined copy. Here it keeps the piece that each pass added, once, and joins pieces again when the
gradient needs them. Without gradient, new columns go into room that was left for them.

Shapes: B rows, H heads, T columns, E width of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

Place = tuple[int, torch.Size]
SPARE = 64  # columns of room, at least


@dataclass
class Room:
    """A tensor with columns to spare, and the newest view of those in use."""

    whole_BHTE: Tensor
    used_BHTE: Tensor


class RoomyLayer(DynamicLayer):
    """Its keys and values are views of rooms."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self._rooms: tuple[Room | None, Room | None] = (None, None)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = _append(self._rooms[0], self.keys, key_states)
        values = _append(self._rooms[1], self.values, value_states)
        self._rooms = (keys, values)
        self.keys, self.values = keys.used_BHTE, values.used_BHTE
        return self.keys, self.values


def _append(room: Room | None, used_BHTE: Tensor, new_BHTE: Tensor) -> Room:
    """`new` behind `used`, in its own room if that is free behind it and large enough, else in a new one.

    Whoever reordered, cropped or copied the keys holds another tensor than the room's newest view.
    """
    before, after = used_BHTE.shape[2], used_BHTE.shape[2] + new_BHTE.shape[2]
    if room is None or room.used_BHTE is not used_BHTE or room.whole_BHTE.shape[2] < after:
        spare = max(SPARE, after // 4)
        whole_BHTE = new_BHTE.new_empty(*new_BHTE.shape[:2], after + spare, new_BHTE.shape[3])
        whole_BHTE[:, :, :before] = used_BHTE
        room = Room(whole_BHTE, used_BHTE)
    room.whole_BHTE[:, :, before:after] = new_BHTE
    room.used_BHTE = room.whole_BHTE[:, :, :after]
    return room


class PassCache(DynamicCache):
    """`can_fill`: every layer attends to all columns, so that rows may be read in groups."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self._config = config
        self.layers: list[Any] = [
            RoomyLayer() if type(layer) is DynamicLayer else layer for layer in self.layers
        ]
        self.can_fill = all(isinstance(layer, RoomyLayer) for layer in self.layers)
        self._sharing = False
        self._pieces: dict[tuple[int, int], list[Tensor]] = {}  # by layer, and keys (0) or values (1)
        # Of the newest layer alone, and held until the next: so no other tensor can have their place.
        self._joined: dict[Place, tuple[Tensor, list[Tensor]]] = {}

    def alike(self) -> "PassCache":
        """An empty one for the same model."""
        return PassCache(self._config)

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """What runs in here saves pieces in place of joined keys and values."""
        if not torch.is_grad_enabled():
            yield
            return
        self._sharing = True
        try:
            # Autograd keeps the hooks: a method of this cache would keep its last joined keys and values.
            with torch.autograd.graph.saved_tensors_hooks(partial(_pack, self._joined), _unpack):
                yield
        finally:
            self._sharing = False
            self._joined.clear()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        joined = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if self._sharing:
            self._joined.clear()
            for part, (piece_BHTE, whole_BHTE) in enumerate(
                zip((key_states, value_states), joined, strict=True)
            ):
                pieces = self._pieces.setdefault((layer_idx, part), [])
                pieces.append(piece_BHTE.detach())
                self._joined[_place(whole_BHTE)] = (whole_BHTE, list(pieces))
        return joined

    @torch.no_grad()
    def fill(self, parts: Sequence[tuple[Tensor, "PassCache"]], rows: int, columns: int) -> None:
        """Takes over what groups of rows have read, each of them up to the last of these columns."""
        for index, layer in enumerate(self.layers):
            sample = parts[0][1].layers[index].keys
            shape = (rows, sample.shape[1], columns, sample.shape[3])
            keys_BHTE, values_BHTE = sample.new_zeros(shape), sample.new_zeros(shape)
            for places, part in parts:
                read = part.layers[index].keys.shape[2]
                keys_BHTE[places, :, columns - read :] = part.layers[index].keys
                values_BHTE[places, :, columns - read :] = part.layers[index].values
            layer.update(keys_BHTE, values_BHTE)


def _place(tensor: Tensor) -> Place:
    return tensor.data_ptr(), tensor.shape


def _pack(joined: dict[Place, tuple[Tensor, list[Tensor]]], saved: Tensor) -> Any:
    _, pieces = joined.get(_place(saved), (None, None))
    return saved if pieces is None else (pieces, saved.shape[-2])


def _unpack(packed: Any) -> Tensor:
    """A sliding window sees the last columns only."""
    if isinstance(packed, Tensor):
        return packed
    pieces, columns = packed
    return torch.cat(pieces, dim=-2)[..., -columns:, :]
