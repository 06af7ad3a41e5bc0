"""What a run or a checkpoint is made of: tokenizer, model, weights, adapters, method and curriculum.

Every method has the same model: where nothing is thought, it is the base alone behind the same calls, and its
vocabulary has no rows for the latent tokens.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from coconut_lm import base as bases
from coconut_lm import checkpoint, feedback, tokens
from coconut_lm.adapters import add_lora, quantization, quietly
from coconut_lm.checkpoint import Weights
from coconut_lm.config import Config, load
from coconut_lm.configuration import CoconutConfig
from coconut_lm.data.example import Example, Task, read_examples
from coconut_lm.errors import UserError
from coconut_lm.evaluate import task_named
from coconut_lm.methods import METHODS, Curriculum, Rows
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.runfolder import PROGRESS, RUN, Progress, checkpoint_of
from coconut_lm.tokens import EncodedSet, LatentTokens

ADAPTER = "adapter_config.json"
END = 1e9  # an epoch after the end of any curriculum
Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Loaded:
    """What training, evaluation and looking work with; `config` and `progress` are the run's, if any."""

    model: PreTrainedModel  # CoconutForCausalLM, or peft's model around one
    tokenizer: Any
    tokens: LatentTokens
    method: str
    curriculum: Curriculum
    config: Config | None = None
    progress: Progress | None = None
    place: Path | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    """What tells it from the same checkpoint opened otherwise."""

    def rows(self, examples: EncodedSet, seed: int = 0) -> Rows:
        """What this model reads of these examples."""
        return Rows(examples, self.tokens, self.method, self.curriculum, seed=seed)

    def read(self, data: str, *, split: str | None = None, limit: int | None = None) -> list[Example]:
        """The examples it can be asked."""
        return read_examples(data, split=split, limit=limit)

    def prompts(self, examples: Sequence[Example], seed: int = 0) -> Rows:
        """What it is asked of them."""
        return self.rows(tokens.encode(examples, self.tokenizer), seed)

    def judge(self, task: str, scoring: str = "tolerant") -> Task:
        """How its answers are judged."""
        return task_named(task, scoring)

    def stage(self, thoughts: int | None = None) -> int:
        """The stage it is used at unless told otherwise: the one configured, or that of its last epoch."""
        method, config = METHODS[self.method], self.config
        if config is not None and config.eval_stage is not None:
            return config.eval_stage
        if self.progress is not None:
            return self.progress.stage
        if config is None and method.filler and thoughts is None:
            raise UserError(
                "the checkpoint does not say how many thoughts it is used with",
                do="add --thoughts N, or --config with the configuration of its run",
            )
        return method.schedule(self.curriculum, END if config is None else config.resume)


def assemble(config: Config, texts: Texts = tuple) -> Loaded:
    """What a run starts from. `texts` are those that a word-level tokenizer is built of."""
    torch.manual_seed(config.seed)  # new models and new rows
    tokenizer, size = _tokenizer(config, texts)
    base = _base(config, size, tokens.latent_tokens(tokenizer).eos)
    weights = _weights(config.load_model_path) if config.load_model_path else None
    if weights and not weights.thinks:  # such as those of a CoT run, before the vocabulary grows
        checkpoint.load_base(base, weights)
    model = CoconutForCausalLM.from_base(
        base,
        tokenizer,
        feedback=feedback.settings(config),
        new_token_init=config.new_token_init if METHODS[config.method].filler else None,
    )
    if weights and weights.thinks:
        checkpoint.load_into(model, weights)
    return _loaded(_adapted(model, config), tokenizer, config)


def open_checkpoint(place: str | os.PathLike[str], config: Config | None = None) -> Loaded:
    """A checkpoint folder, a run folder (its newest checkpoint), or any causal language model, to be used.

    `config` takes the place of the checkpoint's own; a file of weights alone needs one.
    """
    path = checkpoint_of(place)
    if config is None and (path / RUN).is_file():
        config = load(path / RUN, check_files=False)
    if (path / ADAPTER).is_file():
        return _with_adapter(path, config)
    if path.is_file() or (config and path.is_dir() and not (path / "config.json").is_file()):
        return _weights_alone(path, config)
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError(
            f"{path} is no checkpoint",
            given="a folder without config.json",
            expected="a checkpoint folder, a run folder, or a hub id",
        )
    source = path if path.is_dir() else str(place)
    tokenizer = tokens.load_tokenizer(source, _pauses(config))
    return _loaded(_opened(source, tokenizer), tokenizer, config, path)


def merged(model: PreTrainedModel) -> CoconutForCausalLM:
    """The model with its adapters worked into its weights, if it has any."""
    return model if isinstance(model, CoconutForCausalLM) else model.merge_and_unload()


def heart(model: Any) -> CoconutForCausalLM:
    """The thinking model inside peft's."""
    return model if isinstance(model, CoconutForCausalLM) else model.get_base_model()


def _loaded(
    model: PreTrainedModel, tokenizer: Any, config: Config | None, place: Path | None = None
) -> Loaded:
    method = config.method if config else ("coconut" if heart(model).config.thinks else "cot")
    curriculum = Curriculum.of(config) if config else Curriculum()
    progress = Progress.read(place) if place and (place / PROGRESS).is_file() else None
    latent = tokens.latent_tokens(tokenizer)
    return Loaded(model, tokenizer, latent, method, curriculum, config, progress, place)


