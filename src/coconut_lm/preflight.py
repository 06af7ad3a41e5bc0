"""Before a run: do its rows fit the model, and does the loss reach all that is to be trained?

Nothing here changes what comes after: the model, its gradients and all randomness stay as they were.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from coconut_lm import base as bases
from coconut_lm.assembly import Loaded, heart
from coconut_lm.collate import Batch, collate
from coconut_lm.errors import UserError
from coconut_lm.feed import tensors
from coconut_lm.lengths import longest, stages_of
from coconut_lm.methods import Row, Rows

LOOKED_AT = 200  # examples among which short rows are sought
NAMED = 4  # groups of weights named in one message


@dataclass(frozen=True)
class Finding:
    """One line of the checklist; `values` are the same for machines, `shown` is what one may look at."""

    name: str
    ok: bool
    detail: str
    values: dict[str, Any] = field(default_factory=dict)
    shown: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "detail": self.detail, **_plain(self.values)}


def _plain(value: Any) -> Any:
    """What is no finite number is null: JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short_check(loaded: Loaded, rows: Rows, backward: bool = True) -> None:
    """Stops a run that would not train as it should; one short backward pass where a device can make it."""
    _insist(rows_fit(loaded, rows), ids_known(loaded, rows))
    if not backward:
        return
    reached = reach(loaded.model, collate(sample(rows), loaded.tokens))
    _insist(finite(reached))
    _insist(thoughts_reached(reached), weights_reached(reached), markers_train(loaded))


def _insist(*findings: Finding) -> None:
    off = [f"{each.name}: {each.detail}" for each in findings if not each.ok]
    if off:
        raise UserError(
            "\n  ".join(["the run would not train as it should", *off]),
            do="mend it, or look at everything: coconut-lm check CONFIG",
        )


def sample(rows: Rows, count: int = 2) -> list[Row]:
    """The shortest rows of those that think most."""

    def rank(row: Row) -> tuple[int, int]:
        return -row.thoughts, len(row.input_ids)

    stages, looked_at = stages_of(rows), range(min(len(rows), LOOKED_AT))
    best = [min((rows.row(index, stage) for stage in stages), key=rank) for index in looked_at]
    return sorted(best, key=rank)[:count]


# -- what is seen without a pass --


def rows_fit(loaded: Loaded, rows: Rows) -> Finding:
    limit = bases.positions(heart(loaded.model).config.get_text_config())
    most = int(longest(rows, limit or 0).max())
    detail = f"up to {most:,} tokens at any stage" if limit is None or most > limit else "short enough"
    ok = limit is None or most <= limit
    places = "" if limit is None else f"; the model has positions for {limit:,}"
    return Finding("lengths", ok, detail + places, {"longest": most, "positions": limit})


def ids_known(loaded: Loaded, rows: Rows) -> Finding:
    size, tokens, method = heart(loaded.model).config.vocab_size, loaded.tokens, rows.method
    used = [int(rows.examples.ids.max()), tokens.pad]
    used += [tokens.start, tokens.end] if method.markers else []
    used += [(tokens.latent if method.filler == "latent" else tokens.pause) or 0] if method.filler else []
    detail = f"ids up to {max(used):,}; the model has rows for {size:,}"
    return Finding("token ids", max(used) < size, detail, {"highest": max(used), "rows": size})


def markers_train(loaded: Loaded) -> Finding:
    """Frozen, the rows of the latent tokens would keep for ever what they were copied from."""
    inner = heart(loaded.model)
    trained = any(weight.requires_grad for weight in inner.get_input_embeddings().parameters())
    if not inner.config.thinks:
        return Finding("rows of the latent tokens", True, "there are none")
    return Finding("rows of the latent tokens", trained, "trained" if trained else "frozen")


# -- what one backward pass tells --


@dataclass(frozen=True)
class Reach:
    """A loss, and the length of the gradient that came back; None where none came."""

    loss: float
    thoughts: list[float | None]  # passed back by each thought to the states that it is made of
    weights: dict[str, float | None]


