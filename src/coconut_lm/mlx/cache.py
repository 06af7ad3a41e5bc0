"""What mlx_lm's layers ask of a cache, with gradient: keys joined pass by pass.

Shapes: B rows, H heads, T columns, E width of a head.
"""

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask


class PassCache:
    """Of one layer. Rows are padded on the left by `left_B`; what is padded on the right nobody attends to.

    `offset` is one number a row, so rotations count from each row's first token.
    """

    def __init__(self, left_B: mx.array) -> None:
        self.left_B = left_B
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
            N, offset=self.columns, window_size=window_size, left_padding=self.left_B
        )
        itself_NT = mx.arange(self.columns, self.columns + N)[:, None] == mx.arange(self.columns + N)
        return mask_B1NT | itself_NT
