"""What is written for others, and that it comes back as it was."""

import json
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from safetensors.torch import load_file
from tiny import base_model, thinking, tiny

from coconut_lm import CoconutForCausalLM, UserError
from coconut_lm.checkpoint import load_into, read
from coconut_lm.export import to_hf, to_mlx, to_mlx_file, to_official

LEARNED = {"kind": "learnable_weights", "window": 3, "scope": "pass"}


def words() -> Any:
    from coconut_lm import add_latent_tokens

    tokenizer = foreign.tokenizer()
    add_latent_tokens(tokenizer)
    return tokenizer


def learned(family: str = "gpt2", dtype: torch.dtype = torch.float32) -> CoconutForCausalLM:
    model = tiny(family, dtype, LEARNED)
    torch.nn.init.normal_(model.feedback.latent_weights)
    return model


def assert_equal(one: CoconutForCausalLM, other: CoconutForCausalLM) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def read_back(place: Path) -> CoconutForCausalLM:
    weights = read(place)
    model = CoconutForCausalLM(weights.config).to(weights.dtype)
    load_into(model, weights)
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_format_comes_back_as_it_was(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    model = learned(family, dtype)
    to_mlx(model, words(), tmp_path / "mlx")
    assert_equal(read_back(tmp_path / "mlx"), model)
    to_hf(model, words(), tmp_path / "hf")
    assert_equal(CoconutForCausalLM.from_pretrained(tmp_path / "hf"), model)
    to_official(model, tmp_path / "checkpoint_1")
    fresh = thinking(base_model(family, dtype), LEARNED)
    load_into(fresh, read(tmp_path / "checkpoint_1"))
    assert_equal(fresh, model)


def test_the_published_format_keeps_a_window_in_the_order_of_the_text(tmp_path: Path) -> None:
    model = learned()
    to_official(model, tmp_path / "checkpoint_1")
    saved = torch.load(tmp_path / "checkpoint_1", weights_only=True)
    assert saved["latent_weights"].tolist() == model.feedback.latent_weights.flip(0).tolist()
    assert saved["embedding.weight"].data_ptr() == saved["base_causallm.lm_head.weight"].data_ptr()


def test_the_published_format_of_what_does_not_think_is_plain(tmp_path: Path) -> None:
    model = learned()
    model.config.latent_token_id = None
    to_official(model, tmp_path / "checkpoint_1")
    saved = torch.load(tmp_path / "checkpoint_1", weights_only=True)
    assert saved.keys() == model.base_causallm.state_dict().keys()


def test_a_feedback_of_our_own_has_no_published_format(tmp_path: Path) -> None:
    model = tiny("gpt2", torch.float32, {"projection": 8})
    with pytest.raises(UserError, match="no place for this feedback"):
        to_official(model, tmp_path / "checkpoint_1")
    assert not any(tmp_path.iterdir())


def test_mlx_finds_the_names_it_reads(tmp_path: Path) -> None:
    """GPT-2 without `transformer.`, with `n_ctx`; a head where it is one of its own; our feedback apart."""
    to_mlx(learned(), words(), tmp_path / "gpt2")
    names = load_file(tmp_path / "gpt2" / "model.safetensors").keys()
    assert {"wte.weight", "wpe.weight", "h.1.attn.c_attn.weight", "ln_f.bias"} <= names
    assert not [name for name in names if name.startswith(("transformer.", "lm_head", "feedback"))]
    assert load_file(tmp_path / "gpt2" / "feedback.safetensors").keys() == {"feedback.latent_weights"}
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text())
    assert (config["model_type"], config["n_ctx"]) == ("gpt2", 128)
    assert config["coconut"]["latent_token_id"] == 66
    to_mlx(tiny("gemma3_text", torch.float32), words(), tmp_path / "gemma")
    assert "lm_head.weight" in load_file(tmp_path / "gemma" / "model.safetensors")
    assert not (tmp_path / "gemma" / "feedback.safetensors").exists()


