"""What goes wrong while training, in words: a loss that is no number, memory that is not enough,
a rank that is gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from coconut_lm.config import Config
from coconut_lm.errors import UserError
from coconut_lm.feed import Share


def diverged(what: str, part: Share, step: int, folder: Path, rank: int) -> UserError:
    """Keeps the batch for whoever looks for the reason; the last checkpoint is as it was."""
    place = folder / f"diverged_at_step_{step}_rank_{rank}.npz"
    arrays = {
        f"{name}_{number}": getattr(batch, name)
        for number, batch in enumerate(part.batches)
        for name in ("input_ids", "labels", "index")
    }
    np.savez(place, allow_pickle=False, **arrays)
    return UserError(
        f"the {what} at step {step}: training stops before it learns from it",
        given=f"the rows in {place}",
        do="lower lr, add warmup_steps, or set max_grad_norm; what was saved before is as it was",
    )


@contextmanager
def in_words(config: Config) -> Iterator[None]:
    """Out of memory is said with the knobs that help, a lost rank as what it is; all else is as it was."""
    try:
        yield
    except RuntimeError as error:
        said = (str(error).splitlines() or [""])[0]
        if _out_of_memory(error):
            raise UserError("the device is out of memory", given=said, do=_knobs(config)) from error
        if any(name in said for name in ("gloo", "NCCL", "TCPStore")):
            raise UserError(
                f"another rank has ended, or kept this one waiting for {config.timeout_minutes:g} minutes",
                given=said,
                do="see what the first rank that failed says; the same command goes on from the newest "
                "checkpoint (timeout_minutes=... to wait longer)",
            ) from error
        raise


def _out_of_memory(error: RuntimeError) -> bool:
    short = (
        "not enough memory",
        "can't allocate memory",
        "Insufficient Memory",
        "out of memory",
        "Unable to allocate",
    )
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in short)


def _knobs(config: Config) -> str:
    """Those that are not turned yet."""
    batch, accumulation, asked = (
        config.batch_size_training,
        config.gradient_accumulation_steps,
        config.eval_batch_size,
    )
    knobs = {
        f"batch_size_training={batch // 2} gradient_accumulation_steps={accumulation * 2}": batch > 1,
        "gradient_checkpointing=true": not config.gradient_checkpointing and config.backend != "mlx",
        "bf16=true": not config.bf16,
        "fsdp=full (on several devices)": config.fsdp != "full" and config.backend != "mlx",
        "lora.r=16": config.lora is None,
        f"eval_batch_size={asked // 2} (where it was validating)": asked > 1,
    }
    return ", or ".join(knob for knob, turned in knobs.items() if turned)
