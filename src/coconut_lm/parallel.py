"""Devices and ranks: accelerate's, with FSDP2 put around a finished model."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from coconut_lm.config import Config
from coconut_lm.errors import UserError
from coconut_lm.model import CoconutForCausalLM


def accelerator(config: Config) -> Accelerator:
    """This process's place among the ranks; `torchrun` and `accelerate launch` say it in the environment."""
    # A run before this one, in the same process, may have been of another precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    wait = InitProcessGroupKwargs(timeout=timedelta(minutes=config.timeout_minutes))
    copies = DistributedDataParallelKwargs(find_unused_parameters=_sometimes_unused(config))
    found = Accelerator(
        mixed_precision="bf16" if config.bf16 is True else "no",
        kwargs_handlers=[wait, copies],
        cpu=_on_cpu_only(),
    )
    if found.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise UserError(
            "accelerate is set up to shard the model itself",
            given="FSDP or DeepSpeed in accelerate's configuration",
            do="leave it out there, and set fsdp: full in the run's configuration",
        )
    return found


def _on_cpu_only() -> bool:
    mps = torch.backends.mps.is_available()
    return not torch.cuda.is_available() and (not mps or int(os.environ.get("WORLD_SIZE", "1")) > 1)


def _sometimes_unused(config: Config) -> bool:
    """Weights of the feedback have no part in a step without thoughts, which DDP must be told."""
    return config.latent_variant == "learnable_weights" or config.latent_projection is not None


def place(model: nn.Module, accelerator: Accelerator) -> None:
    """Onto this process's device; quantised weights are put there when they are loaded."""
    if not any(type(weight).__module__.startswith("bitsandbytes") for weight in model.parameters()):
        model.to(accelerator.device)


def distribute(model: CoconutForCausalLM, accelerator: Accelerator, sharded: bool) -> nn.Module:
    """The model as it is trained: on its device, and a copy or a part of it on every rank."""
    if not sharded:
        prepared: nn.Module = accelerator.prepare_model(model)
        return prepared
    halved = accelerator.mixed_precision == "bf16"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if halved else MixedPrecisionPolicy()
    settings: dict[str, Any] = {"mp_policy": policy}
    # Each call moves what it shards to the device: the model as a whole might not fit there.
    for block in blocks(model):
        fully_shard(block, **settings)
        block.register_forward_pre_hook(_lend)
        block.register_forward_hook(_take_back, prepend=True)
    # It warns of logits that are a view, should anyone write into them: nobody does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    # The root holds what every pass needs: embeddings, norm and head. It stays whole between the passes.
    fully_shard(model, reshard_after_forward=False, **settings)
    return model


def hold(model: nn.Module) -> None:
    """Shards that are put together once a step, not for each of its passes: more to hold, less to send."""
    assert isinstance(model, FSDPModule)
    model.set_reshard_after_forward(False)
    model.set_reshard_after_backward(False)
    for part in model.modules():
        part.__dict__["held"] = True


class _Lent(torch.autograd.Function):
    """A weight as one pass uses it, whose gradient is there when that pass is done. Autograd by itself adds
    it up over all passes, and would hold the whole model's gradients until it reaches the first of them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> None:
        weight = ctx.weight
        weight.grad = gradient.contiguous() if weight.grad is None else weight.grad + gradient


def _lend(block: nn.Module, _: Any) -> None:
    if torch.is_grad_enabled() and not getattr(block, "held", False):
        for part in block.modules():
            for name, weight in part._parameters.items():
                if weight is not None and weight.requires_grad:
                    lent = _Lent.apply(weight)
                    lent.lent = weight
                    part._parameters[name] = lent


def _take_back(block: nn.Module, *_: Any) -> None:
    for part in block.modules():
        for name, weight in part._parameters.items():
            part._parameters[name] = getattr(weight, "lent", weight)


def blocks(model: CoconutForCausalLM) -> list[nn.Module]:
    """The layers that the base model says must not be split."""
    base = model.base_causallm
    names = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def compile_parts(model: CoconutForCausalLM) -> None:
    """Compiles what a block is made of and does not see the cache: that is another in every layer and pass,
    and a block compiled whole would be compiled anew for each of them."""
    for block in blocks(model):
        for part in block.children():
            name = f"{type(part).__module__}.{type(part).__name__}"
            if not name.startswith("torch.") and "Attention" not in name:
                part.compile(dynamic=True)


@contextmanager
def gathering(model: nn.Module, accelerator: Accelerator, last: bool) -> Iterator[None]:
    """Copies of a model share gradients at the last micro-batch only. Shards do after each: to keep whole
    gradients until then would take the memory that sharding saves. What was held is let go at the last."""
    if not last and not isinstance(model, FSDPModule):
        with accelerator.no_sync(model):
            yield
        return
    yield
    for part in model.modules() if last else ():
        if isinstance(part, FSDPModule):
            part.reshard()


def everywhere(accelerator: Accelerator, values: list[float]) -> list[float]:
    """The sums over all ranks."""
    if accelerator.num_processes == 1:
        return values
    there = torch.tensor(values, dtype=torch.float64 if accelerator.device.type == "cpu" else torch.float32)
    summed: list[float] = accelerator.reduce(there.to(accelerator.device), "sum").tolist()
    return summed


def smallest(accelerator: Accelerator, value: int) -> int:
    """The least of all ranks' values."""
    return int(accelerator.gather(torch.tensor([value], device=accelerator.device)).min())


def whole_tensor(value: Tensor) -> Tensor:
    """A number that is kept in parts, put together."""
    return value.full_tensor() if isinstance(value, DTensor) else value