def reach(model: nn.Module, batch: Batch) -> Reach:
    """Forward and backward; every gradient is measured and let go of as it comes."""
    inner = heart(model)
    with _undisturbed(model), _at_weights(model) as weights, _at_thoughts(inner.feedback) as thoughts:
        loss = model(**tensors(batch, inner.device), columns=batch.columns).loss
        if loss.isfinite() and loss.requires_grad:
            loss.backward()
    return Reach(loss.item(), thoughts, weights)


def finite(reached: Reach) -> Finding:
    return Finding("loss", math.isfinite(reached.loss), f"{reached.loss:.4g}", {"loss": reached.loss})


def thoughts_reached(reached: Reach) -> Finding:
    without = [number for number, norm in enumerate(reached.thoughts, start=1) if not norm]
    values = {"gradient_norms": reached.thoughts}
    if not reached.thoughts:
        return Finding("gradient through thoughts", True, "nothing is thought", values)
    if not without:
        told = " ".join(f"{norm:.2g}" for norm in reached.thoughts if norm)
        return Finding("gradient through thoughts", True, f"through all of them: {told}", values)
    detail = f"none passes thought {', '.join(map(str, without))} of {len(reached.thoughts)}"
    return Finding("gradient through thoughts", False, detail + ": is something detached?", values)


def weights_reached(reached: Reach) -> Finding:
    """By groups: the same weight of all layers is one. Experts that no token took are no fault."""
    groups: dict[str, list[float | None]] = defaultdict(list)
    for name, norm in reached.weights.items():
        if reached.thoughts or "feedback." not in name:  # without thoughts there is nothing to learn there
            groups[re.sub(r"\.\d+(?=\.)", ".*", name)].append(norm)
    missed = [group for group, norms in groups.items() if all(norm is None for norm in norms)]
    bad = [group for group, norms in groups.items() if not all(math.isfinite(norm or 0) for norm in norms)]
    values = {"groups": len(groups), "missed": missed, "not_finite": bad}
    if not groups:
        return Finding("gradient to weights", False, "nothing is to be trained", values)
    if missed or bad:
        told = ", ".join([*missed, *bad][:NAMED]) + (" ..." if len(missed + bad) > NAMED else "")
        what = "none reaches" if missed else "not finite at"
        return Finding("gradient to weights", False, f"{what} {told}", values)
    return Finding("gradient to weights", True, f"reaches all {len(groups)} groups of weights", values)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Without dropout, hence without a draw; gradients that are there already are set aside."""
    modes = {module: module.training for module in model.modules()}
    kept = {weight: weight.grad for weight in model.parameters() if weight.grad is not None}
    for weight in kept:
        weight.grad = None
    try:
        model.eval()
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight, grad in kept.items():
            weight.grad = grad


@contextmanager
def _at_weights(model: nn.Module) -> Iterator[dict[str, float | None]]:
    """The length of each trained weight's gradient, which is freed at once: all would take much room."""
    found: dict[str, float | None] = {}

    def listen(name: str, weight: nn.Parameter) -> Any:
        def measure(reached: Tensor) -> None:
            found[name] = None if reached.grad is None else reached.grad.float().norm().item()
            reached.grad = None

        found[name] = None
        return weight.register_post_accumulate_grad_hook(measure)

    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    with _removed([listen(*each) for each in named]):
        yield found


@contextmanager
def _at_thoughts(feedback: nn.Module) -> Iterator[list[float | None]]:
    """The length of the gradient at the states handed to the feedback, which are used nowhere else."""
    found: list[float | None] = []

    def listen(_: nn.Module, given: Sequence[Tensor]) -> None:
        place = len(found)
        found.append(None)
        if given[0].requires_grad:
            given[0].register_hook(lambda grad: found.__setitem__(place, grad.float().norm().item()))

    with _removed([feedback.register_forward_pre_hook(listen)]):
        yield found


@contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
