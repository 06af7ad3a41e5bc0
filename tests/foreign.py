"""Checkpoints as others write them, made of a model of ours."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from coconut_lm import CoconutForCausalLM, word_tokenizer

WINDOW = [0.1, 0.5, 2.0]  # in the order of the text: the newest state counts most


def tokenizer() -> object:
    """62 words, <eos> and <unk>: the latent tokens get the ids 64, 65 and 66 of the tiny models."""
    return word_tokenizer([" ".join(f"w{number}" for number in range(60))])


def published(model: CoconutForCausalLM) -> dict[str, Tensor]:
    """All that a state dict of the wrapper holds: the table thrice where the head is tied to it."""
    tensors = {f"base_causallm.{name}": t for name, t in model.base_causallm.state_dict().items()}
    return tensors | {"embedding.weight": model.get_input_embeddings().weight.detach()}


def published_file(model: CoconutForCausalLM, path: Path) -> Path:
    torch.save(published(model), path)
    return path


def plain_file(model: CoconutForCausalLM, path: Path) -> Path:
    torch.save(model.base_causallm.state_dict(), path)
    return path


def window_file(model: CoconutForCausalLM, path: Path) -> Path:
    torch.save(published(model) | {"latent_weights": torch.tensor(WINDOW)}, path)
    return path


def mlx_file(model: CoconutForCausalLM, path: Path) -> Path:
    """GPT-2 without `transformer.`, its matrices turned, causal masks among the parameters, no head."""
    modules = dict(model.base_causallm.named_modules())
    tensors = {}
    for name, tensor in model.base_causallm.state_dict().items():
        turned = isinstance(modules[name.rpartition(".")[0]], Conv1D) and name.endswith("weight")
        tensors[f"base_causallm.{name.removeprefix('transformer.')}"] = (
            tensor.T if turned else tensor
        ).clone()
    del tensors["base_causallm.lm_head.weight"]
    for layer in range(2):
        tensors[f"base_causallm.h.{layer}.attn.mask"] = torch.ones(128, 128).tril()
    tensors["embedding.weight"] = tensors["base_causallm.wte.weight"].clone()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
