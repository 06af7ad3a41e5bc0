"""Matrix products of a model in float32 on CPUs where torch's own are slow.

torch multiplies float32 matrices with MKL, which leaves half of an AMD processor idle; oneDNN, which torch
brings along, does not (docs/log.md). The rule looks at the machine and the shapes alone, never at a clock:
a seed must give the same numbers every time.

Shapes: N rows (of any number of dimensions), I features in, O features out.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

DTYPE = torch.float32
WORTH = 2**22  # multiplications of a product from which on it pays to leave torch's own way


def install(model: nn.Module) -> None:
    """Linear layers of `model` go by oneDNN where that is faster. They stay what they are: the same names,
    weights and base classes; quantised and other special ones are left alone."""
    if pays():
        for module in model.modules():
            if type(module) in _OURS:
                module.__class__ = _OURS[type(module)]


@cache
def pays() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available() and _amd()


def _amd() -> bool:
    told = Path("/proc/cpuinfo")
    text = told.read_text(encoding="utf-8", errors="replace") if told.exists() else platform.processor()
    return "AuthenticAMD" in text


class FastLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if not _suits(input, self.weight):
            return super().forward(input)
        return _apply(input, self.weight, self.bias)


class FastConv1D(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        if not _suits(x, self.weight):
            return super().forward(x)
        return _apply(x, self.weight.t(), self.bias)


_OURS: dict[type, type] = {nn.Linear: FastLinear, Conv1D: FastConv1D}


def _suits(x_NI: Tensor, weight: Tensor) -> bool:
    return (
        x_NI.dtype is DTYPE
        and x_NI.dim() > 1
        and type(weight) in (nn.Parameter, Tensor)  # a shard's weight is another kind
        and weight.dtype is DTYPE
        and x_NI.device.type == "cpu" == weight.device.type
        and x_NI.numel() // max(1, x_NI.shape[-1]) * weight.numel() >= max(1, WORTH)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _apply(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    if torch.is_grad_enabled():
        product: Tensor = _Product.apply(x_NI, weight_OI, bias_O)
        return product
    return _product(x_NI, weight_OI, bias_O)


def _product(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, weight_OI, bias_O, "none", [], "")
    return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        learned = ctx.needs_input_grad[1]
        ctx.save_for_backward(x_NI if learned else None, weight_OI)
        return _product(x_NI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_NI, weight_OI = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grads = grad_NO.flatten(0, -2)
        return (
            _product(grad_NO, weight_OI.t()) if wanted[0] else None,
            _product(grads.t(), x_NI.flatten(0, -2).t()) if wanted[1] else None,
            grads.sum(0) if wanted[2] else None,
        )
