"""One pass through a base model: the columns that follow those in the cache.

Where attention is torch's and every layer sees all columns, padding is not computed and the mask is made
here; any other base is run as it is.

Shapes: B rows, T columns, those in the cache included, W columns of this pass, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from coconut_lm import packing
from coconut_lm.errors import UserError
from coconut_lm.packing import Packing
from coconut_lm.passcache import PassCache

LAST = -1  # the layer whose states the head reads


def run(
    base: PreTrainedModel,
    embeds_BWD: Tensor,
    mask_BT: Tensor,
    position_ids: Tensor,
    cache: Cache | None,
    real_BT: Tensor | None = None,
    layer: int = LAST,
) -> tuple[Tensor, Tensor]:
    """The last hidden states (B, W, D), and those of `layer`, numbered as transformers numbers them: 0 is
    what goes in. `real` is the mask on the host: with it no device is waited for."""
    columns = embeds_BWD.shape[1]
    packed: Packing | None = None
    mask: Tensor | None = mask_BT
    if packing.installed(base) and (cache is None or isinstance(cache, PassCache)):
        known_BT = _known(mask_BT, real_BT, columns)
        packed, mask = _packing(known_BT, columns, embeds_BWD.device), _mask(mask_BT, known_BT, columns)
        if isinstance(cache, PassCache):
            cache.expect(packed)
    if packed is not None:
        embeds_BWD, position_ids = packed.pack(embeds_BWD), packed.pack(position_ids)
    output = base.base_model(
        inputs_embeds=embeds_BWD,
        attention_mask=mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=cache is not None,
        **({} if packed is None else {"packing": packed}),
        **({} if layer == LAST else {"output_hidden_states": True}),
    )
    last: Tensor = output.last_hidden_state
    inner: Tensor = last if layer == LAST else _inner(output.hidden_states, layer)
    if packed is not None:
        whole = packed.unpack(last)
        last, inner = whole, whole if inner is last else packed.unpack(inner)
    return last, inner


def _inner(states: Sequence[Tensor], layer: int) -> Tensor:
    if not -len(states) <= layer < len(states):
        raise UserError(
            "the model has no such layer", given=layer, expected=f"{-len(states)} to {len(states) - 1}"
        )
    return states[layer]


def _known(mask_BT: Tensor, real_BT: Tensor | None, columns: int) -> Tensor | None:
    """What is known of the padding. For a single column it is not worth waiting for a device."""
    if real_BT is not None or mask_BT.device.type == "cpu":
        return mask_BT if real_BT is None else real_BT
    return mask_BT.cpu() if columns > 1 else None


def _mask(mask_BT: Tensor, known_BT: Tensor | None, columns: int) -> Tensor | None:
    """None where attention need not be told: nothing is padded, and the newest or the whole is read."""
    simple = columns in (1, mask_BT.shape[1])
    if simple and known_BT is not None and bool(known_BT.all()):
        return None
    return packing.attention_mask(mask_BT, columns)


def _packing(known_BT: Tensor | None, columns: int, device: torch.device) -> Packing | None:
    if known_BT is None or columns == 1:
        return None
    return Packing.found(known_BT[:, -columns:], device, first=columns == known_BT.shape[1])
