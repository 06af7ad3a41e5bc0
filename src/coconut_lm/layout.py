"""A base's weights and configuration under the names and in the layout that mlx_lm reads, and back.

Only what mlx_lm does not do itself when it loads a folder of transformers.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coconut_lm.errors import UserError

GPT2 = "transformer."  # mlx_lm's GPT-2 has none
EXPERTS = ("experts.gate_up_proj", "experts.down_proj")  # gpt-oss: mlx_lm knows those in 4 bits
SCALES = ".scales"


def held(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def ties(base: PreTrainedModel) -> dict[str, str]:
    """Names of a tensor that has another one already, and that one."""
    first: dict[int, str] = {}
    state = base.state_dict(keep_vars=True)
    named = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    return {name: other for name, other in named.items() if name != other}


def transposed(base: PreTrainedModel) -> list[str]:
    """Names of GPT-2's matrices, which lie the other way round than those of linear layers."""
    return [f"{name}.weight" for name, module in base.named_modules() if isinstance(module, Conv1D)]


def to_mlx(base: PreTrainedModel) -> dict[str, Tensor]:
    """Each tensor once."""
    again, kind = ties(base), base.config.model_type
    return {
        _theirs(name, kind): _turned(name, t, kind) for name, t in held(base).items() if name not in again
    }


def from_mlx(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of a base of this `model_type`; tied ones are to be added."""
    named = {_ours(name, kind): tensor for name, tensor in tensors.items()}
    return {name: _turned(name, tensor, kind) for name, tensor in named.items()}


def _theirs(name: str, kind: str) -> str:
    if kind == "gpt2":
        return name.removeprefix(GPT2)
    return f"{name}.weight" if kind == "gpt_oss" and name.endswith(EXPERTS) else name


def _ours(name: str, kind: str) -> str:
    if kind == "gpt2":
        return name if name.startswith((GPT2, "lm_head", "feedback.")) else GPT2 + name
    plain = name.removesuffix(".weight")
    return plain if kind == "gpt_oss" and plain.endswith(EXPERTS) else name


def _turned(name: str, tensor: Tensor, kind: str) -> Tensor:
    """Experts with the numbers that go in last, as a linear layer has them."""
    if kind == "gpt_oss" and name.endswith(EXPERTS):
        return tensor.transpose(-1, -2).contiguous()
    return tensor


def dequantised(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that mlx_lm has quantised, made whole; `settings` is its `quantization` in config.json."""
    made = dict(tensors)
    for name in [name for name in tensors if name.endswith(SCALES)]:
        module = name.removesuffix(SCALES)
        own = {**settings, **(settings.get(module) or {})}
        bits, mode = own.get("bits"), own.get("mode", "affine")
        if bits not in (2, 4, 8) or mode != "affine":
            raise UserError(
                f"{module} is quantised in a way that is not read here",
                given=f"{mode}, {bits} bits",
                expected="affine, 2, 4 or 8 bits",
                do="take the weights that were not quantised",
            )
        packed, scales = made[f"{module}.weight"], made.pop(name)
        made[f"{module}.weight"] = _whole(packed, scales, made.pop(f"{module}.biases"), bits)
    return made


def _whole(packed: Tensor, scales: Tensor, biases: Tensor, bits: int) -> Tensor:
    """Of words of 32 bits, the lowest first; a group of numbers has a scale and a bias."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    numbers = (packed.view(torch.int32)[..., None] >> shifts) & (2**bits - 1)
    groups = numbers.reshape(*scales.shape, -1).float()
    whole = groups * scales[..., None].float() + biases[..., None].float()
    return whole.flatten(-2).to(scales.dtype)


def config_for_mlx(config: PreTrainedConfig) -> dict[str, Any]:
    """The base's keys, with the names that mlx_lm reads beside those that transformers writes today."""
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    if content["model_type"] == "gpt2":
        content["n_ctx"] = content["n_positions"]
    rope = content.get("rope_parameters") or {}
    local, rope = rope.get("sliding_attention"), rope.get("full_attention", rope)
    if rope:
        content["rope_theta"] = rope["rope_theta"]
        content["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    if local:
        content["rope_local_base_freq"] = local["rope_theta"]
    return content
