"""The first pass over left-padded rows without computing their padding.

Rows of like lengths are read together, each group from its own first column on; then all share one cache.

Shapes: B rows, T columns, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from coconut_lm.passcache import PassCache

GROUP, MOST = 8, 8  # rows of a group, at least; groups, at most: smaller ones would leave the device idle
WORTH = 0.05  # share of padding from which on grouping pays

Read = Callable[[Tensor, Tensor, Tensor, PassCache], Tensor]


def groups(mask_BT: Tensor) -> list[tuple[Tensor, int]]:
    """Rows that begin at about the same column, and that column; one group where there is little padding."""
    rows, columns = mask_BT.shape
    count = min(MOST, rows // GROUP)
    if count < 2 or 1 - mask_BT.float().mean().item() < WORTH:
        return [(torch.arange(rows, device=mask_BT.device), 0)]
    # A row of padding alone begins nowhere; it is read with the last column.
    starts_B = torch.where(mask_BT.any(1), mask_BT.argmax(1), columns - 1)
    return [(part, int(starts_B[part].min())) for part in starts_B.argsort().tensor_split(count)]


def read(run: Read, embeds_BTD: Tensor, mask_BT: Tensor, position_ids: Tensor, cache: PassCache) -> Tensor:
    """What `run(embeds, mask, positions, cache)` answers for all rows; padding may be left zero."""
    found = groups(mask_BT) if cache.can_fill and cache.get_seq_length() == 0 else []
    if len(found) < 2:
        return run(embeds_BTD, mask_BT, position_ids, cache)
    hidden_BTD = torch.zeros_like(embeds_BTD)
    parts = []
    for rows, start in found:
        part = cache.alike()
        states = run(embeds_BTD[rows, start:], mask_BT[rows, start:], position_ids[rows, start:], part)
        hidden_BTD[rows, start:] = states.to(hidden_BTD.dtype)
        parts.append((rows, part))
    cache.fill(parts, *mask_BT.shape)
    return hidden_BTD
