"""What computes: torch, or MLX."""

import importlib.util
import platform
from typing import Literal

from coconut_lm.errors import UserError

Backend = Literal["torch", "mlx"]
Asked = Literal["auto", "torch", "mlx"]


def mlx_is_there() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("mlx", "mlx_lm"))


def choose(asked: Asked = "auto") -> Backend:
    """Auto is MLX on Apple silicon where it is installed, else torch."""
    there = mlx_is_there()
    if asked == "auto":
        return "mlx" if there and (platform.system(), platform.machine()) == ("Darwin", "arm64") else "torch"
    if asked == "mlx" and not there:
        raise UserError("MLX is not installed", given="backend: mlx", do='pip install "coconut-lm[mlx]"')
    return asked
