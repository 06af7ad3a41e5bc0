"""Rows for the new tokens in a base model's embeddings, input and (untied) output."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coconut_lm import tokens
from coconut_lm.errors import UserError

INITS = ("<<", "mean", "random")


@torch.no_grad()
def grow(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, init: str = "<<") -> tokens.LatentTokens:
    """Gives the latent tokens of `tokenizer` rows in `base`, made from the rows of older tokens.

    "<<": the row of that text's first token (the reference's choice), "mean": the mean row, "random": normal
    numbers with the mean and spread of the old rows.
    """
    if init not in INITS:
        raise UserError("unknown new_token_init", given=init, expected=", ".join(INITS))
    latent = tokens.latent_tokens(tokenizer)
    new = [t for t in (latent.start, latent.end, latent.latent, latent.pause) if t is not None]
    if len(tokenizer) > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = tokens.seed_token(tokenizer) if init == "<<" else None
    for table in _tables(base):
        table[new] = _rows(table, new, model, init)
    return latent


def _tables(base: PreTrainedModel) -> list[nn.Parameter]:
    """The input table, and the output table where it is another one."""
    modules: list[nn.Module | None] = [base.get_input_embeddings(), base.get_output_embeddings()]
    weights = [module.get_parameter("weight") for module in modules if module is not None]
    return weights[:1] if len(weights) == 2 and weights[0] is weights[1] else weights


def _rows(table: Tensor, new: Sequence[int], model: int | None, init: str) -> Tensor:
    if model is not None:
        return table[model].clone()
    old = table[: min(new)].float()
    mean, spread = old.mean(0), old.std(0) if init == "random" else 0.0
    return (mean + spread * torch.randn(len(new), table.shape[1]).to(mean)).to(table.dtype)
