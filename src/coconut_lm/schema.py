"""Every key of a run: its type, its default, and one line on what it does.

A value may be written as YAML would read it or as text that reads so ("None", "1e-4", "True").
"""

import os
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from coconut_lm.yamlfile import scalar


def _also(*readings: tuple[Any, Any]) -> BeforeValidator:
    """Other spellings of a value, as (written, meant)."""

    def read(value: Any) -> Any:
        plain = isinstance(value, bool | str | NoneType)
        return next((meant for written, meant in readings if plain and value == written), value)

    return BeforeValidator(read)


def _listed(value: Any) -> Any:
    if value in (None, "None", "none"):
        return ()
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
Place = Annotated[Text, AfterValidator(os.path.expanduser)]
Share = Annotated[float, Field(ge=0, le=1)]
Method = Literal[
    "cot", "no_cot", "no_thoughts", "coconut", "no_curriculum", "pause_as_thought", "pause", "icot"
]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),  # model_id is a key, not pydantic's
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = kinds_of(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, str) and str not in kinds:
            value = scalar(value)
        if isinstance(value, os.PathLike) and str in kinds:
            value = os.fspath(value)
        if value in ("None", "null") and NoneType in kinds:
            return None
        if isinstance(value, float) and value.is_integer() and int in kinds:
            return int(value)
        return tuple(value) if isinstance(value, list) else value


class Lora(Section):
    r: PositiveInt = 8
    """Rank of the adapters."""
    alpha: PositiveFloat = 16.0
    """Scale of the adapters; they are multiplied by alpha / r."""
    dropout: Share = 0.05
    """Dropout before the adapters."""
    target_modules: tuple[Text, ...] | Text | None = None
    """Module names, a pattern, or all-linear; null is peft's choice for the architecture."""
    quantize: Literal["none", "4bit"] = "none"
    """The frozen weights in 4 bits (QLoRA); needs bitsandbytes and a model that is loaded, not new."""


class Icot(Section):
    remove_per_epoch: PositiveFloat = 8.0
    """Tokens of the steps that go, from the left, in the course of one epoch."""
    smoothing: PositiveFloat = 4.0
    """Rate of the random extra removal: larger is rarer (4 leaves 98 % of the rows alone)."""
    remove_all_after: NonNegativeInt = 39
    """Once this many tokens are to go, all go."""


