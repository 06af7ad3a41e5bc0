"""Noise on thoughts: the kinds and schedules as pure functions.

A draw is keyed by integers (seed, example, scale, branch, thought), so the same key gives the same noise
whatever the batch, the order or the device. Kinds and their names follow NoisyCoconut (arXiv 2605.08221).

Shapes: B rows, D width, K thoughts, 1 one number a row.
"""

import math
import struct
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from coconut_lm.errors import UserError

EPS = 1e-8
Scale = float | Tensor  # one for all rows, or one a row (B, 1)
Kind = Callable[[Tensor, Scale, Tensor], Tensor]
Schedule = Callable[[float, int, int, float], float]


def _norm(h_BD: Tensor) -> Tensor:
    return h_BD.norm(dim=-1, keepdim=True)


def _unit(g_BD: Tensor) -> Tensor:
    return g_BD / (_norm(g_BD) + EPS)


def gaussian(h_BD: Tensor, scale: Scale, g_BD: Tensor) -> Tensor:
    """Adds `scale` times `g_BD`, which is standard normal: as much to a short thought as to a long one."""
    return h_BD + scale * g_BD


def gaussian_scaled(h_BD: Tensor, scale: Scale, g_BD: Tensor) -> Tensor:
    """The noise is `scale` times as long as the thought."""
    return h_BD + scale * _norm(h_BD) * _unit(g_BD)


def snr(h_BD: Tensor, scale: Scale, g_BD: Tensor) -> Tensor:
    """The thought is `scale` times as long as the noise (a ratio of norms, not of powers)."""
    return h_BD + _norm(h_BD) / scale * _unit(g_BD)


def uniform(h_BD: Tensor, scale: Scale, u_BD: Tensor) -> Tensor:
    """`u_BD` is uniform in [0, 1)."""
    return h_BD + scale * (2 * u_BD - 1)


def orthogonal(h_BD: Tensor, scale: Scale, g_BD: Tensor) -> Tensor:
    """Turns the thought without moving along it."""
    along = (g_BD * h_BD).sum(-1, keepdim=True) / (_norm(h_BD) ** 2 + EPS)
    return h_BD + scale * _norm(h_BD) * _unit(g_BD - along * h_BD)


def targeted_same(h_BD: Tensor, scale: Scale, _: Tensor) -> Tensor:
    """Lengthens the thought; its direction stays."""
    return h_BD * (1 + scale)


def targeted_opposite(h_BD: Tensor, scale: Scale, _: Tensor) -> Tensor:
    """Shortens the thought, and turns it over where `scale` is above 1."""
    return h_BD * (1 - scale)


def dropout(h_BD: Tensor, scale: Scale, u_BD: Tensor) -> Tensor:
    """Zeroes each number with probability `scale`; no rescaling. `u_BD` is uniform in [0, 1)."""
    return h_BD * (u_BD >= scale).to(h_BD.dtype)


KINDS: dict[str, Kind] = {
    "gaussian": gaussian,
    "gaussian_scaled": gaussian_scaled,
    "snr": snr,
    "uniform": uniform,
    "orthogonal": orthogonal,
    "targeted_same": targeted_same,
    "targeted_opposite": targeted_opposite,
    "dropout": dropout,
}
UNIFORM = {"uniform", "dropout"}  # kinds whose draws are uniform in [0, 1) instead of normal


def check_scales(kind: str, scales: Sequence[float]) -> None:
    """Refuses scales that a kind has not."""
    for scale in scales:
        if not 0 <= scale < math.inf:  # nor is it nan
            raise UserError("a scale of noise is a number from 0 on", given=f"{scale:g}")
        if kind == "snr" and scale == 0:
            raise UserError(
                "an snr of 0 is noise without end",
                given="0",
                expected="how many times as long as its noise a thought is: more than 0",
                do="leave it out: the clean run is made anyway",
            )
        if kind == "dropout" and scale > 1:
            raise UserError("dropout has a probability", given=f"{scale:g}", expected="0 to 1")


def perturb(kind: str, h_BD: Tensor, scale_B1: Tensor, g_BD: Tensor) -> Tensor:
    """Each row at its own scale; one of scale 0 stays as it is, bit for bit."""
    some_B1 = torch.where(scale_B1 > 0, scale_B1, torch.ones_like(scale_B1))
    return torch.where(scale_B1 > 0, KINDS[kind](h_BD, some_B1, g_BD), h_BD)


def label(kind: str, scale: float) -> str:
    """The kind and the scale, in as few letters as tell it from any other."""
    return f"{kind} {scale!r}".removesuffix(".0")


def scale_key(scale: float) -> int:
    """The part of a key that tells scales apart: the float's own bits."""
    return int.from_bytes(struct.pack(">d", scale), "big")


def draw(kind: str, keys: Sequence[Sequence[int]], like_BD: Tensor) -> Tensor:
    """One row of random numbers per key, made on the host so that every device gets the same."""
    rows = []
    for key in keys:
        rng = np.random.default_rng(list(key))
        size = like_BD.shape[-1]
        rows.append(rng.random(size) if kind in UNIFORM else rng.standard_normal(size))
    return torch.as_tensor(np.stack(rows)).to(like_BD)


SCHEDULES: dict[str, Schedule] = {
    # (scale, step, steps, decay) -> the scale of this step
    "none": lambda scale, step, steps, decay: 0.0,
    "constant": lambda scale, step, steps, decay: scale,
    "linear": lambda scale, step, steps, decay: scale * (1 - step / steps),
    "cosine": lambda scale, step, steps, decay: scale * (1 + math.cos(math.pi * step / steps)) / 2,
    "exponential": lambda scale, step, steps, decay: scale * math.exp(-decay * step),
    # The thought's norm over its running mean multiplies this one; who keeps the mean applies it.
    "adaptive": lambda scale, step, steps, decay: scale * math.exp(-decay * step),
}


def diagnostics(kind: str, scale: float, clean_KD: Tensor, noisy_KD: Tensor) -> dict[str, float | str]:
    """What the noise did to these thoughts, averaged over them."""
    clean_KD, noisy_KD = clean_KD.double(), noisy_KD.double()
    noise_KD = noisy_KD - clean_KD
    clean, noise, noisy = (_norm(x).squeeze(-1) for x in (clean_KD, noise_KD, noisy_KD))
    report: dict[str, float | str] = {
        "noise_type": kind,
        "noise_scale": scale,
        "original_norm": clean.mean().item(),
        "noise_norm": noise.mean().item(),
        "perturbed_norm": noisy.mean().item(),
        "norm_change_ratio": (noisy / (clean + EPS)).mean().item(),
    }
    extra: dict[str, Callable[[], dict[str, float | str]]] = {
        "gaussian_scaled": lambda: {"scale_ratio": (noise / (clean + EPS)).mean().item()},
        "snr": lambda: {
            "target_snr": scale,
            "actual_snr": (clean / (noise + EPS)).mean().item(),
            "signal_power": (clean**2).mean().item(),
            "noise_power": (noise**2).mean().item(),
        },
        "orthogonal": lambda: {
            "orthogonality": ((clean_KD * noise_KD).sum(-1) / (clean * noise + EPS)).abs().mean().item()
        },
        "targeted_same": lambda: {"direction": "same"},
        "targeted_opposite": lambda: {"direction": "opposite"},
        "dropout": lambda: {"dropout_prob": min(scale, 1.0)},
    }
    return report | extra.get(kind, dict)()
