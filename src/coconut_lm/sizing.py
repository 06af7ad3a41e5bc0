"""A run's model without storage, and counted."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from coconut_lm import base as bases
from coconut_lm import feedback
from coconut_lm.adapters import add_lora
from coconut_lm.assembly import heart
from coconut_lm.config import Config
from coconut_lm.configuration import CoconutConfig
from coconut_lm.costs import Adapters, Shape
from coconut_lm.errors import UserError
from coconut_lm.methods import METHODS
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.parallel import blocks

SHIPPED = (
    Path("configs/models"),
    Path(__file__).parents[2] / "configs" / "models",
    Path(sys.prefix) / "share" / "coconut-lm" / "models",  # of a wheel
)


@dataclass(frozen=True)
class Sizes:
    """A model's shape, and its parameters: all, those trained, of the largest block, of no block."""

    shape: Shape
    parameters: int
    trained: int
    block: int
    root: int
    adapters: Adapters | None = None


def on_meta(
    config: Config, model_config: str | os.PathLike[str] | None = None, words: int | None = None
) -> nn.Module:
    """The run's model with its adapters, without storage. A new model has a row for each of the tokenizer's
    `words`, where they are known."""
    base_config = _base_config(config, model_config)
    if words and str(config.model_id or config.model_config_path).endswith(".json"):
        base_config.get_text_config().vocab_size = words
    old = base_config.get_text_config().vocab_size
    filler = METHODS[config.method].filler
    ids = [old + number for number in range({None: 0, "latent": 3, "pause": 4}[filler])]
    base_config.get_text_config().vocab_size = old + len(ids)
    start, end, latent, pause = (*ids, *[None] * 4)[:4]
    with torch.device("meta"):
        base = bases.new(base_config)
        given = CoconutConfig(base.config, start, end, latent, pause, feedback.settings(config))
        model = CoconutForCausalLM(given, base=base)
        if config.lora is None:
            return model
        return add_lora(model, **config.lora.model_dump(exclude={"quantize"}))


def _base_config(config: Config, model_config: str | os.PathLike[str] | None) -> PreTrainedConfig:
    source = str(model_config or config.model_id or config.model_config_path or config.load_model_path)
    place = source if Path(source).exists() else _shipped(source.split("/")[-1]) or source
    try:
        found = bases.shape(place)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            "what shape this model has is not known here",
            given=source,
            expected="a folder, a config.json, or a hub id that can be reached",
            do=f"get its config.json and give --model-config FILE ({str(error).splitlines()[0]})",
        ) from None
    return found.base_config if isinstance(found, CoconutConfig) else found


def _shipped(name: str) -> str | None:
    """The shape of a well-known model, or of one that it was tuned from."""
    known = [path for folder in SHIPPED for path in folder.glob("*.json")]
    fitting = [path for path in known if name == path.stem or name.startswith(path.stem + "-")]
    return str(max(fitting, key=lambda path: len(path.stem))) if fitting else None


def measure(model: nn.Module) -> Sizes:
    """Counts a model, on meta or not."""
    inner = heart(model)
    of_blocks = [_count(block.parameters()) for block in blocks(inner)]
    parameters = _count(model.parameters())
    shape = Shape.of(inner.config.get_text_config())
    narrow = [module for name, module in model.named_modules() if name.endswith("lora_A.default")]
    adapters = None
    if narrow:
        reads = sum(int(getattr(module, "in_features", 0)) for module in narrow)
        ranks = sum(int(getattr(module, "out_features", 0)) for module in narrow)
        adapters = Adapters(reads // shape.layers, ranks // shape.layers)
    trained = _count(weight for weight in model.parameters() if weight.requires_grad)
    return Sizes(shape, parameters, trained, max(of_blocks), parameters - sum(of_blocks), adapters)


def _count(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)
