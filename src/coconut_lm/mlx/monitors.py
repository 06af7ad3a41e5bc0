"""What coconut_lm.monitors measures, of a model on MLX.

Shapes: B rows, T columns, K thoughts, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import torch
from torch import Tensor

from coconut_lm import monitors
from coconut_lm.collate import Batch
from coconut_lm.mlx import base as bases
from coconut_lm.mlx.batches import arrays
from coconut_lm.mlx.bridge import to_torch
from coconut_lm.mlx.feedback import Feedback, Window
from coconut_lm.mlx.model import Coconut, Walked, summed


def monitor(net: Coconut, batch: Batch, scale: float = 1.0) -> dict[str, Any]:
    """As coconut_lm.monitors.monitor. `scale` is coconut_lm.base.input_scale of the torch model: some models
    of mlx_lm multiply what they are handed where torch's do it when ids are looked up."""
    is_latent_BT = torch.from_numpy(batch.input_ids == net.latent)
    is_BK = is_latent_BT[:, list(batch.columns)]
    if not is_BK.any():
        return {}
    embedded_BTD = bases.embedding(net.base)(mx.array(batch.input_ids))
    fed_BKD = mx.zeros((*is_BK.shape, embedded_BTD.shape[2]), embedded_BTD.dtype)

    def loss(nothing_BTD: mx.array, nothing_BKD: mx.array) -> tuple[mx.array, ...]:
        looked = _Looked(net, nothing_BKD)
        with _shifted(net.base, nothing_BTD):
            total = summed(looked, *arrays(batch), columns=batch.columns)  # type: ignore[arg-type]
        return total / len(batch.supervised), mx.stack(looked.walked.fed, axis=1), looked.walked.hidden_BTD

    told = mx.value_and_grad(loss, argnums=(0, 1))(mx.zeros_like(embedded_BTD), fed_BKD)
    (_, fed_BKD, hidden_BTD), (at_embeddings_BTD, at_thoughts_BKD) = told
    unit = net.scale / scale
    plain_BT = torch.from_numpy(batch.attention_mask).bool() & ~is_latent_BT
    return monitors.figures(
        _exact(fed_BKD) * unit,
        is_BK,
        embeddings_ND=_exact(embedded_BTD)[plain_BT] * unit,
        states_ND=_exact(hidden_BTD)[plain_BT],
        at_thoughts_BKD=_exact(at_thoughts_BKD) * scale,  # they are scaled down before they are fed
        at_embeddings_ND=_exact(at_embeddings_BTD)[plain_BT] / unit,
    )


def window(net: Coconut) -> list[float] | None:
    """As coconut_lm.monitors.window_weights."""
    found = [module for module in net.feedback.modules() if isinstance(module, Window)]
    if not found:
        return None
    weights = _exact(found[0].weights())
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


def _exact(array: mx.array) -> Tensor:
    return to_torch(array).double()


class _Looked:
    """The net, but something is added to each thought that it makes, and its walk is kept."""

    walked: Walked

    def __init__(self, net: Coconut, added_BKD: mx.array) -> None:
        self.net, self.logits = net, net.logits
        self.feed = _Added(net.feedback, added_BKD)

    def __call__(self, ids_BT: mx.array, mask_BT: mx.array, columns: Sequence[int]) -> Walked:
        self.walked = self.net(ids_BT, mask_BT, columns, feed=self.feed)
        return self.walked


class _Added:
    def __init__(self, feedback: Feedback, added_BKD: mx.array) -> None:
        self.feedback, self.window = feedback, feedback.window
        self.added = iter(added_BKD.swapaxes(0, 1))

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        return self.feedback(h_BWD, mask_BW, index_B) + next(self.added)


@contextmanager
def _shifted(base: nn.Module, shift_BTD: mx.array) -> Iterator[None]:
    """To the embeddings of the ids, which are looked up once."""
    table = bases.embedding(base)
    name = next(name for name, module in base.model.items() if module is table)
    setattr(base.model, name, _Shifted(table, shift_BTD))
    try:
        yield
    finally:
        setattr(base.model, name, table)


class _Shifted(nn.Module):
    def __init__(self, table: nn.Module, shift_BTD: mx.array) -> None:
        super().__init__()
        self.table, self.shift = table, shift_BTD

    def __call__(self, ids_BT: mx.array) -> mx.array:
        return self.table(ids_BT) + self.shift

    def as_linear(self, states: mx.array) -> mx.array:
        return self.table.as_linear(states)
