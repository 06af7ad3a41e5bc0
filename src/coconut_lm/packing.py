"""Rows without their padding: only real tokens pass through a model's layers, whatever the lengths of rows.

Rows are laid end to end, as one. Only attention puts them back into their columns, since it relates tokens of
one row; everything else in a block takes each token by itself.

Shapes: B rows, T columns, W columns of a pass, N real tokens, H heads, E width of a head, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_packed"
STRIP = 64  # columns
WORTH = 0.03  # share of padding from which on packing pays


@dataclass(frozen=True)
class Packing:
    """Where N real tokens stand in B rows of W columns, and what stands where: token `source`, or padding.

    `front` holds the same rows moved to the left until each begins in the first column, so that attention
    needs no mask but the causal one; that will do for a pass that has none before it.
    """

    index_N: Tensor
    source: Tensor  # B * W
    padding: Tensor  # where nothing stands
    rows: int
    columns: int
    front: "Packing | None" = None

    @classmethod
    def of(cls, real_BW: Tensor, device: torch.device, first: bool) -> "Packing | None":
        """None where there is too little padding. `real` is best on the host: a device is waited for.
        To read prompts a little is worth it: attention without a mask computes half."""
        real_BW = real_BW.bool()
        tokens, places = int(real_BW.sum()), real_BW.numel()
        enough = places - 1 if first and not torch.is_grad_enabled() else (1 - WORTH) * places
        if len(real_BW) == 1 or not 0 < tokens <= enough:
            return None
        front_BW = torch.arange(real_BW.shape[1]) < real_BW.sum(1, keepdim=True).cpu()
        front = cls._laid(front_BW[:, front_BW.any(0)], device) if first else None
        return cls._laid(real_BW, device, front)

    @classmethod
    def _laid(cls, real_BW: Tensor, device: torch.device, front: "Packing | None" = None) -> "Packing":
        flat = real_BW.flatten()
        parts = (flat.nonzero().flatten(), (flat.cumsum(0) - 1).clamp_min(0), (~flat).nonzero().flatten())
        index_N, source, padding = (part.to(device, non_blocking=True) for part in parts)
        rows, columns = real_BW.shape
        return cls(index_N, source, padding, rows, columns, front)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, W, ...) to (1, N, ...)."""
        packed: Tensor = _Pack.apply(padded.flatten(0, 1), self)
        return packed[None]

    def unpack(self, packed: Tensor) -> Tensor:
        """(1, N, ...) to (B, W, ...), zero where there is no token."""
        padded: Tensor = _Unpack.apply(packed[0], self)
        return padded.unflatten(0, (self.rows, self.columns))

    def unpack_heads(self, packed_1HNE: Tensor) -> Tensor:
        return self.unpack(packed_1HNE.transpose(1, 2)).transpose(1, 2)


def _spread(packed: Tensor, packing: Packing) -> Tensor:
    # To look up for every place what stands there is far faster than to put every token in its place.
    return packed.index_select(0, packing.source).index_fill_(0, packing.padding, 0)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return padded.index_select(0, packing.index_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _spread(grad, ctx.packing), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return _spread(packed, packing)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.packing.index_N), None


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
    laid, mask = (packing.front, None) if packing.front else (packing, attention_mask)
    query, key, value = (laid.unpack_heads(each) if each.shape[0] == 1 else each for each in given)
    return laid.pack(_sdpa(module, query, key, value, mask, **kwargs)), None


def _sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """On CPUs in float32: there, torch's backward of attention takes three times as long in bfloat16."""
    if query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
    with torch.autocast("cpu", enabled=False):
        # Under autocast values are half as wide; queries and keys may come from a norm, which is not.
        half = value.dtype in (torch.bfloat16, torch.float16)
        q, k, v = (each.float() if half else each for each in (query, key, value))
        if mask is None and _many_alone(q, k):
            return _in_strips(module, q, k, v, **kwargs).to(value.dtype)
        return sdpa_attention_forward(module, q, k, v, mask, **kwargs)[0].to(value.dtype)


def _many_alone(query_BHTE: Tensor, key_BHTE: Tensor) -> bool:
    """Many columns that attend to themselves."""
    return query_BHTE.shape == key_BHTE.shape and query_BHTE.shape[2] > STRIP and not torch.is_grad_enabled()


def _in_strips(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """A strip of columns attends to those up to its own: torch's kernel would compute the rest as well."""
    columns, outputs = query.shape[2], []
    for start in range(0, columns, STRIP):
        stop = min(start + STRIP, columns)
        above = torch.full((stop - start, stop), -torch.inf, dtype=query.dtype).triu(start + 1)
        given = (query[:, :, start:stop], key[:, :, :stop], value[:, :, :stop])
        outputs.append(sdpa_attention_forward(module, *given, above[None, None], **kwargs)[0])
    return torch.cat(outputs, dim=1)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attention_mask(mask_BT: Tensor, columns: int) -> Tensor:
    """What the last `columns` columns see (B, 1, W, T): real tokens, up to their own."""
    total = mask_BT.shape[1]
    causal_WT = torch.ones(columns, total, dtype=torch.bool, device=mask_BT.device).tril(total - columns)
    return mask_BT[:, None, None, :].bool() & causal_WT
