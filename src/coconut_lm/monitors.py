"""Early signs of collapse: what the thoughts of one batch look like, and what gradient reaches them.

Shapes: B rows, T columns, K thoughts, D width, N vectors. All is measured in float64, on the CPU.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from coconut_lm import base as bases
from coconut_lm.assembly import heart
from coconut_lm.feedback import Window

LOUD = 30.0
"""Thoughts this many times as long as embeddings, or as short. Runs that succeed stand at 15 and more."""
ALIKE = 0.98
"""A mean cosine above this is a collapse, where the model's states themselves are not that much alike."""
FAINT = 1e-3
"""Share of the gradient under which a thought is not trained."""


def monitor(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one batch of `inputs` to the model, with labels; {} where nothing is thought.

    The model is left as it was: its mode, its parameters' gradients, the random state (nothing is drawn).
    """
    if inputs.get("columns") is not None and len(inputs["columns"]) == 0:
        return {}
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    inner = heart(model)
    with (
        _evaluating(model),
        torch.enable_grad(),
        watched(inner.feedback) as made,
        watched(inner.get_input_embeddings()) as embedded,
    ):
        output = model(**inputs, return_thoughts=True)
        if output.thoughts is None or not output.thoughts.is_thought_BK.any():
            return {}
        gradients = torch.autograd.grad(output.loss, [*embedded, *made], materialize_grads=True)
    is_BK = output.thoughts.is_thought_BK.cpu()
    mask_BT = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    plain_BT = (mask_BT & (inputs["input_ids"] != inner.config.latent_token_id)).cpu()
    scale = bases.input_scale(inner.config.get_text_config())  # `made` is scaled down before it is fed
    return figures(
        output.thoughts.fed_BKD,
        is_BK,
        embeddings_ND=measured(embedded[0])[plain_BT],
        states_ND=measured(output.last_hidden_state)[plain_BT],
        at_thoughts_BKD=torch.stack(gradients[1:], dim=1) * scale,
        at_embeddings_ND=measured(gradients[0])[plain_BT],
    )


def figures(
    fed_BKD: Tensor,
    is_BK: Tensor,
    *,
    embeddings_ND: Tensor,
    states_ND: Tensor,
    at_thoughts_BKD: Tensor,
    at_embeddings_ND: Tensor,
) -> dict[str, Any]:
    """Of thoughts beside embeddings and other states, and of the gradients at both."""
    return {
        **shape(fed_BKD, is_BK, embeddings_ND),
        "cosine_states": mean_cosine(states_ND[None]),
        **flow(at_thoughts_BKD, is_BK, at_embeddings_ND),
    }


def shape(fed_BKD: Tensor, is_BK: Tensor, embeddings_ND: Tensor) -> dict[str, Any]:
    """Length beside that of embeddings, likeness within a row and between rows, and how many directions."""
    fed_BKD, is_BK = by_number(measured(fed_BKD), is_BK)
    length = embeddings_ND.norm(dim=-1).mean().item()
    return {
        "norm_ratio": _ratio(fed_BKD.norm(dim=-1)[is_BK].mean().item(), length),
        "norm_ratios": [_ratio(norm, length) for norm in _mean_norms(fed_BKD, is_BK)],
        "cosine": mean_cosine(fed_BKD, is_BK),
        "cosine_rows": mean_cosine(fed_BKD.transpose(0, 1), is_BK.T),
        "effective_rank": effective_rank(fed_BKD[is_BK]),
    }


def flow(gradient_BKD: Tensor, is_BK: Tensor, embeddings_ND: Tensor) -> dict[str, Any]:
    """Length of the gradient at each thought; at the last beside the first; at all beside a token's."""
    gradient_BKD, is_BK = by_number(measured(gradient_BKD), is_BK)
    norms = _mean_norms(gradient_BKD, is_BK)
    mean = gradient_BKD.norm(dim=-1)[is_BK].mean().item()
    return {
        "gradient_norms": norms,
        "decay": _ratio(norms[-1], norms[0]) if len(norms) > 1 else None,
        "gradient_ratio": _ratio(mean, embeddings_ND.norm(dim=-1).mean().item()),
    }


def measured(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def by_number(of_BKD: Tensor, is_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Thought k of each row at place k, whichever columns the rows think at."""
    order_BK = is_BK.int().argsort(dim=1, descending=True, stable=True)
    moved_BKD = of_BKD.gather(1, order_BK[..., None].expand_as(of_BKD))
    used = int(is_BK.sum(1).max())
    return moved_BKD[:, :used], is_BK.gather(1, order_BK)[:, :used]


def mean_cosine(of_BKD: Tensor, is_BK: Tensor | None = None) -> float | None:
    """Mean cosine of all pairs that share a row; None where no row has two."""
    unit_BKD = F.normalize(of_BKD, dim=-1)
    is_BK = torch.ones_like(of_BKD[..., 0], dtype=torch.bool) if is_BK is None else is_BK
    unit_BKD = unit_BKD * is_BK[..., None]
    count_B = is_BK.sum(1)
    pairs = (count_B * (count_B - 1)).sum().item()
    # |sum u|^2 holds every pair twice, and each vector with itself.
    total = (unit_BKD.sum(1).square().sum() - unit_BKD.square().sum()).item()
    return total / pairs if pairs else None


def effective_rank(vectors_ND: Tensor) -> float:
    """exp of the entropy of the normalised singular values: between 1 (one line) and min(N, D)."""
    if not vectors_ND.isfinite().all():
        return float("nan")
    values = torch.linalg.svdvals(vectors_ND)
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item()


def window_weights(model: nn.Module) -> list[float] | None:
    """Shares of the states in a window, the newest first; None for a feedback without one."""
    feedback = heart(extract_model_from_parallel(model, keep_torch_compile=False)).feedback
    # peft keeps the untrained original beside the copy that it trains.
    parts = [part for name, part in feedback.named_modules() if not name.startswith("original_module")]
    windows = [part for part in parts if isinstance(part, Window)]
    if not windows:
        return None
    weights = windows[0].weights().detach()
    weights = getattr(weights, "full_tensor", lambda: weights)()  # all of it, where it is sharded
    return (measured(weights) / measured(weights).sum()).tolist()


def warnings(values: Mapping[str, Any]) -> list[str]:
    """What these figures warn of, each with what may help."""
    if not values:
        return []
    ratio, states = values["norm_ratio"], values["cosine_states"]
    if not _finite(ratio) or not all(map(_finite, values["gradient_norms"])):
        return ["thoughts or their gradients are not finite: lower lr, set max_grad_norm, leave float16"]
    found = []
    if not 1 / LOUD <= ratio <= LOUD:
        found.append(
            f"thoughts are {ratio:.3g} times as long as embeddings: where the loss jumps at new stages, "
            "latent_norm: match_embedding or a lower lr may help"
        )
    if _collapsed(values["cosine"], states):
        found.append(
            f"the thoughts of a row are all alike (cosine {values['cosine']:.3f}, other states "
            f"{states:.3f}): a smaller c_thought, more epochs a stage or a lower lr may help"
        )
    if _collapsed(values["cosine_rows"], states):
        found.append(
            f"thoughts are the same whatever is asked (cosine {values['cosine_rows']:.3f}, other states "
            f"{states:.3f}): begin from a CoT checkpoint, with a lower lr or uniform_prob: 0.1"
        )
    return found + _faint(values)


def _faint(values: Mapping[str, Any]) -> list[str]:
    norms, share = values["gradient_norms"], values["gradient_ratio"]
    if share is not None and share < FAINT:
        return [
            f"the loss hardly depends on the thoughts (gradient {share:.1g} of a token's): are they used?"
        ]
    weakest = min(range(len(norms)), key=norms.__getitem__)
    if norms[weakest] < FAINT * max(norms):
        return [
            f"thought {weakest + 1} gets {norms[weakest] / max(norms):.1g} of the gradient of the strongest: "
            "fewer thoughts (c_thought, max_latent_stage), or latent_norm: match_embedding, may help"
        ]
    return []


def _collapsed(cosine: float | None, states: float | None) -> bool:
    """States of some models (GPT-2's) point one way whatever they say: thoughts must be ten times closer."""
    return cosine is not None and cosine > ALIKE and (states is None or 1 - cosine < 0.1 * (1 - states))


def _finite(value: float | None) -> bool:
    return value is not None and torch.tensor(value).isfinite().item() is True


def _ratio(value: float, to: float) -> float | None:
    return value / to if to else None


def _mean_norms(of_BKD: Tensor, is_BK: Tensor) -> list[float]:
    total_K = (of_BKD.norm(dim=-1) * is_BK).sum(0)
    return (total_K / is_BK.sum(0)).tolist()


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Tensor]]:
    """Everything the module puts out meanwhile, as tensors that a gradient can be asked for at."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        seen.append(output if output.requires_grad else output.detach().requires_grad_())
        return seen[-1]

    handle = module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    try:
        model.eval()
        yield
    finally:
        model.train(was)
