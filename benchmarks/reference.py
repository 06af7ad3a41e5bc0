"""Two slow ways to the same numbers: the published algorithm as first implemented, and an oracle.

`reference_*` is the algorithm as the authors of Coconut (arXiv 2412.06769) run it: K + 1 cached passes, all
hidden states and logits of every pass kept, embeddings rebuilt from lists, decoding without a cache. It is
what `bench.py` times. `oracle_*` has neither cache nor padding nor batch, and every thought costs a whole
forward: too simple to be wrong, and what every fast path must equal.

Shapes: B rows, T columns, D width, V vocabulary. Model arguments are causal language models of transformers.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

Feedback = Callable[[Tensor], Tensor]
IGNORED = -100


# The published algorithm


def reference_loss(
    model: PreTrainedModel,
    latent_id: int,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    position_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over the supervised tokens of a latent-aligned batch, and all logits (B, T, V)."""
    logits_BTV, _ = latent_passes(model, latent_id, input_ids, attention_mask, position_ids)
    targets = labels[:, 1:].reshape(-1)
    loss = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets, ignore_index=IGNORED)
    return loss, logits_BTV


@torch.no_grad()
def reference_generate(
    model: PreTrainedModel, latent_id: int, eos_id: int, prompt_ids: Sequence[int], max_new_tokens: int
) -> list[int]:
    """Prompt and greedy continuation; the first new token is kept even if it ends the text."""
    input_ids = torch.tensor([prompt_ids], device=_device(model))
    positions = torch.arange(len(prompt_ids), device=input_ids.device)[None]
    logits_BTV, embeds_BTD = latent_passes(model, latent_id, input_ids, torch.ones_like(input_ids), positions)
    embed = model.get_input_embeddings()
    token = int(logits_BTV[0, -1].argmax().item())
    output = [*prompt_ids, token]
    for _ in range(max_new_tokens - 1):
        new_B1D = embed(torch.tensor([[token]], device=input_ids.device))
        embeds_BTD = torch.cat([embeds_BTD, new_B1D], dim=1)
        token = int(model(inputs_embeds=embeds_BTD).logits[0, -1].argmax().item())
        if token == eos_id:
            break
        output.append(token)
    return output


def latent_passes(
    model: PreTrainedModel, latent_id: int, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) of all passes, and the input embeddings (B, T, D) with thoughts filled in."""
    latents = latent_columns(input_ids, latent_id)
    passes = max(len(columns) for columns in latents)
    embeds_BTD = model.get_input_embeddings()(input_ids)
    # Without a config the cache keeps every column of sliding-window layers too: it can be cut anywhere.
    cache = DynamicCache()
    logits = []
    for number, (start, end) in enumerate(pairwise(_bounds(latents, passes, input_ids.shape[1]))):
        _cut(cache, start)
        outputs = model(
            inputs_embeds=embeds_BTD[:, start:end],
            attention_mask=attention_mask[:, :end],
            position_ids=position_ids[:, start:end],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        logits.append(outputs.logits)
        if number < passes:
            thoughts = {
                (row, columns[number]): outputs.hidden_states[-1][row, columns[number] - 1 - start]
                for row, columns in enumerate(latents)
                if number < len(columns)
            }
            embeds_BTD = _rebuilt(embeds_BTD, thoughts)
    return torch.cat(logits, dim=1), embeds_BTD


def latent_columns(input_ids: Tensor, latent_id: int) -> list[list[int]]:
    """The columns of each row's latents, every one read from the device by itself."""
    columns: list[list[int]] = [[] for _ in range(input_ids.shape[0])]
    for row, column in (input_ids == latent_id).nonzero():
        columns[int(row.item())].append(int(column.item()))
    return columns


def _bounds(latents: list[list[int]], passes: int, length: int) -> list[int]:
    """Where passes begin and end: to the first latent, one column for each further latent, the rest."""
    first = min((columns[0] for columns in latents if columns), default=length)
    return [0, *range(first, first + passes), length]


def _cut(cache: DynamicCache, start: int) -> None:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :start], layer.values[:, :, :start]


def _rebuilt(embeds_BTD: Tensor, thoughts: dict[tuple[int, int], Tensor]) -> Tensor:
    """The embeddings taken apart into one tensor a position and stacked again, thoughts in their places."""
    rows, columns = embeds_BTD.shape[:2]
    parts = [[embeds_BTD[row, column] for column in range(columns)] for row in range(rows)]
    for (row, column), thought in thoughts.items():
        parts[row][column] = thought
    return torch.stack([torch.stack(row) for row in parts])


