"""A cache whose passes share what they keep for the backward pass.

Each pass attends to the keys and values of all columns so far, joined anew; autograd would keep every joined
copy. Here it keeps the piece that each pass added, once, and joins pieces again when the gradient needs them.

Shapes: B rows, H heads, T columns, E width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache

Place = tuple[int, torch.Size]


class PassCache(DynamicCache):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self._sharing = False
        self._pieces: dict[tuple[int, int], list[Tensor]] = {}  # by layer, and keys (0) or values (1)
        # Of the newest layer alone, and held until the next: so no other tensor can have their place.
        self._joined: dict[Place, tuple[Tensor, list[Tensor]]] = {}

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """What runs in here saves pieces in place of joined keys and values."""
        if not torch.is_grad_enabled():
            yield
            return
        self._sharing = True
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
                yield
        finally:
            self._sharing = False
            self._joined = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        joined = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if self._sharing:
            self._joined = {}
            for part, (piece_BHTE, whole_BHTE) in enumerate(
                zip((key_states, value_states), joined, strict=True)
            ):
                pieces = self._pieces.setdefault((layer_idx, part), [])
                pieces.append(piece_BHTE.detach())
                self._joined[_place(whole_BHTE)] = (whole_BHTE, list(pieces))
        return joined

    def _pack(self, saved: Tensor) -> Any:
        _, pieces = self._joined.get(_place(saved), (None, None))
        return saved if pieces is None else (pieces, saved.shape[-2])


def _place(tensor: Tensor) -> Place:
    return tensor.data_ptr(), tensor.shape


def _unpack(packed: Any) -> Tensor:
    """A sliding window sees the last columns only."""
    if isinstance(packed, Tensor):
        return packed
    pieces, columns = packed
    return torch.cat(pieces, dim=-2)[..., -columns:, :]
