"""What a model feeds back to itself as a thought, made from its last hidden states.

Your own feedback is a `Feedback`: put it at `model.feedback`, or an entry for it into FEEDBACKS.

Shapes: B rows, W columns of the window, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coconut_lm import noise
from coconut_lm.errors import UserError, require_known

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

    where: "all", "first", or the number of one thought; none before `start` is perturbed, from where a
    schedule counts. A decaying one ends with `steps` thoughts, those before `start` included: one number for
    all, or one a key. `keys` names the example of each row, so that an example meets the same noise in every
    batch; copies of an example that stand side by side (beams, branches) draw noise of their own.
    """

    def __init__(
        self,
        inner: Feedback,
        kind: str,
        scale: float,
        *,
        where: str | int = "all",
        start: int = 0,
        schedule: str = "constant",
        steps: int | Sequence[int] = 1,
        decay: float = 0.5,
        seed: int = 0,
        keys: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require_known("noise type", kind, noise.KINDS)
        require_known("noise schedule", schedule, noise.SCHEDULES)
        if not (where in ("first", "all") or isinstance(where, int)):
            raise UserError("unknown place for noise", given=where, expected="first, all, or a number")
        self.inner, self.kind, self.scale = inner, kind, scale
        self.where, self.start = start if where == "first" else where, start
        self.window = inner.window
        self.schedule, self.steps, self.decay, self.seed = schedule, steps, decay, seed
        self.keys = keys
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []  # clean, noisy, scale; not kept while training
        self._mean_B: Tensor | None = None

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        clean_BD = self.inner(h_BWD, mask_BW, index_B)
        thoughts = index_B.tolist()
        keys, copies = self._copies(len(clean_BD))
        size = noise.scale_key(self.scale)
        names = [(self.seed, keys[b // copies], size, b % copies, t) for b, t in enumerate(thoughts)]
        scale_B1 = torch.tensor(self._scales(thoughts, copies), dtype=clean_BD.dtype)[:, None].to(clean_BD)
        if self.schedule == "adaptive":
            scale_B1 = scale_B1 * self._loudness(clean_BD, index_B)
        g_BD = noise.draw(self.kind, names, clean_BD)
        noisy_BD = noise.perturb(self.kind, clean_BD, scale_B1, g_BD)
        if not self.training:
            self.calls.append((clean_BD, noisy_BD, scale_B1))
        return noisy_BD

    def _copies(self, rows: int) -> tuple[Sequence[int], int]:
        """The examples, and how many rows each of them has."""
        keys = range(rows) if self.keys is None else self.keys
        copies, rest = divmod(rows, len(keys))
        if rest:
            raise UserError(
                "noise keys do not fit the batch", given=f"{len(keys)} keys", expected=f"{rows} rows"
            )
        return keys, copies

    def _scales(self, thoughts: list[int], copies: int) -> list[float]:
        decay, steps = noise.SCHEDULES[self.schedule], self.steps
        return [
            decay(
                self.scale,
                t - self.start,
                max(1, (steps if isinstance(steps, int) else steps[b // copies]) - self.start),
                self.decay,
            )
            if t >= self.start and self.where in ("all", t)
            else 0.0
            for b, t in enumerate(thoughts)
        ]

    def _loudness(self, clean_BD: Tensor, index_B: Tensor) -> Tensor:
        """How long a thought is beside the running mean of its row (0.9 old, 0.1 new)."""
        norm_B1 = clean_BD.detach().norm(dim=-1, keepdim=True)
        if self._mean_B is None:
            self._mean_B = norm_B1
        fresh_B1 = (index_B <= self.start)[:, None]
        self._mean_B = torch.where(fresh_B1, norm_B1, 0.9 * self._mean_B + 0.1 * norm_B1)
        return norm_B1 / (self._mean_B + noise.EPS)

    def diagnostics(self, is_thought_BK: Tensor) -> list[dict[str, float | str] | None]:
        """What became of each row's thoughts that had noise; nothing where none had. Asked of are the calls
        with as many rows as these, which are the last."""
        calls = [call for call in self.calls if len(call[0]) == len(is_thought_BK)]
        if not calls:
            return [None] * len(is_thought_BK)
        clean_BKD, noisy_BKD, scale_BK1 = (torch.stack(each, 1) for each in zip(*calls, strict=True))
        noisy_BK = is_thought_BK[:, -len(calls) :] & (scale_BK1[..., 0] > 0)
        return [
            noise.diagnostics(self.kind, self.scale, clean_KD[at], noisy_KD[at]) if at.any() else None
            for clean_KD, noisy_KD, at in zip(clean_BKD, noisy_BKD, noisy_BK, strict=True)
        ]


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
    require_known("feedback", kind, FEEDBACKS)
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
