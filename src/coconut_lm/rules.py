"""What keys say together: what follows from them, what contradicts, which files must be there.

A finding is (the keys it speaks of, what is wrong); it is told only if each of those keys is valid by itself.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coconut_lm.schema import Lora, Schema

Finding = tuple[tuple[str, ...], str]

_THINKS = ("coconut", "no_curriculum", "pause_as_thought")
_TASKS = {"prosqa": "prosqa", "prontoqa": "prontoqa", "math": "math", "gsm": "gsm8k", "mmlu": "mmlu"}
_PLACES = (
    "save_path",
    "model_id",
    "model_config_path",
    "load_model_path",
    "tokenizer",
    "train_path",
    "val_path",
)
_SUFFIXES = {".json", ".jsonl", ".txt", ".yaml", ".yml", ".csv", ".parquet", ".safetensors", ".pt", ".bin"}
_PLACEHOLDER = re.compile(r"YOUR_|PATH_TO_|path/to/|^<.*>$")


def implied(config: Schema) -> dict[str, Any]:
    """Values of keys that were left open, where other keys settle them."""
    found: dict[str, Any] = {}
    if config.dtype is None:
        found["dtype"] = "bfloat16" if config.bf16 == "pure" else "float32"
    if config.task is None and (task := _task_of(config.val_path or "")):
        found["task"] = task
    if config.method == "pause" and config.pause_tokens is None:
        found["pause_tokens"] = config.c_thought * config.max_latent_stage
    if config.model_config_path and config.tokenizer is None:
        found["tokenizer"] = "openai-community/gpt2"
    window = (config.latent_variant, config.latent_window_size, config.latent_window_weights)
    if window == ("fixed_window", 3, None):
        found["latent_window_weights"] = (0.6, 0.3, 0.1)
    if config.latent_variant == "learnable_weights_lora" and (adapters := _adapters(config)):
        found |= {"latent_variant": "learnable_weights", "lora": adapters}
    return found


def _adapters(config: Schema) -> Lora | None:
    """Those of learnable_weights_lora; `lora: null` beside it stays, to be told as a contradiction."""
    return config.lora if "lora" in config.model_fields_set else Lora(target_modules=("c_attn", "c_proj"))


def _task_of(path: str) -> str | None:
    """The data set that the file's name, else its folder's, speaks of, if any."""
    for part in reversed(Path(path.lower()).parts[-2:]):
        for word, task in _TASKS.items():
            if word in part:
                return task
    return None


def contradictions(config: Schema) -> Iterator[Finding]:
    yield from _of_the_run(config)
    yield from _of_the_curriculum(config)
    yield from _of_the_model(config)
    yield from _of_the_thoughts(config)


def _of_the_run(c: Schema) -> Iterator[Finding]:
    if Path(c.name).is_absolute() or ".." in Path(c.name).parts:
        yield ("name",), "leaves save_path"
    if c.resume >= c.num_epochs and not c.only_eval:
        yield ("resume", "num_epochs"), "nothing is left to train"
    if c.backend == "mlx":
        yield from not_on_mlx(c)


def not_on_mlx(c: Schema) -> Iterator[Finding]:
    """What a run asks for that only torch does."""
    if c.fsdp not in ("off", "auto"):
        yield ("backend", "fsdp"), "mlx does not shard; set fsdp: off"
    if c.lora and c.lora.quantize != "none":
        yield ("backend", "lora"), "mlx trains no quantised weights; leave lora.quantize out"
    if c.gradient_checkpointing and not c.only_eval:
        yield ("backend", "gradient_checkpointing"), "mlx keeps all it computed; leave it out"
    if c.dtype == "float64":
        yield ("backend", "dtype"), "mlx has no float64 on a GPU; leave dtype out"


def _of_the_curriculum(c: Schema) -> Iterator[Finding]:
    if c.method in _THINKS and c.c_thought == 0 and c.max_latent_stage > 0:
        yield ("method", "c_thought", "max_latent_stage"), "steps go, no thought comes; this is no_thoughts"
    if c.method == "pause" and c.pause_tokens == 0:
        yield ("method", "pause_tokens", "c_thought", "max_latent_stage"), "no pause token; this is no_cot"
    if c.stage_mix == "proportional" and c.uniform_prob > 0:
        yield ("stage_mix", "uniform_prob"), "both draw the stage; proportional wants uniform_prob 0"
    if c.group_by_length and not c.shuffle:
        yield ("shuffle", "group_by_length"), "both order the examples; leave one out"


def _of_the_model(c: Schema) -> Iterator[Finding]:
    sources = ("model_id", "model_config_path", "load_model_path")
    fresh = c.model_id is None or c.model_id.endswith(".json")
    if not any(getattr(c, key) for key in sources):
        yield sources, "no model; give model_id"
    elif c.only_eval and fresh and c.load_model_path is None:
        yield ("only_eval", *sources), "an untrained model would be evaluated; give load_model_path"
    if c.model_id and c.model_config_path:
        yield ("model_id", "model_config_path"), "two models; keep one"
    if c.model_id and fresh and c.tokenizer is None:
        yield ("model_id", "tokenizer"), "a config JSON brings no tokenizer; give one, or word"
    if fresh and c.model_id and c.lora and c.lora.quantize != "none":
        yield ("model_id", "lora"), "a new model has no weights to quantise; leave lora.quantize out"
    if c.save_mlx_file and c.lora:
        yield ("save_mlx_file", "lora"), "a run of adapters saves them alone; leave save_mlx_file out"
    if c.bf16 == "pure" and c.dtype != "bfloat16":
        yield ("bf16", "dtype"), "pure means bfloat16 weights; leave dtype out"


def _of_the_thoughts(c: Schema) -> Iterator[Finding]:
    weights, size = c.latent_window_weights, c.latent_window_size
    if c.latent_variant == "learnable_weights_lora":
        yield ("latent_variant", "lora"), "learnable_weights is the one without adapters"
    if c.latent_variant == "fixed_window" and weights is None:
        yield ("latent_window_size", "latent_window_weights"), "give the weights of this window, newest first"
    if weights is not None and c.latent_variant != "fixed_window":
        yield ("latent_variant", "latent_window_weights"), "only fixed_window takes weights"
    elif weights is not None and len(weights) != size:
        yield ("latent_window_size", "latent_window_weights"), "one weight for each state of the window"
    elif weights is not None and weights[0] == 0:
        yield ("latent_window_weights",), "the newest state, which comes first, needs a weight above 0"


def absent(config: Schema) -> Iterator[Finding]:
    """Places that are not filled in, and files of this disk that are not there; hub ids are let through."""
    read = _PLACES if not config.only_eval else tuple(key for key in _PLACES if key != "train_path")
    for key in read:
        place = getattr(config, key)
        if place is None:
            if key in ("train_path", "val_path"):
                yield (key,), "is missing"
        elif _PLACEHOLDER.search(place):
            yield (key,), "is not filled in"
        elif key != "save_path" and _is_local(key, place) and not Path(place).exists():
            yield (key,), f"no such file or folder{_neighbour(Path(place))}"


def _is_local(key: str, place: str) -> bool:
    """`org/name` may be on a hub; anything that could not be is a path."""
    folder, *rest = place.split("/")
    written_as_path = place.startswith((".", "~")) or Path(place).suffix in _SUFFIXES or len(rest) > 1
    return key == "model_config_path" or written_as_path or bool(rest) and Path(folder).is_dir()


def _neighbour(path: Path) -> str:
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        return f"; nor is there a folder {path.parent}"
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; is it {path.parent / near[0]}?" if near else ""
