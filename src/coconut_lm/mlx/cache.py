"""What mlx_lm's layers ask of a cache: one with gradient, and one to write with.

Either keeps all columns; a sliding window is a matter of the mask.

Shapes: B rows, H heads, T columns, E width of a head.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import BatchKVCache, KVCache, RotatingKVCache
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache

from coconut_lm.errors import UserError


def windows(base: nn.Module, config: PreTrainedConfig) -> list[int | None]:
    """How many columns each layer sees, where that is not all: as transformers has it, mlx_lm forgets some.
    A state that is no keys and values is none of ours."""
    kept: list[Any] = base.make_cache() if hasattr(base, "make_cache") else []
    if strange := next((each for each in kept if type(each) not in (KVCache, RotatingKVCache)), None):
        raise UserError(
            "this architecture cannot think on MLX",
            given=f"it keeps a {type(strange).__name__}",
            expected="keys and values",
            do="set backend: torch",
        )
    return [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]


class PassCache:
    """Of one layer, with gradient: keys joined pass by pass. Rows are padded on the left by `left_B`; what is
    padded on the right nobody attends to.

    `offset` is one number a row, so rotations count from each row's first token.
    """

    def __init__(self, left_B: mx.array, window: int | None = None) -> None:
        self.left_B, self.window = left_B, window
        self.offset = -left_B
        self.columns = 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys_BHTE: mx.array, values_BHTE: mx.array) -> tuple[mx.array, mx.array]:
        new = keys_BHTE.shape[2]
        self.offset, self.columns = self.offset + new, self.columns + new
        if self.keys is not None and self.values is not None:
            keys_BHTE = mx.concatenate([self.keys, keys_BHTE], axis=2)
            values_BHTE = mx.concatenate([self.values, values_BHTE], axis=2)
        self.keys, self.values = keys_BHTE, values_BHTE
        return keys_BHTE, values_BHTE

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """Always an array. Padding sees itself, so that nowhere is a softmax over nothing."""
        mask_B1NT = create_causal_mask(
            N, offset=self.columns, window_size=window_size or self.window, left_padding=self.left_B
        )
        itself_NT = mx.arange(self.columns, self.columns + N)[:, None] == mx.arange(self.columns + N)
        return mask_B1NT | itself_NT


class Columns(BatchKVCache):
    """mlx_lm's, whose padding is told before every pass: of a prompt read in parts it may go on."""

    def __init__(self, window: int | None = None) -> None:
        super().__init__([0])
        self.keys: mx.array
        self.values: mx.array
        self.window = window

    def pad(self, left_B: mx.array) -> None:
        self.left_padding, self.offset = left_B, self._idx - left_B

    def make_mask(
        self, N: int, return_array: bool = False, window_size: int | None = None, **kwargs: Any
    ) -> mx.array:
        return super().make_mask(N, return_array, window_size=window_size or self.window, **kwargs)

    def select(self, rows_B: mx.array) -> None:
        """These rows alone, as often as they are named. All columns stay where they are."""
        self.keys, self.values = self.keys[rows_B], self.values[rows_B]