class Schema(Section):
    # run
    project: Text = "coconut"
    """Project name in the trackers."""
    name: Text = "run"
    """Run name; the run folder is save_path/name."""
    save_path: Place = "runs"
    """Folder of all runs."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of everything random."""
    debug: bool = False
    """Few examples (32 to validate, 5000 to train), no trackers, no checkpoints."""
    only_eval: bool = False
    """Evaluate once on val_path instead of training."""
    report_to: Annotated[
        tuple[Literal["wandb", "tensorboard", "trackio"], ...], BeforeValidator(_listed)
    ] = ()
    """Trackers besides metrics.jsonl, which is always written."""
    backend: Literal["auto", "torch", "mlx"] = "auto"
    """What computes; auto is mlx on Apple silicon where it is installed, else torch."""

    # method and curriculum
    method: Method
    """What a training row looks like; coconut, cot, no_thoughts, no_cot: True say it too."""
    c_thought: NonNegativeInt = 1
    """Continuous thoughts for each removed step."""
    epochs_per_stage: PositiveInt = 1
    """Epochs of each stage."""
    max_latent_stage: NonNegativeInt = 0
    """Steps that are replaced by thoughts at most; later stages follow after_last_stage."""
    pad_latent_to_max: bool = False
    """Short examples get as many thoughts as long ones."""
    uniform_prob: Share = 0.0
    """Probability that an example is shown at a stage drawn evenly from 0 to its number of steps."""
    stage_mix: Literal["uniform", "proportional"] = "uniform"
    """uniform: uniform_prob decides; proportional: stage i of 0..now with probability ~ i + 1."""
    after_last_stage: Literal["remove_all", "hold"] = "remove_all"
    """Past max_latent_stage: remove all steps, or keep removing max_latent_stage of them."""
    first_epoch: Annotated[int, Field(ge=0, le=1)] = 0
    """Number of the first epoch when stages are counted."""
    num_epochs: PositiveInt = 25
    """Epoch at which training ends, counted from 0 and not from resume."""
    resume: NonNegativeInt = 0
    """First epoch, counted from 0; in evaluation, above 0 it selects the stage."""
    eval_stage: NonNegativeInt | None = None
    """Stage that is evaluated; null is what resume implies, the checkpoint's own, or the current epoch's."""
    pause_tokens: NonNegativeInt | None = None
    """Pause tokens of method pause; null is c_thought * max_latent_stage."""
    icot: Icot = Icot()
    """Schedule of method icot."""

    # model and thoughts
    model_id: Place | None = None
    """Hub id, model folder, or a config JSON, which is trained from scratch."""
    model_config_path: Place | None = None
    """Config JSON of the model, in place of model_id; weights come from load_model_path."""
    load_model_path: Place | None = None
    """Checkpoint whose weights are loaded before training or evaluation."""
    tokenizer: Place | None = None
    """Hub id, folder, or word (one token a word, built from train_path); null is the model's own."""
    dtype: Literal["auto", "float64", "float32", "bfloat16", "float16"] | None = None
    """Type of the weights; null is float32, or bfloat16 where bf16 is pure."""
    attn_implementation: Text | None = None
    """Attention kernel of transformers (eager, sdpa, flash_attention_2); null is its choice."""
    new_token_init: Literal["<<", "mean", "random"] = "<<"
    """Where the embeddings of the latent tokens start: the row of <<, the mean row, or noise."""
    latent_norm: Literal["none", "match_embedding"] = "none"
    """match_embedding scales a thought to the norm of an embedding."""
    latent_variant: Annotated[
        Literal["coconut", "fixed_window", "learnable_weights", "learnable_weights_lora"],
        _also((None, "coconut"), ("None", "coconut"), ("basic", "coconut")),
    ] = "coconut"
    """What is fed back: the last state (coconut, basic), or a window; ..._lora adds the section lora."""
    latent_window_size: PositiveInt = 3
    """Hidden states in the window."""
    latent_window_weights: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] | None = None
    """Weights of fixed_window, newest state first; null is 0.6, 0.3, 0.1 for a window of 3."""
    latent_window_scope: Literal["history", "pass"] = "history"
    """history: the window sees all states; pass: those of its own pass, so mostly one."""
    latent_projection: PositiveInt | None = None
    """Width of a Linear-GELU-Linear-LayerNorm behind the feedback; null has none."""
    lora: Lora | None = None
    """Low-rank adapters; null trains all weights."""

    # training
    batch_size_training: PositiveInt = 32
    """Rows of a batch on each device."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches of one optimizer step."""
    shuffle: bool = True
    """false: examples come in the order of the file, which then is a curriculum of its own."""
    group_by_length: bool = False
    """Put examples of like lengths into a batch: less padding, and an order that is a little less random."""
    lr: NonNegativeFloat = 1e-4
    """Learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW, on all parameters."""
    bf16: bool | Literal["pure"] = False
    """True: bfloat16 computation, float32 weights; pure: the weights are bfloat16 too."""
    max_grad_norm: PositiveFloat | None = None
    """Gradients are clipped to this norm; null does not clip."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps in which lr rises from 0."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """What lr does after the warm-up."""
    reset_optimizer: Annotated[
        Literal["epoch", "stage", "never"], _also((True, "epoch"), (False, "never"))
    ] = "stage"
    """When AdamW starts anew; True is epoch, False is never."""
    loss_norm: Literal["tokens", "reference"] = "tokens"
    """Loss over a step: mean over its tokens, or the reference's mean of the batches' means."""
    max_seq_length: PositiveInt | None = None
    """Longest row in tokens; null is no limit."""
    overlong: Literal["drop", "truncate", "error"] = "drop"
    """What happens to rows longer than max_seq_length."""
    train_samples: PositiveInt | None = None
    """Training examples that are used, from the first; null is all."""
    max_steps: PositiveInt | None = None
    """Optimizer steps after which training ends early."""
    save_steps: PositiveInt | None = None
    """Optimizer steps between checkpoints inside an epoch; null saves after epochs only."""
    save_only_improve: bool = False
    """Save only where validation accuracy is the best so far."""
    save_mlx_file: bool = False
    """Weights in save_path/name/checkpoint_N.safetensors too, laid out as mlx-coconut's."""
    keep_last: PositiveInt | None = None
    """Checkpoints that are kept, the newest; null is all."""
    gradient_checkpointing: bool = False
    """Less memory for more time."""
    compile: bool = False
    """Compile the model: torch.compile, or mx.compile in few shapes, with more padding."""
    num_workers: NonNegativeInt = 0
    """Processes that prepare batches."""
    fsdp: Annotated[Literal["off", "auto", "step", "full"], _also((False, "off"))] = "off"
    """Shard the model over devices: never, put together once a step, or for each pass; auto is what fits."""
    timeout_minutes: PositiveFloat = 30.0
    """How long a rank waits for the others before it gives up."""

    # data and evaluation
    train_path: Place | None = None
    """Training examples: JSON, JSON lines, a folder, or a hub id."""
    val_path: Place | None = None
    """Validation examples, or test examples with only_eval."""
    task: Literal["gsm8k", "prosqa", "prontoqa", "math", "mmlu", "plain"] | None = None
    """How answers are scored; null is told from the name of val_path, else from what it holds."""
    eval_batch_size: PositiveInt = 32
    """Questions answered at a time."""
    eval_samples: NonNegativeInt | None = None
    """Validation examples that are used, from the first; null is all."""
    max_new_tokens: PositiveInt | None = None
    """Longest output; null is the task's own limit."""
    scoring: Literal["tolerant", "reference"] = "tolerant"
    """reference: the published rules to the letter, with their 64 or 128 new tokens."""


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """The plain types that a field is a union of."""
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for arm in get_args(annotation) for kind in kinds_of(arm))
    return (annotation,)


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
_BOUNDS = {"gt": "above", "ge": "from", "le": "to"}


def allowed(annotation: Any, marks: Iterable[Any] = ()) -> str:
    """The values that an annotation admits, in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    bounds = "".join(f" {_BOUNDS[b]} {getattr(m, b)}" for m in marks for b in _BOUNDS if hasattr(m, b))
    if origin is Annotated:
        return allowed(args[0], args[1:])
    if origin in (Union, UnionType):
        return " or ".join(map(allowed, args))
    if origin is Literal:
        return ", ".join(map(str, args))
    if origin is tuple:
        return f"a list of: {allowed(args[0])}"
    if issubclass(annotation, BaseModel):
        return f"a section with {', '.join(annotation.model_fields)}"
    return _NAMES[annotation] + bounds
