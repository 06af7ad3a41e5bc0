"""What a forward refuses, in words. Shapes are checked always, ids where the device is waited for anyway.

Shapes: B rows, T columns, those in a cache included; `input_ids` may be the last of them only.
"""

import torch
from torch import Tensor

from coconut_lm.errors import UserError


def attention_mask(input_ids: Tensor, mask_BT: Tensor | None, seen: int) -> Tensor:
    """The mask of all columns, made where there is none."""
    if input_ids.dim() != 2 or 0 in input_ids.shape:
        raise UserError(
            "nothing to read",
            given=f"input_ids of shape {tuple(input_ids.shape)}",
            expected="rows x columns, at least one of each",
        )
    shape = (input_ids.shape[0], seen + input_ids.shape[1])
    if mask_BT is None:
        return torch.ones(shape, dtype=torch.long, device=input_ids.device)
    if mask_BT.shape != shape:
        raise UserError(
            "the attention mask does not fit the input",
            given=tuple(mask_BT.shape),
            expected=f"{shape}: one number per token, those in the cache included",
        )
    return mask_BT


def length(mask_BT: Tensor, limit: int | None) -> None:
    if limit is None or mask_BT.shape[1] <= limit:
        return
    longest = int(mask_BT.sum(1).max())
    if longest > limit:
        raise UserError(
            "the text is longer than the model's positions",
            given=f"{longest} tokens",
            expected=f"at most {limit}",
            do="shorten the question, or set max_seq_length",
        )


def vocabulary(input_ids: Tensor, size: int) -> None:
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= size:
        raise UserError(
            "token ids beyond the vocabulary",
            given=f"ids from {low} to {high}",
            expected=f"0 to {size - 1}",
            do="use the tokenizer that was saved with the model",
        )


def begins_with_latent(is_latent_BT: Tensor, mask_BT: Tensor) -> None:
    first_BT = (mask_BT.cumsum(1) == 1) & mask_BT.bool()
    if bool((is_latent_BT & first_BT).any()):
        raise UserError(
            "a row begins with a latent",
            given="<|latent|> as the first token",
            expected="at least one token before it: a thought is the state of the token before",
        )
