"""What is fed back as a thought, in MLX: the equations and names of coconut_lm.feedback.

What is kept with a model and not trained has an underscore before its name: MLX would train it otherwise.

Shapes: B rows, W columns of the window, D width.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from coconut_lm import feedback as torch_feedback
from coconut_lm.errors import UserError
from coconut_lm.feedback import FLOOR
from coconut_lm.mlx.bridge import to_mlx, to_torch


class Feedback(nn.Module):
    window: int = 1

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        raise NotImplementedError


class LastHidden(Feedback):
    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        return h_BWD[:, -1]


class Window(Feedback):
    def __init__(self, window: int, scope: str) -> None:
        super().__init__()
        self.window, self.scope = window, scope

    def weights(self) -> mx.array:
        raise NotImplementedError

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        weights_W = self.weights()[: h_BWD.shape[1]][::-1].astype(h_BWD.dtype)
        seen_BW = mask_BW.astype(h_BWD.dtype)
        if self.scope == "pass":
            first_B1 = (index_B == 0)[:, None].astype(seen_BW.dtype)
            seen_BW = mx.concatenate([seen_BW[:, :-1] * first_B1, seen_BW[:, -1:]], axis=1)
        a_BW = weights_W * seen_BW
        a_BW = a_BW / mx.maximum(a_BW.sum(1, keepdims=True), FLOOR)
        return (a_BW[..., None] * h_BWD).sum(1)


class FixedWindow(Window):
    def __init__(self, window: int, scope: str) -> None:
        super().__init__(window, scope)
        self._latent_weights = mx.zeros(window)

    def weights(self) -> mx.array:
        return self._latent_weights


class LearnedWindow(Window):
    def __init__(self, window: int, scope: str) -> None:
        super().__init__(window, scope)
        self.latent_weights = mx.zeros(window)

    def weights(self) -> mx.array:
        return mx.softmax(self.latent_weights)


class Projected(Feedback):
    def __init__(self, inner: Feedback, hidden_size: int, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.window = inner.window
        first, last = nn.Linear(hidden_size, width), nn.Linear(width, hidden_size)
        self.layers = [first, nn.GELU(), last, nn.LayerNorm(hidden_size)]

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        thought_BD = self.inner(h_BWD, mask_BW, index_B)
        for layer in self.layers:
            thought_BD = layer(thought_BD)
        return thought_BD


class MatchEmbedding(Feedback):
    def __init__(self, inner: Feedback) -> None:
        super().__init__()
        self.inner = inner
        self.window = inner.window
        self._embedding_norm = mx.array(1.0)

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        thought_BD = self.inner(h_BWD, mask_BW, index_B)
        # The floor comes before the root, whose gradient at 0 is no number: padding has such thoughts.
        square_B1 = mx.maximum(thought_BD.square().sum(-1, keepdims=True), FLOOR**2)
        return thought_BD * (self._embedding_norm.astype(thought_BD.dtype) * mx.rsqrt(square_B1))


def of(module: torch_feedback.Feedback) -> Feedback:
    """The same feedback, with its weights."""
    made, state = _empty(module), module.state_dict()
    for name, holder, key in _places(made):
        holder[key] = to_mlx(state[name])
    return made


def give_back(feedback: Feedback) -> dict[str, Any]:
    """The state dict of the torch feedback."""
    return {name: to_torch(holder[key]) for name, holder, key in _places(feedback)}


def _places(feedback: Feedback) -> list[tuple[str, nn.Module, str]]:
    """Every array: its name in torch, and where it is held."""
    return [
        (f"{path}.{key.removeprefix('_')}".removeprefix("."), module, key)
        for path, module in feedback.named_modules()
        for key, value in module.items()
        if isinstance(value, mx.array)
    ]


def _empty(module: torch_feedback.Feedback) -> Feedback:
    match module:
        case torch_feedback.LastHidden():
            return LastHidden()
        case torch_feedback.FixedWindow():
            return FixedWindow(module.window, module.scope)
        case torch_feedback.LearnedWindow():
            return LearnedWindow(module.window, module.scope)
        case torch_feedback.Projected():
            width, hidden_size = module.layers[0].get_parameter("weight").shape
            return Projected(_empty(module.inner), hidden_size, width)
        case torch_feedback.MatchEmbedding():
            return MatchEmbedding(_empty(module.inner))
    raise UserError(
        "this feedback has no twin in MLX",
        given=type(module).__name__,
        expected="LastHidden, FixedWindow, LearnedWindow, Projected or MatchEmbedding",
        do="set backend: torch",
    )
