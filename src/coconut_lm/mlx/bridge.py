"""Numbers from torch to MLX and back, through numpy, bit for bit; float64 becomes float32."""

import mlx.core as mx
import numpy as np
import torch
from torch import Tensor

TYPES = {
    mx.float32: torch.float32,
    mx.float16: torch.float16,
    mx.bfloat16: torch.bfloat16,
    mx.float64: torch.float64,
}


def to_mlx(tensor: Tensor) -> mx.array:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has none
        return mx.array(tensor.view(torch.uint16).numpy()).view(mx.bfloat16)
    return mx.array(tensor.float().numpy() if tensor.dtype == torch.float64 else tensor.numpy())


def to_torch(array: mx.array) -> Tensor:
    if array.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(array.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))
