"""Low-rank adapters on MLX: peft's, taken over, trained and given back under its names."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import torch
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear
from torch import Tensor

from coconut_lm.errors import UserError
from coconut_lm.mlx import base as bases
from coconut_lm.mlx.bridge import to_mlx, to_torch
from coconut_lm.mlx.model import Coconut, of
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.weights import FEEDBACK, PREFIX

NAME = "default"  # of the only adapter there is
DELTA = f".trainable_tokens_delta.{NAME}"
KEPT = f"modules_to_save.{NAME}."


def adapted(heart: CoconutForCausalLM) -> tuple[Coconut, dict[str, str]]:
    """The model inside peft's, where only what peft trains is not frozen: torch's names of that, and ours."""
    net = of(plain(heart))
    net.freeze()
    learned = {name: weight for name, weight in heart.named_parameters() if weight.requires_grad}
    names = _adapters(net, heart)
    table = next((name for name in learned if name.endswith(DELTA)), None)
    if table:
        names[table] = _new_rows(net, heart.get_submodule(table.removesuffix(DELTA)))
    if kept := {name: FEEDBACK + name.removeprefix(FEEDBACK + KEPT) for name in learned if KEPT in name}:
        net.feedback.unfreeze()
        names |= kept
    assert names.keys() == learned.keys(), names.keys() ^ learned.keys()
    ours = {path for path, _ in tree_flatten(net.trainable_parameters())}
    assert ours == set(names.values()), ours ^ set(names.values())
    return net, names


def given_back(weights: dict[str, mx.array], names: dict[str, str]) -> dict[str, Tensor]:
    """Under torch's names, as it has them."""
    return {name: _turned(name, to_torch(weights[path])) for name, path in names.items()}


def plain(heart: CoconutForCausalLM) -> CoconutForCausalLM:
    """The model that the adapters belong to, with the same tensors."""
    state = {
        name.replace(".base_layer", "").replace(".token_adapter", "").replace("original_module.", ""): tensor
        for name, tensor in heart.state_dict().items()
        if not any(mark in name for mark in ("lora_", "trainable_tokens", "modules_to_save"))
    }
    with torch.device("meta"):
        under = CoconutForCausalLM(heart.config)
    under.load_state_dict(state, assign=True)
    for name, buffer in list(under.named_buffers()):
        if buffer.is_meta:  # no state: rotations
            path, _, key = name.rpartition(".")
            under.get_submodule(path)._buffers[key] = heart.get_buffer(name)
    under.tie_weights()
    return under


def _adapters(net: Coconut, heart: CoconutForCausalLM) -> dict[str, str]:
    from peft.tuners.lora import LoraLayer

    names: dict[str, str] = {}
    linear = dict(net.named_modules())
    for name, layer in heart.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        path = _path(name, linear)
        made: Any = LoRALinear.from_base(linear[path], layer.r[NAME], _dropout(layer), layer.scaling[NAME])
        made.lora_a = to_mlx(layer.lora_A[NAME].weight.T)
        made.lora_b = to_mlx(layer.lora_B[NAME].weight.T)
        made.freeze()
        made.unfreeze(keys=["lora_a", "lora_b"], recurse=False)
        holder, _, key = path.rpartition(".")
        setattr(linear[holder], key, made)
        names |= {f"{name}.lora_{side}.{NAME}.weight": f"{path}.lora_{side.lower()}" for side in "AB"}
    return names


def _dropout(layer: Any) -> float:
    return float(getattr(layer.lora_dropout[NAME], "p", 0.0))


def _path(name: str, linear: dict[str, nn.Module]) -> str:
    """Where mlx_lm has the layer that transformers calls so."""
    inner = name.removeprefix(PREFIX)
    for path in (f"base.{inner}", f"base.model.{inner.removeprefix('transformer.')}"):
        if isinstance(linear.get(path), nn.Linear):
            return path
    raise UserError(
        "this layer takes no adapter on MLX",
        given=inner,
        expected="linear layers that mlx_lm calls by the same name",
        do="name others: lora.target_modules=..., or set backend: torch",
    )


def _new_rows(net: Coconut, adapter: Any) -> str:
    """Puts rows that are trained into the table of embeddings; where they are."""
    table, inner = bases.embedding(net.base), net.base.model
    key = next(key for key, module in inner.items() if module is table)
    made = NewRows(table, adapter.token_indices[NAME], to_mlx(adapter.trainable_tokens_delta[NAME]))
    made.freeze()
    made.unfreeze(keys=["rows"], recurse=False)
    setattr(inner, key, made)
    return f"base.model.{key}.rows"


class NewRows(nn.Module):
    """A table of embeddings of which some rows are others."""

    def __init__(self, table: nn.Module, ids: list[int], rows: mx.array) -> None:
        super().__init__()
        self.table, self.rows = table, rows
        self._place = mx.full(table.weight.shape[0], -1, mx.int32)  # of each id among the rows
        self._place[mx.array(ids)] = mx.arange(len(ids), dtype=mx.int32)

    def __call__(self, ids_BT: mx.array) -> mx.array:
        place_BT = self._place[ids_BT]
        new_BTD = self.rows[mx.maximum(place_BT, 0)]
        return mx.where((place_BT >= 0)[..., None], new_BTD, self.table(ids_BT))

    def as_linear(self, states: mx.array) -> mx.array:
        """The logits of a tied head."""
        new = (states @ self.rows.T)[..., mx.maximum(self._place, 0)]
        return mx.where(self._place >= 0, new, self.table.as_linear(states))


def _turned(name: str, tensor: Tensor) -> Tensor:
    return tensor.T.contiguous() if ".lora_" in name else tensor
