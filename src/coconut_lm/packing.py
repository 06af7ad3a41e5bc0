"""Rows without their padding: only real tokens pass through a model's layers, whatever the lengths of rows.

Rows are laid end to end, as one. Only attention puts them back into their columns, since it relates tokens of
one row; everything else in a block takes each token by itself.

Shapes: B rows, T columns, W columns of a pass, N real tokens, H heads, E width of a head, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_packed"
STRIP = 64  # columns
GROUP, MOST = 8, 8  # rows of a group, at least; groups, at most
WORTH = 0.03  # share of padding from which on packing pays


@dataclass(frozen=True)
class Layout:
    """Where N tokens stand in B rows of W columns, and what stands where: token `source`, or padding."""

    index_N: Tensor
    source: Tensor  # B * W
    padding: Tensor  # where nothing stands
    rows: int
    columns: int

    @classmethod
    def of(cls, real_BW: Tensor, device: torch.device, **more: Any) -> Self:
        flat = real_BW.flatten()
        parts = (flat.nonzero().flatten(), (flat.cumsum(0) - 1).clamp_min(0), (~flat).nonzero().flatten())
        index_N, source, padding = (part.to(device, non_blocking=True) for part in parts)
        return cls(index_N, source, padding, real_BW.shape[0], real_BW.shape[1], **more)

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


@dataclass(frozen=True)
class Group:
    """So many rows that stand together, so many tokens, and how these are laid out for attention."""

    rows: int
    tokens: int
    layout: Layout


@dataclass(frozen=True)
class Packing(Layout):
    """Real tokens alone, and the groups of rows in which attention sees them: each is as wide as its longest.

    In the `first` pass rows are moved to the left until each begins in the first column: attention then needs
    no mask but the causal one. Later passes see what stands in the cache, column by column.
    """

    first: bool
    groups: tuple[Group, ...]

    @classmethod
    def found(cls, real_BW: Tensor, device: torch.device, first: bool) -> "Packing | None":
        """None where there is too little padding. `real` is best on the host: a device is waited for.
        To read prompts a little is worth it: attention without a mask computes half."""
        real_BW = real_BW.bool().cpu()
        tokens, places = int(real_BW.sum()), real_BW.numel()
        enough = places - 1 if first and not torch.is_grad_enabled() else (1 - WORTH) * places
        if len(real_BW) == 1 or not 0 < tokens <= enough:
            return None
        seen_BW = torch.arange(real_BW.shape[1]) < real_BW.sum(1, keepdim=True) if first else real_BW
        return cls.of(real_BW, device, first=first, groups=tuple(_groups(seen_BW, device)))


def _groups(real_BW: Tensor, device: torch.device) -> Iterator[Group]:
    count = min(MOST, max(1, len(real_BW) // GROUP))
    for part_BW in real_BW.tensor_split(count):
        tokens = int(part_BW.sum())
        width = int(part_BW.any(0).nonzero().max()) + 1 if tokens else 0
        yield Group(len(part_BW), tokens, Layout.of(part_BW[:, :width], device))


def _spread(packed: Tensor, layout: Layout) -> Tensor:
    # To look up for every place what stands there is far faster than to put every token in its place.
    return packed.index_select(0, layout.source).index_fill_(0, layout.padding, 0)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return padded.index_select(0, layout.index_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _spread(grad, ctx.layout), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return _spread(packed, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.layout.index_N), None


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
    if packing is None:
        assert query_BHWE.shape[0] == key_BHTE.shape[0], "the model keeps from its attention what it was told"
        return _sdpa(module, query_BHWE, key_BHTE, value_BHTE, attention_mask, **kwargs), None
    outputs, row = [], 0
    for group, (query, key, value) in zip(
        packing.groups, _parts(packing, query_BHWE, key_BHTE, value_BHTE), strict=True
    ):
        rows, row = slice(row, row + group.rows), row + group.rows
        if not group.tokens:
            continue
        laid, mask = group.layout, None
        if packing.first:
            key, value = laid.unpack_heads(key), laid.unpack_heads(value)
        elif attention_mask is not None:
            mask = attention_mask[rows, :, : laid.columns]
        outputs.append(laid.pack(_sdpa(module, laid.unpack_heads(query), key, value, mask, **kwargs)))
    return torch.cat(outputs, dim=1), None


def _parts(packing: Packing, query: Tensor, *cached: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """What each group asks, and the keys and values that it asks of: packed as it is in the first pass, later
    rows of the cache. Split, not sliced: the gradient of a slice is as large as what it was cut from."""
    tokens = [group.tokens for group in packing.groups]
    sizes, axis = (tokens, 2) if packing.first else ([group.rows for group in packing.groups], 0)
    return zip(query.split(tokens, 2), *(each.split(sizes, axis) for each in cached), strict=True)


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