def mlx_config(tmp_path: Path, family: str, **changes: Any) -> dict[str, Any]:
    to_mlx(thinking(base_model(family, torch.float32, **changes)), words(), tmp_path / "out")
    return json.loads((tmp_path / "out" / "config.json").read_text())


def test_mlx_finds_rotations_under_their_old_names(tmp_path: Path) -> None:
    """Read from `rope_parameters` alone, they would be those of another model, without an error."""
    config = mlx_config(tmp_path, "llama", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert (config["rope_theta"], config["rope_scaling"]) == (5e5, None)


def test_mlx_finds_scaled_rotations(tmp_path: Path) -> None:
    scaled = {"rope_type": "llama3", "rope_theta": 1e6, "factor": 8.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = mlx_config(tmp_path, "llama", rope_parameters=scaled)
    assert config["rope_theta"] == 1e6
    assert config["rope_scaling"].items() >= scaled.items()


def test_mlx_finds_the_rotations_of_local_layers(tmp_path: Path) -> None:
    config = mlx_config(tmp_path, "gemma3_text")
    rope = config["rope_parameters"]
    assert config["rope_theta"] == rope["full_attention"]["rope_theta"]
    assert config["rope_local_base_freq"] == rope["sliding_attention"]["rope_theta"]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    for write in (to_hf, to_mlx):
        with pytest.raises(UserError, match="add --force"):
            write(learned(), words(), tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["kept"]
    to_hf(learned(), words(), tmp_path / "folder", force=True)
    assert not (tmp_path / "folder" / "kept").exists()
    to_official(learned(), tmp_path / "file")
    with pytest.raises(UserError, match="add --force"):
        to_official(learned(), tmp_path / "file")
    with pytest.raises(UserError, match="is a file"):
        to_hf(learned(), words(), tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_that_cannot_be_finished_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_hf(learned(), words(), tmp_path / "folder")
    before = (tmp_path / "folder" / "model.safetensors").read_bytes()
    tokenizer = words()
    monkeypatch.setattr(tokenizer, "save_pretrained", lambda folder: 1 / 0)
    for write in (to_hf, to_mlx):
        with pytest.raises(ZeroDivisionError):
            write(learned(), tokenizer, tmp_path / "folder", force=True)
    assert (tmp_path / "folder" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("thinks", [True, False])
def test_the_file_for_mlx_has_the_names_and_shapes_of_mlx_coconut(tmp_path: Path, thinks: bool) -> None:
    model = tiny("gpt2", torch.float32)
    model.config.latent_token_id = 66 if thinks else None
    to_mlx_file(model, tmp_path / "checkpoint_1.safetensors")
    block = {"attn.c_attn": (96, 32), "attn.c_proj": (32, 32), "mlp.c_fc": (128, 32), "mlp.c_proj": (32, 128)}
    block |= dict.fromkeys(["ln_1", "ln_2"], (32,))
    expected = {"wte.weight": (67, 32), "wpe.weight": (128, 32), "ln_f.weight": (32,), "ln_f.bias": (32,)}
    for layer in range(2):
        for name, shape in block.items():
            expected[f"h.{layer}.{name}.weight"], expected[f"h.{layer}.{name}.bias"] = shape, shape[:1]
    prefix = "base_causallm." if thinks else ""
    found = load_file(tmp_path / "checkpoint_1.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        prefix + name: shape for name, shape in expected.items()
    }


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma3_text", "gpt_oss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_file_for_mlx_comes_back_as_it_was(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    model = tiny(family, dtype, {"kind": "learnable_weights", "window": 3, "projection": 8})
    to_mlx_file(model, tmp_path / "checkpoint_1.safetensors")
    fresh = thinking(base_model(family, dtype), model.config.feedback)
    for tensor in fresh.state_dict().values():
        tensor.zero_()
    load_into(fresh, read(tmp_path / "checkpoint_1.safetensors"))
    assert_equal(fresh, model)
