"""A training step on each side: ours, the published algorithm, one plain pass over the same tokens.

The plain pass is a base model as transformers builds it, which reads latents as ordinary tokens and is asked
for logits at the supervised positions alone: what a step costs where nothing is thought.

Shapes: B rows, T columns, D width, N supervised positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import reference
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from workload import Work, our_model, plain_model

from coconut_lm import packing, products
from coconut_lm.base import fuse_gelu
from coconut_lm.feed import Share, tensors
from coconut_lm.methods import IGNORED

PLAIN_OURS = "plain, our products"
"""The plain pass with our GELU, products and attention: what of our speed is not the passes' merit."""


@dataclass(frozen=True)
class Side:
    """Who trains, by which forward; what it returns begins with the loss and is held until the step ends."""

    model: PreTrainedModel
    forward: Callable[[], Any]
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        outputs = self.forward()
        outputs[0].backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss_and_norm(self) -> tuple[float, float]:
        loss = self.forward()[0]
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.model.zero_grad()
        return loss.item(), norm.item()


def build(name: str, work: Work, device: torch.device, bf16: bool = False) -> Side:
    """A side with weights of its own, the same as those of the others."""
    model = our_model(work.net, device) if name == "ours" else plain_model(work.net, device)
    if name == PLAIN_OURS:
        for improve in (fuse_gelu, products.install, packing.install):
            improve(model)
    make = {"ours": _ours, "reference": _reference}.get(name, _plain)
    forward = make(model, work, device)

    def cast() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return forward()

    return Side(model, cast, _settled_adamw(model, fused=name != "reference"))


def _ours(model: PreTrainedModel, work: Work, device: torch.device) -> Callable[[], Any]:
    """As the trainer asks for it, the batch on its way to the device included."""
    batch, items = work.batch(), work.rows * work.supervised
    said = {"columns": batch.columns, "num_items_in_batch": items, "loss_only": True}
    return lambda: model(**tensors(batch, device), **said)


def _reference(model: PreTrainedModel, work: Work, device: torch.device) -> Callable[[], Any]:
    batch, latent = tensors(work.batch(), device), work.net.tokens.latent
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "labels", "position_ids")}
    return lambda: reference.reference_loss(model, latent, **given)


def _plain(model: PreTrainedModel, work: Work, device: torch.device) -> Callable[[], Any]:
    """No mask: a causal model never sees what is padded behind it."""
    batch = tensors(work.batch(), device)
    ids_BT, labels_BT = batch["input_ids"], batch["labels"][:, 1:]
    supervised_BT = labels_BT != IGNORED
    targets_N = labels_BT[supervised_BT]

    def forward() -> tuple[Tensor]:
        hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        logits_NV = model.lm_head(hidden_BTD[:, :-1][supervised_BT])
        return (F.cross_entropy(logits_NV.float(), targets_N),)

    return forward


def _settled_adamw(model: PreTrainedModel, fused: bool) -> torch.optim.AdamW:
    """Torch's default for the reference, its fused one for the others. It has its moments already, made one
    parameter at a time to leave no peak behind."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused or None)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        parameter.grad = None
    return optimizer


def learner(model: PreTrainedModel) -> Callable[[Share], None]:
    """One optimizer step over a share, as the trainer takes it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def learn(share: Share) -> None:
        said = {"num_items_in_batch": share.supervised, "loss_only": True}
        for batch in share.batches:
            model(**tensors(batch, model.device), columns=batch.columns, **said).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return learn
