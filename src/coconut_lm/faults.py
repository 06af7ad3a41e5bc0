"""What goes wrong while training, in words: a loss that is no number, memory that is not enough."""

from pathlib import Path

import numpy as np
import torch

from coconut_lm.config import Config
from coconut_lm.errors import UserError
from coconut_lm.feed import Share


def diverged(part: Share, loss: float, step: int, folder: Path, rank: int) -> UserError:
    """Keeps the batch for whoever looks for the reason; the last checkpoint is as it was."""
    place = folder / f"diverged_at_step_{step}_rank_{rank}.npz"
    arrays = {
        f"{name}_{number}": getattr(batch, name)
        for number, batch in enumerate(part.batches)
        for name in ("input_ids", "labels", "index")
    }
    np.savez(place, allow_pickle=False, **arrays)
    return UserError(
        f"the loss is {loss} at step {step}: training stops before it learns from it",
        given=f"the rows in {place}",
        do="lower lr, add warmup_steps, or set max_grad_norm; what was saved before is as it was",
    )


def in_words(error: RuntimeError, config: Config) -> Exception:
    """Out of memory is said with the knobs that help; anything else is as it was."""
    short = ("not enough memory", "can't allocate memory", "Insufficient Memory", "out of memory")
    if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in short):
        return error
    batch, accumulation = config.batch_size_training, config.gradient_accumulation_steps
    half = f"batch_size_training={max(1, batch // 2)} gradient_accumulation_steps={accumulation * 2}"
    knobs = {
        "gradient_checkpointing=true": config.gradient_checkpointing,
        "bf16=true": bool(config.bf16),
        "fsdp=full": config.fsdp == "full",
        "lora.r=16": config.lora is not None,
    }
    return UserError(
        "the device is out of memory",
        given=f"batch_size_training {batch}: {str(error).splitlines()[0]}",
        do=", or ".join([half, *(knob for knob, turned in knobs.items() if not turned)]),
    )
