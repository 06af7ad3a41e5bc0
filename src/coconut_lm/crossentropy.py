"""The loss at the supervised positions, with one tensor of the size of the logits where autograd keeps three.

Shapes: N supervised positions, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PART = 128  # positions at a time


def summed(logits_NV: Tensor, targets_N: Tensor, spend: bool = False) -> Tensor:
    """The sum of the cross-entropies, in float32 at least. With `spend` nobody else has the logits, and what
    is made of them takes their place."""
    halved = logits_NV.dtype in (torch.float16, torch.bfloat16)
    wide_NV = logits_NV.float() if halved else logits_NV
    if not (spend and torch.is_grad_enabled()):
        return F.cross_entropy(wide_NV, targets_N, reduction="sum")
    total: Tensor = _Spent.apply(wide_NV, targets_N)
    return total


class _Spent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        parts = [part.logsumexp(-1) for part in logits_NV.split(PART)]  # each makes a copy of its part
        norm_N = torch.cat(parts) if parts else logits_NV.new_zeros(0)
        ctx.save_for_backward(logits_NV, norm_N, targets_N)
        return (norm_N - logits_NV.gather(1, targets_N[:, None])[:, 0]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits_NV, norm_N, targets_N = ctx.saved_tensors
        probability_NV = logits_NV.sub_(norm_N[:, None]).exp_()
        probability_NV.scatter_add_(1, targets_N[:, None], -torch.ones_like(norm_N)[:, None])
        return probability_NV.mul_(grad), None
