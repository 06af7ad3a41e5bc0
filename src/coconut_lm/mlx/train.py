"""What computes a run on MLX: coconut_lm.engine's Engine, in one process.

`bf16: true` computes in bfloat16 from weights that stay float32, residual stream and norms included, which
torch's autocast keeps in float32. mlx_lm's models have no dropout.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from accelerate import Accelerator
from mlx.utils import tree_flatten, tree_unflatten
from safetensors import safe_open
from torch import Tensor

from coconut_lm import resume
from coconut_lm.assembly import Loaded, heart
from coconut_lm.base import input_scale
from coconut_lm.collate import Batch
from coconut_lm.config import Config
from coconut_lm.engine import Gradient
from coconut_lm.feed import Share
from coconut_lm.mlx import adapters, monitors
from coconut_lm.mlx.adamw import AdamW
from coconut_lm.mlx.batches import BUCKET, arrays, bucketed
from coconut_lm.mlx.facade import MlxModel
from coconut_lm.mlx.model import Coconut, give_back, of, summed
from coconut_lm.runfolder import STATE
from coconut_lm.weights import FEEDBACK

DROPOUT = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout")
Arrays = dict[str, mx.array]


class MlxEngine:
    """Weights are a flat dict here; the net holds them too."""

    sharded, where = False, "mlx"

    def __init__(
        self, config: Config, loaded: Loaded, accelerator: Accelerator, note: Callable[[str], None]
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.heart = heart(loaded.model)
        self.names: dict[str, str] | None = None  # torch's of what is trained, where that is adapters
        _limit_memory()
        if loaded.model is self.heart:
            self.net: Coconut = of(self.heart)
        else:
            self.net, self.names = adapters.adapted(self.heart)
        self.heart.to("meta")  # what is trained is here; there, it would take the memory once more
        self.held: Arrays = dict(tree_flatten(self.net.trainable_parameters()))
        if config.bf16 is True:  # what stays as it is needs no more precision than it is computed with
            frozen = dict(tree_flatten(self.net.parameters()))
            self._put({name: _halved(each) for name, each in frozen.items() if name not in self.held})
        self._totals: dict[range, Callable[..., Any]] = {}
        self.steps = 0
        self._tell_of_dropout(note)

    def _tell_of_dropout(self, note: Callable[[str], None]) -> None:
        shape = self.heart.config.get_text_config().to_dict()
        asked = {key: rate for key, rate in shape.items() if key in DROPOUT and rate}
        if asked:
            told = ", ".join(f"{key} {rate:g}" for key, rate in asked.items())
            note(f"mlx trains without the dropout of the model's configuration: {told}")

    def sizes(self) -> tuple[int, int]:
        learned = sum(weight.size for weight in self.held.values())
        return sum(weight.size for _, weight in tree_flatten(self.net.parameters())), learned

    # -- learning --

    def renew(self) -> None:
        self.optimizer = AdamW(self.held, self.config.weight_decay)

    def begin(self) -> None:
        self.net.train()
        mx.clear_cache()  # buffers of other sizes

    def gradient(self, part: Share, stop: bool) -> Gradient:
        mx.random.seed((self.config.seed * 1_000_003 + self.steps) % 2**64)  # what adapters drop
        loss, so_far = 0.0, Arrays()
        for batch in part.batches:
            value, gradients = self._of_batch(batch, self._items(batch, part))
            for name in so_far:
                gradients[name] = so_far[name] + gradients[name]
            mx.eval(value, gradients)  # else the graphs of all micro-batches would be held at once
            loss, so_far = loss + float(value), gradients
        fed = any(batch.columns for batch in part.batches)
        self.gradients = {name: each for name, each in so_far.items() if fed or not _is_of_feedback(name)}
        # Row by row first: on a CPU, MLX adds a table's 39 million squares up one by one, and loses 1e-3.
        precise = (each.astype(mx.float32) for each in self.gradients.values())
        squares = [mx.square(each).sum(-1).sum() for each in precise]
        norm = mx.sqrt(mx.stack(squares).sum())
        self.scale = mx.minimum(1.0, (self.config.max_grad_norm or mx.inf) / (norm + 1e-6))
        return Gradient(loss, float(norm), stop)

    def _items(self, batch: Batch, part: Share) -> float:
        """What a micro-batch's loss is divided by."""
        if self.config.loss_norm == "tokens":
            return max(part.supervised, 1e-9)
        return max(len(batch.supervised) * self.config.gradient_accumulation_steps, 1e-9)

    def _of_batch(self, batch: Batch, items: float) -> Any:
        """Its loss, and the gradient."""
        batch = bucketed(batch) if self.config.compile else batch
        given = arrays(batch, BUCKET if self.config.compile else 1)
        if batch.columns not in self._totals:
            total = mx.value_and_grad(partial(self._total, batch.columns))
            self._totals[batch.columns] = _compiled(total) if self.config.compile else total
        return self._totals[batch.columns](self.held, mx.array(items), *given)

    def _total(self, columns: range, weights: Arrays, items: mx.array, *given: mx.array) -> mx.array:
        with self._computing(weights):
            return summed(self.net, *given, columns=columns) / items

    @contextmanager
    def _computing(self, weights: Arrays) -> Iterator[None]:
        """The net with these weights, in the precision that is computed in."""
        if self.config.bf16 is True:
            weights = {name: _halved(weight) for name, weight in weights.items()}
        self._put(weights)
        try:
            yield
        finally:
            self._put(self.held)

    def _put(self, weights: Arrays) -> None:
        self.net.update(tree_unflatten(list(weights.items())))

    def learn(self, rate: float) -> None:
        self.held = self.optimizer.step(self.held, self.gradients, rate, self.scale)
        self.gradients, self.steps = {}, self.steps + 1
        self._put(self.held)
        mx.eval(self.held, self.optimizer.first, self.optimizer.second)

    def memory(self) -> int:
        return int(mx.get_peak_memory())

    # -- measuring --

    def loss(self, batch: Batch, items: float) -> float:
        self.net.eval()
        return float(self._total(batch.columns, self.held, mx.array(items), *arrays(batch)))

    @contextmanager
    def answering(self) -> Iterator[Any]:

        self.net.eval()
        with self._computing(self.held):
            yield MlxModel(self.net, self.heart.config)

    def monitors(self, batch: Batch) -> dict[str, Any]:
        with self._computing(self.held):
            return monitors.monitor(self.net, batch, input_scale(self.heart.config.get_text_config()))

    def window(self) -> list[float] | None:
        return monitors.window(self.net)

    # -- saving --

    def weights(self) -> dict[str, Tensor]:
        return adapters.given_back(self.held, self.names) if self.names else give_back(self.net)

    def save_state(self, folder: Path) -> None:
        (folder / STATE).mkdir()
        place = str(folder / STATE / resume.ON_MLX)
        counts = {"weights": self.optimizer.counts, "steps": self.steps}
        mx.save_safetensors(place, self._state(), {"counts": json.dumps(counts)})
        with safe_open(place, "np"):  # MLX does not say where a disk was full
            pass

    def _state(self) -> Arrays:
        parts = {"weight": self.held, "first": self.optimizer.first, "second": self.optimizer.second}
        return {f"{part}/{name}": each for part, arrays in parts.items() for name, each in arrays.items()}

    def load_state(self, folder: Path) -> None:
        if not (folder / STATE / resume.ON_MLX).is_file():
            raise resume.began_elsewhere(folder, "torch")
        with resume.readable(folder):
            found, told = cast(Any, mx.load(str(folder / STATE / resume.ON_MLX), return_metadata=True))
            found = {name: found[name] for name in self._state()}  # in this order all sums are made
            mx.eval(found)  # the file goes when the next is written
            counts = json.loads(told["counts"])
        parts: dict[str, Arrays] = {"weight": {}, "first": {}, "second": {}}
        for name, each in found.items():
            part, _, weight = name.partition("/")
            parts[part][weight] = each
        self.held = parts["weight"]
        self._put(self.held)
        self.optimizer.first, self.optimizer.second = parts["first"], parts["second"]
        self.optimizer.counts, self.steps = counts["weights"], counts["steps"]


def _compiled(total: Callable[..., Any]) -> Callable[..., Any]:
    """What is drawn at random is part of what goes in and out."""
    made: Callable[..., Any] = mx.compile(total, inputs=mx.random.state, outputs=mx.random.state)
    return made


def _is_of_feedback(name: str) -> bool:
    """Where nothing is thought, its weights have no gradient, which is not one of zero."""
    return name.startswith(FEEDBACK)


def _halved(weight: mx.array) -> mx.array:
    """What may be computed with in bfloat16, so."""
    return weight.astype(mx.bfloat16) if weight.dtype == mx.float32 else weight


def _limit_memory() -> None:
    """As much of a Mac's memory as its GPU works on well is kept there, and more is not taken at once."""
    if mx.metal.is_available():
        most = int(mx.device_info()["max_recommended_working_set_size"])
        mx.set_wired_limit(most)
        mx.set_memory_limit(most)
