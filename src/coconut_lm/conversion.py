"""A checkpoint of any format as our model, with what it does not say itself told beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from coconut_lm import assembly, checkpoint, tokens
from coconut_lm import base as bases
from coconut_lm.checkpoint import Weights
from coconut_lm.config import Config, load
from coconut_lm.errors import UserError
from coconut_lm.methods import METHODS
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.runfolder import Progress, checkpoint_of
from coconut_lm.weights import WINDOW


@dataclass(frozen=True)
class Opened:
    """A model of ours, whatever it was read from, and what is known beside its weights."""

    model: CoconutForCausalLM
    tokenizer: Any
    kind: str
    """The format it came in."""
    config: Config | None = None
    """That of its run, where it is known, as is how far it got."""
    progress: Progress | None = None


def open_any(
    source: str | Path,
    *,
    config: str | None = None,
    tokenizer: str | None = None,
    method: str | None = None,
    merge: bool = False,
) -> Opened:
    """`config` is a run's YAML, or the base: its configuration's JSON, its folder or its hub id.

    `method` makes the model one that thinks, or not, whatever the weights are of; adapters are worked into
    the base, but only where `merge` says so.
    """
    if method not in (None, *METHODS):
        raise UserError("unknown method", given=method, expected=", ".join(METHODS))
    path = checkpoint_of(source)
    if config and Path(config).suffix in (".yaml", ".yml"):
        return _of_run(path, load(config, check_files=False), tokenizer, method, merge)
    if (path / assembly.ADAPTER).is_file():
        return _of_ours(path, "coconut-lm, LoRA", merge)
    weights = checkpoint.read(path)
    if weights.config is not None and not (config or method or tokenizer):
        return _of_ours(path, weights.kind, merge)
    return _of_weights(weights, config, tokenizer, method, merge)


def _of_ours(path: Path, kind: str, merge: bool) -> Opened:
    loaded = assembly.open_checkpoint(path)
    if not isinstance(loaded.model, CoconutForCausalLM):
        _asked_to_merge(merge, path)
    return Opened(assembly.merged(loaded.model), loaded.tokenizer, kind, loaded.config, loaded.progress)


def _of_run(path: Path, run: Config, tokenizer: str | None, method: str | None, merge: bool) -> Opened:
    """Weights alone, or adapters, as the run's configuration says what they are of."""
    if (path / assembly.ADAPTER).is_file():
        raise UserError(f"{path} says itself what it is of", do="leave --config out")
    said = {"tokenizer": tokenizer, "method": method, "load_model_path": str(path), "lora": None}
    weights = checkpoint.read(path)
    if weights.adapter is not None:
        _asked_to_merge(merge, path)
    changed = {key: value for key, value in said.items() if value or key == "lora"}
    loaded = assembly.assemble(run.model_copy(update=changed))
    return Opened(assembly.heart(loaded.model).eval(), loaded.tokenizer, weights.kind, run)


def _of_weights(
    weights: Weights, config: str | None, tokenizer: str | None, method: str | None, merge: bool
) -> Opened:
    if weights.adapter is not None:
        _asked_to_merge(merge, weights.place)
    thinks = weights.thinks if method is None else METHODS[method].filler is not None
    base = _base(weights, config, tokenizer)
    words = _tokenizer(tokenizer, config, weights.place)
    if not weights.thinks:
        checkpoint.load_base(base, weights)
    settings = weights.config.feedback if weights.config else _feedback(weights)
    model = CoconutForCausalLM.from_base(
        base, words, feedback=settings, new_token_init="<<" if thinks else None
    )
    if weights.thinks:
        checkpoint.load_into(model, weights)
    return Opened(model.eval(), words, weights.kind)


def _asked_to_merge(merge: bool, place: str | Path) -> None:
    if not merge:
        raise UserError(f"{place} holds adapters", do="add --merge to work them into the base's weights")


def _base(weights: Weights, config: str | None, tokenizer: str | None) -> PreTrainedModel:
    """A base of the weights' shape; where they are adapters alone, with its own weights."""
    if weights.config is not None and config is None:
        return bases.new(weights.config.base_config, dtype=weights.dtype)
    place = config or weights.place
    if config is None and not (Path(place) / "config.json").is_file():
        raise UserError(
            f"{place} does not say what model it is of",
            given=f"weights ({weights.kind}) without config.json",
            do="add --config: the base's configuration (JSON, folder or hub id), or the run's YAML",
        )
    if weights.adapter is None:
        shape = _found(bases.shape, place)
        bases.forget_quantised(shape)
        if "vocab_size" not in PreTrainedConfig.get_config_dict(place)[0]:  # a shape for any tokenizer
            words = _tokenizer(tokenizer, config, weights.place)
            shape.get_text_config().vocab_size = tokens.latent_tokens(words).before
        return bases.new(shape, dtype=weights.dtype)
    if place.endswith(".json"):
        raise UserError("adapters need the base's weights", given=place, expected="its folder or hub id")
    base: PreTrainedModel = _found(bases.load, place, 0)
    return base


def _tokenizer(tokenizer: str | None, config: str | None, place: str) -> Any:
    """From where it was said to be, from beside the base, or from beside the weights."""
    beside = None if config is None or config.endswith(".json") else config
    places = [each for each in (tokenizer, beside, place) if each and not Path(each).is_file()]
    if not places or (places == [place] and not (Path(place) / "tokenizer_config.json").is_file()):
        raise UserError(f"{place} has no tokenizer", do="add --tokenizer: a folder or hub id")
    return tokens.load_tokenizer(places[0])


def _feedback(weights: Weights) -> dict[str, Any]:
    """What the weights themselves say. The window that they hold saw the states of its own pass alone."""
    if WINDOW not in weights.tensors:
        return {}
    return {"kind": "learnable_weights", "window": len(weights.tensors[WINDOW]), "scope": "pass"}


def _found(load: Callable[..., Any], place: str, *arguments: Any) -> Any:
    try:
        return load(place, *arguments)
    except (OSError, ValueError) as error:
        given = str(error).splitlines()[0]
        raise UserError(f"no model is described by {place}", given=given, expected="a base") from None