def _pauses(config: Config | None) -> bool:
    return config is not None and METHODS[config.method].filler == "pause"


def _tokenizer(config: Config, texts: Texts) -> tuple[Any, int]:
    """The tokenizer with the latent tokens, and how many tokens it has without."""
    pause = _pauses(config)
    given = checkpoint_of(config.load_model_path) if config.load_model_path else None
    if config.tokenizer in (None, "word") and given and (given / "tokenizer.json").is_file():
        tokenizer = tokens.load_tokenizer(given, pause)
    elif config.tokenizer == "word":
        tokenizer = tokens.word_tokenizer(texts())
        tokens.add_latent_tokens(tokenizer, pause)
    else:
        source = config.tokenizer or config.model_id or given
        assert source is not None, "a configuration names a model"
        tokenizer = tokens.load_tokenizer(source, pause)
    return tokenizer, tokens.latent_tokens(tokenizer).before


def _base(config: Config, size: int, end: int) -> PreTrainedModel:
    """The model before it thinks, with the weights it comes with."""
    kwargs: dict[str, Any] = {"dtype": config.dtype}
    if config.attn_implementation:
        kwargs["attn_implementation"] = config.attn_implementation
    if config.lora and config.lora.quantize != "none":
        kwargs["quantization_config"] = quantization()
    source = config.model_id or config.model_config_path
    if source is not None:
        return bases.load(source, size, end, **kwargs)
    assert config.load_model_path is not None, "a configuration names a model"
    return _of_checkpoint(config.load_model_path, size, end, kwargs)


def _of_checkpoint(place: str, size: int, end: int, kwargs: dict[str, Any]) -> PreTrainedModel:
    """A base of a checkpoint's shape; its weights go in later."""
    path = checkpoint_of(place)
    if (path / ADAPTER).is_file():
        return _base(load(path / RUN, check_files=False), size, end)
    if not (path / "config.json").is_file():
        raise UserError(
            f"{place} does not say what model it is of",
            given="weights without config.json",
            do="name the model: model_id=...",
        )
    shape = bases.shape(path)
    if not isinstance(shape, CoconutConfig):
        return bases.load(path, size, end, **kwargs)
    shape.base_config.vocab_size = size if shape.thinks else shape.base_config.vocab_size
    return bases.new(shape.base_config, **kwargs)


def _weights(place: str) -> Weights:
    """Those of a checkpoint in any format; adapters are worked in."""
    path = checkpoint_of(place)
    if (path / ADAPTER).is_file() and (path / RUN).is_file():
        model = merged(open_checkpoint(path).model)
        return Weights(dict(model.state_dict()), thinks=model.config.thinks, place=str(place))
    return checkpoint.read(path)


def _adapted(model: CoconutForCausalLM, config: Config) -> PreTrainedModel:
    if config.lora is None:
        return model
    if config.lora.quantize != "none":
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    settings = config.lora.model_dump(exclude={"quantize"})
    return add_lora(model, **settings)


def _with_adapter(path: Path, config: Config | None) -> Loaded:
    from peft import PeftModel

    if config is None:
        raise UserError(
            f"{path} holds adapters and not what they belong to",
            given=f"no {RUN}",
            do="give the configuration of its run: --config CONFIG",
        )
    under = assemble(config.model_copy(update={"lora": None, "tokenizer": str(path)}))
    with quietly():
        model = PeftModel.from_pretrained(under.model, path)
    return _loaded(model.eval(), under.tokenizer, config, path)


def _weights_alone(path: Path, config: Config | None) -> Loaded:
    if config is None:
        raise UserError(
            f"{path} is a file, which does not say what model it is of",
            expected="a checkpoint folder, or a configuration that names the model",
            do="give --config CONFIG, or convert it: coconut-lm convert",
        )
    loaded = assemble(config.model_copy(update={"load_model_path": str(path)}))
    loaded.model.eval()
    return loaded


def _opened(source: str | Path, tokenizer: Any) -> PreTrainedModel:
    """Of our kind, or a base, which does not think."""
    try:
        shape = bases.shape(source)
    except (OSError, ValueError) as error:
        raise UserError(
            "no model could be loaded",
            given=source,
            expected="a checkpoint folder, a run folder, or a hub id",
            do=f"({str(error).splitlines()[0]})",
        ) from None
    if isinstance(shape, CoconutConfig):
        return CoconutForCausalLM.from_pretrained(source).eval()
    if hasattr(shape, "coconut"):
        return _of_mlx(Path(source))
    return CoconutForCausalLM.from_base(source, tokenizer, new_token_init=None, dtype="auto").eval()


def _of_mlx(path: Path) -> CoconutForCausalLM:
    """Of a folder that was written for MLX, which says all that ours says."""
    weights = checkpoint.read(path)
    assert weights.config is not None
    model = CoconutForCausalLM(weights.config).to(weights.dtype)
    checkpoint.load_into(model, weights)
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model.eval()
