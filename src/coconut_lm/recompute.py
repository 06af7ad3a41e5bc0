"""Activation checkpointing that knows the cache.

transformers drops the cache when a layer is checkpointed, and a thought cannot do without it. Here a layer is
recomputed against its cache as it was before the layer ran, so the second run sees what the first one saw.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer


def enable(model: nn.Module, checkpoint: Callable[..., Any]) -> None:
    """Makes every block of `model` keep its inputs only, and run again in the backward pass."""
    for index, block in enumerate(_blocks(model)):
        block.forward = partial(_forward, block, index, checkpoint)


def disable(model: nn.Module) -> None:
    for block in _blocks(model):
        block.__dict__.pop("forward", None)


def _blocks(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _forward(
    block: nn.Module, index: int, checkpoint: Callable[..., Any], *args: Any, **kwargs: Any
) -> torch.Tensor:
    plain = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return plain(*args, **kwargs)
    cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    if cache is None:
        return checkpoint(plain, *args, **kwargs)
    before = copy.copy(cache.layers[index])
    first = True

    def run(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal first
        if first:
            first = False
            return plain(*args, **kwargs)
        now, cache.layers[index] = cache.layers[index], copy.copy(before)
        try:
            return plain(*args, **kwargs)
        finally:
            cache.layers[index] = now

    return checkpoint(run, *args, **kwargs)