# The oracle


def oracle_loss(
    model: PreTrainedModel,
    latent_id: int,
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    feedback: Feedback | None = None,
) -> Tensor:
    """The mean cross-entropy over all supervised tokens of the rows, each a pair of ids and labels."""
    losses = []
    for ids, labels in rows:
        logits_TV = oracle_logits(model, latent_id, ids, feedback)
        targets = torch.tensor(labels[1:], device=logits_TV.device)
        kept = targets != IGNORED
        losses.append(cross_entropy(logits_TV[:-1][kept], targets[kept], reduction="none"))
    return torch.cat(losses).mean()


def oracle_logits(
    model: PreTrainedModel, latent_id: int, ids: Sequence[int], feedback: Feedback | None = None
) -> Tensor:
    """The logits (T, V) of one row."""
    return _whole_forward(model, oracle_embeds(model, latent_id, ids, feedback)[None]).logits[0]


@torch.no_grad()
def oracle_generate(
    model: PreTrainedModel,
    latent_id: int,
    eos_id: int,
    prompt: Sequence[int],
    max_new_tokens: int,
    feedback: Feedback | None = None,
) -> list[int]:
    """Prompt and greedy continuation up to the end token (not kept); a latent is never emitted."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        logits_V = oracle_logits(model, latent_id, ids, feedback)[-1]
        logits_V[latent_id] = -torch.inf
        token = int(logits_V.argmax())
        if token == eos_id:
            break
        ids.append(token)
    return ids


def oracle_embeds(
    model: PreTrainedModel, latent_id: int, ids: Sequence[int], feedback: Feedback | None = None
) -> Tensor:
    """The input embeddings (T, D) of one row: each latent's is what `feedback` makes of the hidden states
    (columns so far, D) before it, the last of them unless told otherwise."""
    embeds_TD = model.get_input_embeddings()(torch.tensor(ids, device=_device(model)))
    scale = embedding_scale(model)
    for column, token in enumerate(ids):
        if token == latent_id:
            assert column > 0, "a row cannot begin with a latent: nothing stands before it"
            history_TD = _whole_forward(model, embeds_TD[None, :column]).hidden_states[-1][0]
            thought_D = history_TD[-1] if feedback is None else feedback(history_TD)
            embeds_TD = torch.cat([embeds_TD[:column], thought_D[None] / scale, embeds_TD[column + 1 :]])
    return embeds_TD


@torch.no_grad()
def embedding_scale(model: PreTrainedModel) -> float:
    """The factor by which a model multiplies `inputs_embeds` on the way to its first block, mostly 1.

    A thought must reach that block unscaled. The factor is measured, not looked up: an input goes in and
    twice that input, their difference comes out as hidden_states[0], rid of what is added for positions. A
    model that does more to its input than multiply it (a norm, a projection) counts as 1.
    """
    modes = [(module, module.training) for module in model.modules()]
    weight_VD = model.get_input_embeddings().weight
    # Powers of two, far larger than any position embedding: exact in every dtype. Not all alike: norms show.
    probe_D = 64 * (1 + torch.arange(weight_VD.shape[1], device=weight_VD.device) % 2).to(weight_VD.dtype)
    model.eval()
    first_BTD = _whole_forward(model, torch.stack([probe_D, 2 * probe_D])[:, None]).hidden_states[0]
    for module, training in modes:
        module.training = training
    if first_BTD.shape[-1:] != probe_D.shape:
        return 1.0
    factor_D = (first_BTD[1, 0] - first_BTD[0, 0]) / probe_D
    factor = factor_D.median().item()
    multiplied = factor > 1e-3 and bool(((factor_D - factor).abs() < 1e-2 * factor).all())
    return factor if multiplied and abs(factor - 1) > 1e-2 else 1.0


def _whole_forward(model: PreTrainedModel, embeds_BTD: Tensor) -> CausalLMOutputWithPast:
    positions = torch.arange(embeds_BTD.shape[1], device=embeds_BTD.device)[None]
    return model(inputs_embeds=embeds_BTD, position_ids=positions, use_cache=False, output_hidden_states=True)


def _device(model: PreTrainedModel) -> torch.device:
    return model.get_input_embeddings().weight.device
