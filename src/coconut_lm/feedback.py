"""What a model feeds back to itself as a thought, made from its last hidden states.

Your own feedback is a `Feedback`: put it at `model.feedback`, or an entry for it into FEEDBACKS.

Shapes: B rows, W columns of the window, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coconut_lm import noise
from coconut_lm.errors import UserError

FLOOR = 1e-6


class Feedback(nn.Module):
    """How many columns back it looks, and the thought it makes of the hidden states there.

    `forward(h_BWD, mask_BW, index_B) -> thought_BD`: states in the order of the text, which of them are no
    padding, and the number of the thought within its row.
    """

    window: int = 1

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        raise NotImplementedError


class LastHidden(Feedback):
    """Coconut (arXiv 2412.06769): the last hidden state itself."""

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        return h_BWD[:, -1]


class Window(Feedback):
    """A weighted mean of the last states; weights by recency: the first belongs to the state just before.

    `scope="pass"` lets only a row's first thought see more than one state: what a window over the states of
    the current pass alone comes to, since every later pass computes one column.
    """

    def __init__(self, window: int, scope: str = "history") -> None:
        super().__init__()
        if window < 1:
            raise UserError("a window holds at least one state", given=window, expected="1 or more")
        if scope not in ("history", "pass"):
            raise UserError("unknown window scope", given=scope, expected="history, pass")
        self.window, self.scope = window, scope

    def weights(self) -> Tensor:
        """One a state, newest first; they need not sum to one."""
        raise NotImplementedError

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        weights_W = self.weights()[: h_BWD.shape[1]].flip(0).to(h_BWD.dtype)
        seen_BW = mask_BW.to(h_BWD.dtype)
        if self.scope == "pass":
            first_B1 = (index_B == 0)[:, None].to(seen_BW.dtype)
            seen_BW = torch.cat([seen_BW[:, :-1] * first_B1, seen_BW[:, -1:]], dim=1)
        a_BW = weights_W * seen_BW
        # Rows that are all padding here have no thought; the floor keeps their 0/0 out of the gradient.
        a_BW = a_BW / a_BW.sum(1, keepdim=True).clamp_min(FLOOR)
        return torch.einsum("bw,bwd->bd", a_BW, h_BWD)


class FixedWindow(Window):
    """Weights that stay as given, newest state first; they are kept with the model and not trained."""

    def __init__(self, weights: Sequence[float] = (0.6, 0.3, 0.1), scope: str = "history") -> None:
        super().__init__(len(weights), scope)
        if min(weights, default=0) < 0 or weights[0] <= 0:
            raise UserError(
                "window weights must be positive for the newest state and never negative", given=list(weights)
            )
        self.register_buffer("latent_weights", torch.tensor(weights, dtype=torch.float32))

    def weights(self) -> Tensor:
        return self.get_buffer("latent_weights")


class LearnedWindow(Window):
    """Softmax of a vector that starts at zero: uniform at first, then learned with everything else."""

    def __init__(self, window: int = 3, scope: str = "history") -> None:
        super().__init__(window, scope)
        self.latent_weights = nn.Parameter(torch.zeros(window))

    def weights(self) -> Tensor:
        return self.latent_weights.softmax(0)


class Projected(Feedback):
    """Linear, GELU, Linear, LayerNorm behind another feedback."""

    def __init__(self, inner: Feedback, hidden_size: int, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.window = inner.window
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, width),
            nn.GELU(),
            nn.Linear(width, hidden_size),
            nn.LayerNorm(hidden_size),
        )

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        return self.layers(self.inner(h_BWD, mask_BW, index_B))


class MatchEmbedding(Feedback):
    """Gives thoughts the mean length of the token embeddings, for models whose states dwarf them."""

    def __init__(self, inner: Feedback, embedding_norm: float = 1.0) -> None:
        super().__init__()
        self.inner = inner
        self.window = inner.window
        self.register_buffer("embedding_norm", torch.tensor(embedding_norm, dtype=torch.float32))

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        thought_BD = self.inner(h_BWD, mask_BW, index_B)
        length_B1 = thought_BD.norm(dim=-1, keepdim=True).clamp_min(FLOOR)
        return thought_BD * (self.get_buffer("embedding_norm").to(thought_BD.dtype) / length_B1)


class Noisy(Feedback):
    """Wraps any feedback and perturbs its thoughts.

    where: "first", "all" or the number of one thought. `keys` names the example of each row, so that an
    example meets the same noise in every batch; copies of an example that stand side by side (beams, returned
    sequences) draw noise of their own. `steps` is the number of thoughts that a decaying schedule spans.
    """

    def __init__(
        self,
        inner: Feedback,
        kind: str,
        scale: float,
        *,
        where: str | int = "all",
        schedule: str = "constant",
        steps: int = 1,
        decay: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _known("noise type", kind, noise.KINDS)
        _known("noise schedule", schedule, noise.SCHEDULES)
        if not (where in ("first", "all") or isinstance(where, int)):
            raise UserError("unknown place for noise", given=where, expected="first, all, or a number")
        self.inner, self.kind, self.scale, self.where = inner, kind, scale, where
        self.window = inner.window
        self.schedule, self.steps, self.decay, self.seed = schedule, steps, decay, seed
        self.keys: Sequence[int] | None = None
        self.diagnostics: list[dict[str, float | str]] = []
        self._mean_norm: dict[int, float] = {}

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        clean_BD = self.inner(h_BWD, mask_BW, index_B)
        keys, thoughts = self._keys(len(clean_BD)), index_B.tolist()
        g_BD = noise.draw(self.kind, [(*key, t) for key, t in zip(keys, thoughts, strict=True)], clean_BD)
        rows = [
            noise.KINDS[self.kind](clean_BD[b : b + 1], scale, g_BD[b : b + 1])
            if scale > 0
            else clean_BD[b : b + 1]
            for b, scale in enumerate(self._scales(clean_BD, thoughts))
        ]
        noisy_BD = torch.cat(rows)
        self.diagnostics.append(
            noise.diagnostics(self.kind, self.scale, clean_BD.detach(), noisy_BD.detach())
        )
        return noisy_BD

    def _keys(self, rows: int) -> list[tuple[int, int, int]]:
        keys = range(rows) if self.keys is None else self.keys
        copies, rest = divmod(rows, len(keys))
        if rest:
            raise UserError(
                "noise keys do not fit the batch", given=f"{len(keys)} keys", expected=f"{rows} rows"
            )
        return [(self.seed, keys[row // copies], row % copies) for row in range(rows)]

    def _scales(self, clean_BD: Tensor, thoughts: list[int]) -> list[float]:
        place = 0 if self.where == "first" else self.where
        decay = noise.SCHEDULES[self.schedule]
        scales = [
            decay(self.scale, t, self.steps, self.decay) if place in ("all", t) else 0.0 for t in thoughts
        ]
        return self._adapted(scales, clean_BD, thoughts) if self.schedule == "adaptive" else scales

    def _adapted(self, scales: list[float], clean_BD: Tensor, thoughts: list[int]) -> list[float]:
        """Louder where a thought is longer than the running mean of its row (0.9 old, 0.1 new)."""
        for row, norm in enumerate(clean_BD.detach().norm(dim=-1).tolist()):
            mean = norm if thoughts[row] == 0 else 0.9 * self._mean_norm.get(row, norm) + 0.1 * norm
            self._mean_norm[row] = mean
            scales[row] *= norm / (mean + noise.EPS)
        return scales


def _known(what: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise UserError(f"unknown {what}", given=name, expected=", ".join(known))


FEEDBACKS: dict[str, Callable[..., Feedback]] = {
    "coconut": LastHidden,
    "fixed_window": FixedWindow,
    "learnable_weights": LearnedWindow,
}


def build(
    kind: str = "coconut",
    *,
    hidden_size: int,
    projection: int | None = None,
    latent_norm: str = "none",
    **settings: Any,
) -> Feedback:
    """The feedback that a configuration describes; `settings` are the arguments of its kind."""
    _known("feedback", kind, FEEDBACKS)
    feedback = FEEDBACKS[kind](**settings)
    if projection is not None:
        feedback = Projected(feedback, hidden_size, projection)
    if latent_norm not in ("none", "match_embedding"):
        raise UserError("unknown latent_norm", given=latent_norm, expected="none, match_embedding")
    return MatchEmbedding(feedback) if latent_norm == "match_embedding" else feedback


def settings(config: Any) -> dict[str, Any]:
    """The arguments of `build` that a run's configuration (or any object with its keys) asks for."""
    kind = {"learnable_weights_lora": "learnable_weights"}.get(config.latent_variant, config.latent_variant)
    of_kind: dict[str, dict[str, Any]] = {
        "fixed_window": {"weights": config.latent_window_weights, "scope": config.latent_window_scope},
        "learnable_weights": {"window": config.latent_window_size, "scope": config.latent_window_scope},
    }
    shared = {"projection": config.latent_projection, "latent_norm": config.latent_norm}
    return {"kind": kind, **of_kind.get(kind, {}), **shared}
