"""Files of weights: told apart, and refused in words where they are damaged or hold code."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import foreign
import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny

from coconut_lm import UserError
from coconut_lm.weights import PREFIX, WINDOW, Weights, read

TENSORS = {f"h.{i}.weight": torch.full((8, 8), float(i)) for i in range(4)}


def gpt2() -> object:
    return tiny("gpt2", torch.float32)


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read(path)
    return str(raised.value)


@pytest.mark.parametrize(
    "write, kind, thinks",
    [
        (foreign.published_file, "official", True),
        (foreign.plain_file, "official-plain", False),
        (foreign.window_file, "seed001", True),
    ],
)
def test_files_of_torch_are_told_apart(tmp_path: Path, write: Callable, kind: str, thinks: bool) -> None:
    weights = read(write(gpt2(), tmp_path / "checkpoint_3"))
    assert (weights.kind, weights.thinks, weights.dtype) == (kind, thinks, torch.float32)


def test_mlx_is_told_by_its_layout(tmp_path: Path) -> None:
    weights = read(foreign.mlx_file(gpt2(), tmp_path / "checkpoint_3.safetensors"))
    assert (weights.kind, weights.thinks) == ("mlx", True)


def test_a_window_in_the_order_of_the_text_is_turned(tmp_path: Path) -> None:
    weights = read(foreign.window_file(gpt2(), tmp_path / "checkpoint_3"))
    assert weights.tensors[WINDOW].tolist() == pytest.approx(foreign.WINDOW[::-1])


def test_our_own_folders_say_whether_they_think(tmp_path: Path) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path / "thinks")
    model.config.latent_token_id = None
    model.save_pretrained(tmp_path / "does_not")
    found = {name: read(tmp_path / name) for name in ("thinks", "does_not")}
    assert [weights.kind for weights in found.values()] == ["coconut-lm"] * 2
    assert [weights.thinks for weights in found.values()] == [True, False]
    assert all(name.startswith(PREFIX) for name in found["does_not"].tensors)


@pytest.mark.parametrize("safe", [True, False])
def test_folders_of_transformers_whole_and_in_shards(tmp_path: Path, safe: bool) -> None:
    base = gpt2().base_causallm
    base.save_pretrained(tmp_path / "whole")
    whole = read(tmp_path / "whole")
    name = "model.safetensors" if safe else "pytorch_model.bin"
    shards = folder(tmp_path / "shards")
    index = {key: f"{number % 3}-{name}" for number, key in enumerate(whole.tensors)}
    for file in set(index.values()):
        held = {key: tensor for key, tensor in whole.tensors.items() if index[key] == file}
        save_file(held, shards / file) if safe else torch.save(held, shards / file)
    (shards / f"{name}.index.json").write_text(json.dumps({"weight_map": index}))
    again = read(shards)
    assert (whole.kind, whole.thinks, again.kind) == ("hf", False, "hf")
    assert again.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(again.tensors[key], whole.tensors[key]) for key in index)
    (shards / f"1-{name}").unlink()
    assert "lacks a part" in refusal(shards) and f"1-{name}" in refusal(shards)


def test_names_that_wrappers_put_in_are_taken_out(tmp_path: Path) -> None:
    names = ["module._orig_mod.base_causallm.h.0._fsdp_wrapped_module.w", "module.base_causallm.module.w"]
    torch.save(dict.fromkeys(names, torch.ones(1)), tmp_path / "checkpoint_1")
    assert list(read(tmp_path / "checkpoint_1").tensors) == [
        "base_causallm.h.0.w",
        "base_causallm.module.w",
    ]


def test_a_training_state_is_opened_to_its_model(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model_state": TENSORS, "optimizer_state": {}}, tmp_path / "state")
    assert read(tmp_path / "state").tensors.keys() == TENSORS.keys()


def test_files_of_before_zip_are_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "old").tensors.keys() == TENSORS.keys()


def test_the_dtype_holds_every_tensor() -> None:
    mixed = {"a": torch.ones(1, dtype=torch.bfloat16), "b": torch.ones(1), "mask": torch.ones(1).bool()}
    assert Weights(mixed, False, "here").dtype == torch.float32
    assert Weights({"a": mixed["a"], "mask": mixed["mask"]}, False, "here").dtype == torch.bfloat16


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.02])
@pytest.mark.parametrize("how", ["zip", "old", "safetensors"])
def test_a_file_cut_short_is_damaged(tmp_path: Path, how: str, kept: float) -> None:
    path = tmp_path / ("file.safetensors" if how == "safetensors" else "file")
    if how == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=how == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert "is damaged or cut off" in refusal(path)


class Code:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_pickled_code_is_refused_and_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if how == "pickle":
        Path("checkpoint_1").write_bytes(pickle.dumps({"weight": Code()}))
    else:
        torch.save({"weight": Code()}, "checkpoint_1", _use_new_zipfile_serialization=how == "zip")
    message = refusal(Path("checkpoint_1"))
    assert "would run code" in message and "never runs pickled code" in message
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "content, said",
    [(b"", "b''"), (b"version https://git-lfs.github.com/spec/v1\n", "version"), (b"<!DOCTYPE html>", "DOC")],
)
def test_a_file_of_something_else(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "checkpoint_1").write_bytes(content)
    message = refusal(tmp_path / "checkpoint_1")
    assert "holds no weights" in message and said in message


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, torch.ones(2)])
def test_a_file_of_torch_without_named_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "checkpoint_1")
    assert "holds no weights" in refusal(tmp_path / "checkpoint_1")


def test_folders_without_weights(tmp_path: Path) -> None:
    assert "an empty folder" in refusal(folder(tmp_path / "empty"))
    assert "checkpoint_1, checkpoint_2" in refusal(folder(tmp_path / "run", checkpoint_1="", checkpoint_2=""))
    assert "adapters alone" in refusal(folder(tmp_path / "lora", adapter_config__json="{}"))
    assert "is not there" in refusal(tmp_path / "nothing")


@pytest.mark.parametrize("content", ['{"model_type": "gp', "[]"])
def test_a_damaged_configuration(tmp_path: Path, content: str) -> None:
    place = folder(tmp_path / "model", config__json=content)
    save_file(TENSORS, place / "model.safetensors")
    assert "config.json is damaged" in refusal(place)


def test_an_empty_configuration_is_none(tmp_path: Path) -> None:
    """Some are published so; what model it is of is then told beside it."""
    place = folder(tmp_path / "model", config__json="")
    save_file(TENSORS, place / "model.safetensors")
    assert read(place).config is None
