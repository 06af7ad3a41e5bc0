"""What is asked of a base model, whatever its architecture: to load, to score states, to say its limits."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.activations import NewGELUActivation

from coconut_lm.errors import UserError


def shape(source: str | os.PathLike[str], **kwargs: Any) -> PreTrainedConfig:
    """What a folder, a JSON file or a hub id says of a model. Code that comes with it is never run."""
    return AutoConfig.from_pretrained(source, trust_remote_code=False, **kwargs)


def load(
    source: str | os.PathLike[str],
    vocabulary_size: int,
    end: int | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> PreTrainedModel:
    """A hub id or folder with its weights; a config JSON as a new model with a row for each token, for texts
    that end with token `end`."""
    if str(source).endswith(".json"):
        ends = {"bos_token_id": end, "eos_token_id": end} if end is not None else {}
        return new(shape(source, vocab_size=vocabulary_size, **ends), **kwargs)
    if "quantization" in PreTrainedConfig.get_config_dict(source)[0]:
        raise UserError(
            f"{source} holds weights that mlx_lm has quantised",
            do="make whole ones of them: coconut-lm convert FOLDER OUT --to hf",
        )
    return AutoModelForCausalLM.from_pretrained(source, trust_remote_code=trust_remote_code, **kwargs)


def forget_quantised(config: PreTrainedConfig) -> None:
    """What mlx_lm adds where it has quantised the weights."""
    if hasattr(config, "quantization"):
        del config.quantization, config.quantization_config


def new(config: PreTrainedConfig, **kwargs: Any) -> PreTrainedModel:
    """From scratch; quantised weights are for models that have some."""
    if "quantization_config" in kwargs:
        raise UserError("a model from scratch has no weights to quantise", do="leave lora.quantize out")
    return AutoModelForCausalLM.from_config(config, trust_remote_code=False, **kwargs)


def fuse_gelu(base: PreTrainedModel) -> None:
    """GPT-2's GELU keeps a tensor for each of its eight operations; torch has the same formula as one."""
    for module in list(base.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def logits(base: PreTrainedModel, hidden_BTD: Tensor) -> Tensor:
    """The base's own way from last hidden states to logits (soft caps, scales), its blocks left out."""
    stand_in: Any = _Answered(base, hidden_BTD)
    return type(base).forward(stand_in, inputs_embeds=hidden_BTD, use_cache=False).logits


def input_scale(config: PreTrainedConfig) -> float:
    """By what a model multiplies the embeddings it is handed; a thought must arrive unscaled.

    Granite and its kin do so. Gemma scales in its embedding layer, before anything is handed over.
    """
    return float(getattr(config, "embedding_multiplier", None) or 1.0)


def positions(config: PreTrainedConfig) -> int | None:
    """How many tokens the model can place, where it says so."""
    return getattr(config, "max_position_embeddings", None)


@torch.no_grad()
def mean_embedding_norm(model: PreTrainedModel) -> float:
    """The mean length of the embeddings as the first block sees them."""
    embedding: nn.Module = model.get_input_embeddings()
    weight: Any = embedding.weight
    rows = torch.arange(len(weight), device=weight.device)
    norm = torch.cat([embedding(part).float().norm(dim=-1) for part in rows.split(4096)]).mean().item()
    return norm * input_scale(model.config.get_text_config())


class _Answered:
    """A causal LM whose transformer has already run: it answers with the states it is given."""

    def __init__(self, base: PreTrainedModel, hidden_BTD: Tensor) -> None:
        self._base, self._hidden = base, hidden_BTD

    def __getattr__(self, name: str) -> Any:
        if name == self._base.base_model_prefix:
            return lambda *args, **kwargs: _States(self._hidden)
        return getattr(self._base, name)


class _States:
    """A transformer's output that holds its last hidden states; everything else in it is None."""

    def __init__(self, last_hidden_state: Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]
