"""Weights in every format there is: read, and told apart. Pickled code is never run."""

import json
import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from coconut_lm import layout
from coconut_lm.configuration import CoconutConfig
from coconut_lm.errors import UserError
from coconut_lm.files import read_text

PREFIX, FEEDBACK, WINDOW = "base_causallm.", "feedback.", "feedback.latent_weights"
WEIGHTS, OWN = "model.safetensors", "feedback.safetensors"
_WRAPPERS = re.compile(r"^module\.|(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_INSIDE = ("model_state", "model_state_dict", "state_dict", "model")  # where training states keep the model
_DAMAGE = (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError, ValueError, SafetensorError)


@dataclass(frozen=True)
class Weights:
    """Tensors by the base's names (`base_causallm.` before them or not) and `feedback.`'s.

    `thinks`: the vocabulary has rows for the latent tokens. `config` is there where a folder says all of it;
    `adapter` is a LoRA folder around the base, whose weights are then elsewhere.
    """

    tensors: Mapping[str, Tensor]
    thinks: bool
    place: str
    kind: str = "hf"
    config: CoconutConfig | None = field(default=None, compare=False)
    adapter: Path | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest that holds every tensor as it is."""
        found = {tensor.dtype for tensor in self.tensors.values() if tensor.is_floating_point()}
        return reduce(torch.promote_types, found) if found else torch.float32


def read(place: str | Path) -> Weights:
    """A file or folder of weights; `Weights.kind` says which format it is in."""
    path = Path(place)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise UserError(f"{path} is not there", expected="a checkpoint: a file of weights, or a folder")
    return _told(path, tensors(path), "official" if path.suffix != ".safetensors" else "hf")


def _folder(path: Path) -> Weights:
    if (path / "peft").is_dir() and (path / "latent.pt").is_file():
        latent = tensors(path / "latent.pt")
        return Weights(_named(latent), True, str(path), "seed001-lora", adapter=path / "peft")
    config, kind = _config(path)
    found = {name: tensor for file in _files(path) for name, tensor in tensors(file).items()}
    if any(name.endswith(layout.SCALES) for name in found):
        found = layout.dequantised(found, _json(path / "config.json").get("quantization") or {})
    if config is None:
        return _told(path, found, "hf")
    if kind == "mlx":
        found = layout.from_mlx(found, config.base_config.model_type)
    return Weights(_named(found), config.thinks, str(path), kind, config)


def _config(folder: Path) -> tuple[CoconutConfig | None, str]:
    """Ours, where the folder is ours: at the top of config.json, or beside what MLX reads there."""
    path = folder / "config.json"
    if not path.is_file() or path.stat().st_size == 0:  # some are published empty
        return None, "hf"
    content = _json(path)
    if content.get("model_type") == "coconut":
        return CoconutConfig.from_dict(content), "coconut-lm"
    return (CoconutConfig.from_dict(content["coconut"]), "mlx") if "coconut" in content else (None, "hf")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged", given=error, do="copy or download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged", given=type(content).__name__, expected="names and values")
    return content


def _files(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights, all of a sharded checkpoint's."""
    ours = [path for path in [folder / OWN] if path.is_file()]
    for name in (WEIGHTS, "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(_json(index).get("weight_map", {}).values()))
            if missing := [shard for shard in shards if not (folder / shard).is_file()]:
                raise UserError(f"{folder} lacks a part of its weights", given=f"no {', '.join(missing)}")
            return [folder / shard for shard in shards] + ours
        if (folder / name).is_file():
            return [folder / name, *ours]
    inside = sorted(path.name for path in folder.iterdir())
    if "adapter_config.json" in inside:
        given, do = "adapters alone", "open it with the configuration of its run beside it (run.yaml)"
    else:
        given, do = ", ".join(inside[:10]) or "an empty folder", "name the file or folder of one checkpoint"
    raise UserError(f"{folder} holds no weights", given=given, expected=WEIGHTS, do=do)


def tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of one file."""
    with open(path, "rb") as file:
        head = file.read(9)
    safe = path.suffix == ".safetensors" or head[8:] == b"{"
    if not safe and head[:1] not in (b"P", b"\x80"):  # a zip, a pickle
        raise UserError(f"{path} holds no weights", given=repr(head), expected="torch or safetensors")
    try:
        content = load_file(path) if safe else _unpickled(path, mapped=head[:1] == b"P")
    except _DAMAGE as error:
        raise _unreadable(path, str(error)) from None
    while isinstance(content, dict) and (inner := next((k for k in _INSIDE if k in content), None)):
        content = content[inner]
    if isinstance(content, dict) and content and all(isinstance(t, Tensor) for t in content.values()):
        return content
    raise UserError(f"{path} holds no weights", given=type(content).__name__, expected="named tensors")


def _unpickled(path: Path, mapped: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the pickle's age
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _unreadable(path: Path, why: str) -> UserError:
    if refused := re.search(r"unsupported (global: )?\S+ \S+", why, flags=re.IGNORECASE):
        return UserError(
            f"{path} holds more than tensors, and loading it would run code",
            given=refused[0],
            expected="tensors alone: coconut-lm never runs pickled code",
            do="where you trust the file, save its state dict alone: torch.save(model.state_dict(), path)",
        )
    given = textwrap.shorten(why.partition(". ")[0], 100) or "it ends too early"
    return UserError(f"{path} is damaged or cut off", given=given, do="copy or download it again")


def _told(path: Path, tensors: dict[str, Tensor], kind: str) -> Weights:
    """Who wrote a file shows in its names, and in the layout of GPT-2's first matrix."""
    named = _named(tensors)
    thinks = any(name.startswith(PREFIX) for name in named)
    matrix = next((t for name, t in named.items() if name.endswith("attn.c_attn.weight")), None)
    if WINDOW in named:
        kind = "seed001"
    elif kind == "hf" and matrix is not None and matrix.shape[0] == 3 * matrix.shape[1]:
        kind = "mlx"
    elif kind == "official" and not thinks:
        kind = "official-plain"
    return Weights(named, thinks, str(path), kind)


def _named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the names that wrappers put in; a window kept in the order of the text becomes ours."""
    named = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    if "latent_weights" in named:
        named[WINDOW] = named.pop("latent_weights").flip(0)  # ours begins with the newest state
    return named
