"""Batches as the model on MLX takes them, in few shapes where graphs are compiled.

Shapes: B rows, T columns, N supervised positions.
"""

from typing import Any

import mlx.core as mx
import numpy as np

from coconut_lm.collate import Batch
from coconut_lm.methods import IGNORED

BUCKET = 32
"""Columns before the thoughts, columns in all and targets come in such steps."""


def arrays(batch: Batch, multiple: int = 1) -> list[mx.array]:
    """What `model.summed` takes, targets filled up with those that count nothing."""
    where_N = batch.supervised
    more = -len(where_N) % multiple
    target_N = np.pad(batch.labels.ravel()[where_N + 1], (0, more), constant_values=IGNORED)
    return list(map(mx.array, (batch.input_ids, batch.attention_mask, np.pad(where_N, (0, more)), target_N)))


def bucketed(batch: Batch) -> Batch:
    """With more padding on either side."""
    columns = batch.columns
    before = -columns.start % BUCKET if columns else 0
    behind = -(batch.input_ids.shape[1] + before) % BUCKET

    def padded(array_BT: Any, value: int = 0) -> Any:
        return np.pad(array_BT, ((0, 0), (before, behind)), constant_values=value)

    return Batch(
        padded(batch.input_ids),
        padded(batch.attention_mask),
        padded(batch.labels, IGNORED),
        padded(batch.position_ids),
        range(columns.start + before, columns.stop + before) if columns else columns,
        batch.index,
    )
