"""What computes a run: what any engine does, and torch's. Trainer and validator know no more of it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from coconut_lm import monitors, parallel, resume
from coconut_lm.answer import peak_memory
from coconut_lm.assembly import Loaded, heart
from coconut_lm.collate import Batch
from coconut_lm.config import Config
from coconut_lm.feed import Place, Share, tensors
from coconut_lm.methods import IGNORED


class Gradient(NamedTuple):
    """What is known of a step before it is learned from."""

    loss: float
    norm: float
    """Of the gradient, before it was clipped."""
    stop: bool
    """Some rank was asked to stop."""


class Engine(Protocol):
    """A model in training: a rank's. Weights go out with torch's names, whatever computes."""

    accelerator: Accelerator
    """This process's place among the ranks."""
    sharded: bool
    """All ranks must make the same passes."""
    where: str
    """The device, in a word."""

    def sizes(self) -> tuple[int, int]:
        """How many weights there are, and how many of them are learned."""

    def renew(self) -> None:
        """The optimizer starts anew."""

    def begin(self) -> None:
        """An epoch of training."""

    def gradient(self, part: Share, stop: bool) -> Gradient:
        """Of the step's loss, clipped. `stop`: this rank was asked to."""

    def learn(self, rate: float) -> None:
        """From the gradient, once."""

    def memory(self) -> int:
        """Bytes in use at the worst moment so far."""

    def loss(self, batch: Batch, items: float) -> float:
        """Summed over all ranks' batches, through `items`; nothing is learned."""

    def answering(self) -> AbstractContextManager[Any]:
        """The model as `Answerer` takes it."""

    def monitors(self, batch: Batch) -> dict[str, Any]:
        """How the thoughts of a batch fare."""

    def window(self) -> list[float] | None:
        """Shares of the states in a window, the newest first."""

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: all of them, or those that are learned where that is adapters."""

    def save_state(self, folder: Path) -> None:
        """What more is needed to go on as if nothing had been."""

    def load_state(self, folder: Path) -> None: ...


def place(accelerator: Accelerator, accumulation: int = 1) -> Place:
    return Place(accelerator.process_index, accelerator.num_processes, accumulation)


class TorchEngine:
    """`model` is the one of `loaded` as it is shared: a copy or a part on every rank."""

    def __init__(
        self, config: Config, loaded: Loaded, model: nn.Module, accelerator: Accelerator, sharded: bool
    ) -> None:
        self.config, self.loaded, self.model = config, loaded, model
        self.accelerator, self.sharded = accelerator, sharded
        self.heart, self.where = heart(loaded.model), accelerator.device.type

    def sizes(self) -> tuple[int, int]:
        sizes = [(weight.numel(), weight.requires_grad) for weight in self.model.parameters()]
        return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)

    # -- learning --

    def renew(self) -> None:
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def begin(self) -> None:
        self.model.train()

    def gradient(self, part: Share, stop: bool) -> Gradient:
        losses = []
        for number, batch in enumerate(part.batches):
            with parallel.gathering(self.model, self.accelerator, number == len(part.batches) - 1):
                loss = self._loss(batch, part)
                self.accelerator.backward(loss)
            losses.append(loss.detach())
        # Asked of the device at once, and of it alone before weights change: to ask is to wait.
        found, norm = torch.stack([torch.stack(losses).sum(), self._clipped().to(losses[0].dtype)]).tolist()
        value, stops = parallel.everywhere(self.accelerator, [found, float(stop)])
        return Gradient(value / self.accelerator.num_processes, norm, stops > 0)  # one asks all

    def _loss(self, batch: Batch, part: Share) -> Tensor:
        """A micro-batch's part of the step's loss. Gradients are averaged over ranks, so it is times them."""
        if self.config.loss_norm == "tokens":
            items = part.supervised / self.accelerator.num_processes
        else:
            accumulation = self.config.gradient_accumulation_steps
            items = float((batch.labels[:, 1:] != IGNORED).sum() * accumulation)
        loss: Tensor = self.model(
            **tensors(batch, self.accelerator.device),
            columns=batch.columns,
            num_items_in_batch=max(items, 1e-9),
            loss_only=True,
        ).loss
        return loss

    def _clipped(self) -> Tensor:
        most = self.config.max_grad_norm or torch.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), most)
        return parallel.whole_tensor(norm)

    def learn(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    def memory(self) -> int:
        return peak_memory(self.accelerator.device)

    # -- measuring --

    @torch.no_grad()
    def loss(self, batch: Batch, items: float) -> float:
        self.model.eval()
        given = tensors(batch, self.accelerator.device)
        loss = self.model(**given, columns=batch.columns, num_items_in_batch=items).loss
        (value,) = parallel.everywhere(self.accelerator, [loss.item()])
        return value

    @contextmanager
    def answering(self) -> Iterator[Any]:
        with self.accelerator.autocast():
            yield self.heart

    def monitors(self, batch: Batch) -> dict[str, Any]:
        inputs = tensors(batch, self.accelerator.device)
        return monitors.monitor(self.model, {**inputs, "columns": batch.columns})

    def window(self) -> list[float] | None:
        return monitors.window_weights(self.heart)

    # -- saving --

    def weights(self) -> dict[str, Tensor]:
        return resume.weights(self.model, only_trained=self.loaded.model is not self.heart)

    def save_state(self, folder: Path) -> None:
        resume.save_state(folder, self.model, self.optimizer, self.accelerator)

    def load_state(self, folder: Path) -> None:
        resume.load_state(folder, self.model, self.optimizer, self.accelerator)


def torch_engine(config: Config, loaded: Loaded, accelerator: Accelerator, sharded: bool) -> TorchEngine:
    """A model to be trained, which is distributed here."""
    inner = heart(loaded.model)
    if config.gradient_checkpointing:
        inner.activation_checkpointing_enable()
    if config.compile:
        parallel.compile_parts(inner)
    model = parallel.distribute(inner, accelerator, sharded)
    # Dropout of a rank's own, whatever was drawn before.
    torch.manual_seed(config.seed + accelerator.process_index)
    return TorchEngine(config, loaded, model, accelerator, sharded)
