"""Models in the formats of others: the published code's file, a folder that MLX reads. And our own folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from coconut_lm import card, layout
from coconut_lm.config import Config, dump
from coconut_lm.errors import UserError
from coconut_lm.feedback import Feedback, FixedWindow, LastHidden, LearnedWindow
from coconut_lm.files import atomic_folder, atomic_write, refuse_overwrite
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.runfolder import RUN, Progress
from coconut_lm.weights import FEEDBACK, OWN, PREFIX, WEIGHTS


def to_hf(
    model: CoconutForCausalLM,
    tokenizer: Any,
    place: Path,
    *,
    config: Config | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> None:
    """A folder for `from_pretrained`, `coconut-lm eval` and all that reads transformers' folders.

    `config` and `progress` are the run's, where they are known: evaluation takes method and stage from them.
    """
    with atomic_folder(place, force=force) as folder:
        model.save_pretrained(folder)
        _beside(folder, tokenizer, config, progress)
        if config is not None and progress is not None:
            card.write(folder, config, progress)
        else:
            card.introduce(folder, model.base_causallm.config.model_type, model.config.thinks)


def to_official(model: CoconutForCausalLM, place: Path, *, force: bool = False) -> None:
    """The published code's file: tensors alone, the embedding twice where it thinks."""
    refuse_overwrite(place, force)
    tensors = layout.held(model.base_causallm)
    if model.config.thinks:
        tensors = {PREFIX + name: tensor for name, tensor in tensors.items()}
        tensors["embedding.weight"] = model.get_input_embeddings().get_parameter("weight").detach().cpu()
        tensors |= _window(model.feedback)
    with atomic_write(place, force=force) as file:
        torch.save(tensors, file.buffer)


def to_mlx(
    model: CoconutForCausalLM,
    tokenizer: Any,
    place: Path,
    *,
    config: Config | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> None:
    """A folder that mlx_lm loads as the base; what thinking adds is beside it, for us.

    config.json holds the base's keys, and ours under `coconut`; feedback.safetensors the feedback's weights.
    """
    base = model.base_causallm
    feedback = {FEEDBACK + name: tensor for name, tensor in layout.held(model.feedback).items()}
    with atomic_folder(place, force=force) as folder:
        save_file(layout.to_mlx(base), folder / WEIGHTS, metadata={"format": "pt"})
        if feedback:
            save_file(feedback, folder / OWN, metadata={"format": "pt"})
        content = layout.config_for_mlx(base.config) | {"coconut": model.config.to_dict()}
        (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        model.generation_config.save_pretrained(folder)
        _beside(folder, tokenizer, config, progress)


def to_mlx_file(
    model: CoconutForCausalLM, place: Path, whole: Mapping[str, Tensor] | None = None, *, force: bool = False
) -> None:
    """All weights in one file, with the names and the layout of vincentamato/mlx-coconut; each tensor once.

    `whole` is the model's state dict, where the model itself holds it no longer.
    """
    refuse_overwrite(place, force)
    turned = {PREFIX + name for name in layout.transposed(model.base_causallm)}
    held = layout.held(model) if whole is None else whole
    prefix = PREFIX if model.config.thinks else ""
    tensors = {
        name.replace(PREFIX, prefix, 1).replace(layout.GPT2, "", 1): (
            t.T if name in turned else t
        ).contiguous()
        for name, t in held.items()
        if name not in model.tied_weights
    }
    with atomic_write(place, force=force) as file:
        file.buffer.write(save(tensors))


def _beside(folder: Path, tokenizer: Any, config: Config | None, progress: Progress | None) -> None:
    tokenizer.save_pretrained(folder)
    if config is not None:
        dump(config, folder / RUN)
    if progress is not None:
        progress.write(folder)


def _window(feedback: Feedback) -> dict[str, Tensor]:
    """A learned window in the order of the text; a fixed one is a constant of the code that reads it."""
    if isinstance(feedback, LearnedWindow):
        return {"latent_weights": feedback.latent_weights.detach().cpu().flip(0)}
    if isinstance(feedback, LastHidden | FixedWindow):
        return {}
    raise UserError(
        "the published format has no place for this feedback",
        given=type(feedback).__name__,
        expected="the last hidden state, or a window",
        do="convert to hf or mlx",
    )
