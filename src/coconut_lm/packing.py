"""Rows without their padding: only real tokens pass through a model's layers, whatever the lengths of rows.

Rows are laid end to end, as one. Only attention puts them back into their columns, since it relates tokens of
one row; everything else in a block takes each token by itself.

Shapes: B rows, T columns, W columns of a pass, N real tokens, H heads, E width of a head, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_packed"
WORTH = 0.03  # share of padding from which on packing pays


@dataclass(frozen=True)
class Packing:
    """Where the real tokens stand in a pass over B rows and W columns."""

    index_N: Tensor
    rows: int
    columns: int

    @classmethod
    def of(cls, real_BW: Tensor, device: torch.device) -> "Packing | None":
        """None where there is too little padding. `real` is best on the host: a device is waited for."""
        rows, columns = real_BW.shape
        index_N = real_BW.flatten().nonzero().flatten()
        if rows == 1 or not 0 < len(index_N) <= (1 - WORTH) * rows * columns:
            return None
        return cls(index_N.to(device, non_blocking=True), rows, columns)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, W, ...) to (1, N, ...)."""
        return padded.flatten(0, 1).index_select(0, self.index_N)[None]

    def unpack(self, packed: Tensor) -> Tensor:
        """(1, N, ...) to (B, W, ...), zero where there is no token."""
        whole = packed.new_zeros(self.rows * self.columns, *packed.shape[2:])
        return whole.index_copy(0, self.index_N, packed[0]).unflatten(0, (self.rows, self.columns))

    def unpack_heads(self, packed_1HNE: Tensor) -> Tensor:
        return self.unpack(packed_1HNE.transpose(1, 2)).transpose(1, 2)


def install(base: PreTrainedModel) -> None:
    """Makes the attention of `base` one that knows packed rows, where it is torch's, can be exchanged, and
    sees all columns in every layer."""
    config = base.config.get_text_config()
    exchangeable = base._supports_attention_backend and config._attn_implementation == "sdpa"
    if exchangeable and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers):
        config._attn_implementation = ATTENTION


def installed(base: PreTrainedModel) -> bool:
    return bool(base.config.get_text_config()._attn_implementation == ATTENTION)


def _attention(
    module: torch.nn.Module,
    query_BHWE: Tensor,
    key_BHTE: Tensor,
    value_BHTE: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As sdpa's. Packed are the queries, and keys and values too if they do not come from a cache."""
    given = (query_BHWE, key_BHTE, value_BHTE)
    if packing is None:
        assert query_BHWE.shape[0] == key_BHTE.shape[0], "the model keeps from its attention what it was told"
        return _sdpa(module, *given, attention_mask, **kwargs), None
    padded = [packing.unpack_heads(each) if each.shape[0] == 1 else each for each in given]
    return packing.pack(_sdpa(module, *padded, attention_mask, **kwargs)), None


def _sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *mask: Any, **kwargs: Any
) -> Tensor:
    """On CPUs in float32: there, torch's backward of attention takes three times as long in bfloat16."""
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return sdpa_attention_forward(module, query, key, value, *mask, **kwargs)[0]
    with torch.autocast("cpu", enabled=False):
        wide = (query.float(), key.float(), value.float())
        return sdpa_attention_forward(module, *wide, *mask, **kwargs)[0].to(query.dtype)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attention_mask(mask_BT: Tensor, columns: int) -> Tensor:
    """What the last `columns` columns see (B, 1, W, T): real tokens, up to their own."""
    total = mask_BT.shape[1]
    causal_WT = torch.ones(columns, total, dtype=torch.bool, device=mask_BT.device).tril(total - columns)
    return mask_BT[:, None, None, :].bool() & causal_WT
