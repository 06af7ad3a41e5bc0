"""The folder that `--to mlx` writes, read by mlx_lm itself: torch's logits; and back, as it was."""

import shutil
from pathlib import Path
from typing import Any

import foreign
import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_lm import convert, load
from mlx_lm.utils import load_model
from tiny import base_model, thinking

from coconut_lm import CoconutForCausalLM, UserError, add_latent_tokens
from coconut_lm.assembly import open_checkpoint
from coconut_lm.conversion import open_any
from coconut_lm.export import to_hf, to_mlx
from coconut_lm.mlx import base as bases
from coconut_lm.mlx.bridge import to_mlx as array
from coconut_lm.mlx.bridge import to_torch as tensor

FAMILIES = ["gpt2", "llama", "qwen3", "gpt_oss"]
YARN = {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0}
YARN |= {"original_max_position_embeddings": 4096, "truncate": True}
ROTATIONS: dict[str, list[dict[str, Any]]] = {
    "llama": [
        {"rope_type": "default", "rope_theta": 5e5},
        {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
        | {"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    ],
    "qwen3": [{"rope_type": "default", "rope_theta": 1e6}],
    "gpt_oss": [{"rope_type": "default", "rope_theta": 150000.0}, YARN],
}
CASES = [("gpt2", {}), *((f, {"rope_parameters": r}) for f, each in ROTATIONS.items() for r in each)]


def words() -> Any:
    tokenizer = foreign.tokenizer()
    add_latent_tokens(tokenizer)
    return tokenizer


def model(family: str, feedback: dict[str, Any] | None = None, **changes: Any) -> CoconutForCausalLM:
    return thinking(base_model(family, torch.float32, **changes), feedback)


def difference(heart: CoconutForCausalLM, net: Any) -> float:
    """Between the logits of all positions, more than any sliding window has, as a part of the largest."""
    ids_BT = torch.randint(0, 60, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = heart.base_causallm(ids_BT).logits.numpy()
    found = np.array(net(mx.array(ids_BT.numpy())))
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_mlx_lm_gives_the_logits_of_torch(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    heart = model(family, **changes)
    to_mlx(heart, words(), tmp_path / "out")
    assert difference(heart, load_model(tmp_path / "out")[0]) < 1e-5


def test_a_ramp_that_is_not_rounded_is_rounded_by_mlx_lm(tmp_path: Path) -> None:
    """gpt-oss's own rotations: put right as coconut-lm does, nothing differs."""
    heart = model("gpt_oss")
    assert not heart.base_causallm.config.rope_parameters["truncate"]
    to_mlx(heart, words(), tmp_path / "out")
    net, _ = load_model(tmp_path / "out")
    assert difference(heart, net) > 1e-3
    bases.rotate(net, 1 / array(heart.base_causallm.model.rotary_emb.inv_freq))
    assert difference(heart, net) < 1e-5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_head_of_its_own_or_the_table(tmp_path: Path, family: str, tied: bool) -> None:
    heart = model(family, tie_word_embeddings=tied)
    to_mlx(heart, words(), tmp_path / "out")
    assert difference(heart, load_model(tmp_path / "out")[0]) < 1e-5


def test_mlx_lm_reads_the_tokenizer_too(tmp_path: Path) -> None:
    tokenizer = words()
    to_mlx(model("llama"), tokenizer, tmp_path / "out")
    _, theirs = load(str(tmp_path / "out"))
    text = "w1 w2<|start-latent|><|latent|>"
    assert theirs.encode(text) == tokenizer.encode(text)
    assert tokenizer.eos_token_id in theirs.eos_token_ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_to_the_bit(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    heart = model(family, {"kind": "learnable_weights", "window": 3, "projection": 8}).to(dtype)
    to_mlx(heart, words(), tmp_path / "mlx")
    opened = open_any(tmp_path / "mlx")
    to_hf(opened.model, opened.tokenizer, tmp_path / "hf")
    again = open_any(tmp_path / "hf").model
    expected, found = heart.state_dict(), again.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (again.dtype, again.config.feedback) == (heart.dtype, heart.config.feedback)


def test_what_mlx_lm_writes_again_is_still_ours(tmp_path: Path) -> None:
    """As `mlx_lm.convert` leaves it: our configuration goes along, the feedback's file is copied by hand."""
    from mlx_lm.utils import save_config, save_model

    heart = model("llama", {"kind": "learnable_weights", "window": 3})
    to_mlx(heart, words(), tmp_path / "mlx")
    net, config = load_model(tmp_path / "mlx")
    save_model(tmp_path / "again", net)
    save_config(config, tmp_path / "again" / "config.json")
    words().save_pretrained(tmp_path / "again")
    shutil.copy(tmp_path / "mlx" / "feedback.safetensors", tmp_path / "again")
    expected, found = heart.state_dict(), open_any(tmp_path / "again").model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def quantised(folder: Path, out: Path, bits: int) -> Any:
    """As `mlx_lm.convert -q` writes it; the model as mlx_lm reads it again."""
    convert(str(folder), str(out), quantize=True, q_bits=bits, q_group_size=32)
    return load_model(out)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_that_mlx_lm_has_quantised_are_made_whole(tmp_path: Path, bits: int, dtype: str) -> None:
    heart = model("qwen3", hidden_size=64, intermediate_size=128).to(getattr(torch, dtype))
    to_mlx(heart, words(), tmp_path / "whole")
    net = quantised(tmp_path / "whole", tmp_path / "small", bits)
    opened = open_any(tmp_path / "small").model
    for name, module in net.named_modules():
        if hasattr(module, "scales"):
            arrays = (module.weight, module.scales.astype(mx.float32), module.biases.astype(mx.float32))
            expected = mx.dequantize(*arrays, group_size=32, bits=bits).astype(module.scales.dtype)
            assert torch.equal(opened.base_causallm.get_parameter(f"{name}.weight"), tensor(expected)), name
    assert opened.dtype == heart.dtype and opened.config.thinks
    if dtype == "float32":
        assert difference(opened, net) < 1e-5


def test_a_folder_of_mlx_lm_is_read_by_convert_and_by_nobody_else(tmp_path: Path) -> None:
    base = base_model("qwen3", torch.float32, vocab_size=64, hidden_size=64, intermediate_size=128)
    base.save_pretrained(tmp_path / "hf")
    foreign.tokenizer().save_pretrained(tmp_path / "hf")
    net = quantised(tmp_path / "hf", tmp_path / "small", 4)
    with pytest.raises(UserError, match="coconut-lm convert FOLDER OUT --to hf"):
        open_checkpoint(tmp_path / "small")
    opened = open_any(tmp_path / "small")
    to_hf(opened.model, opened.tokenizer, tmp_path / "whole")
    again = open_checkpoint(tmp_path / "whole").model
    assert difference(again, net) < 1e-5


def test_bits_that_are_not_read_are_refused(tmp_path: Path) -> None:
    to_mlx(model("qwen3", hidden_size=64, intermediate_size=128), words(), tmp_path / "whole")
    quantised(tmp_path / "whole", tmp_path / "small", 6)
    with pytest.raises(UserError, match="affine, 2, 4 or 8 bits"):
        open_any(tmp_path / "small")


def test_a_folder_for_mlx_is_asked_as_it_is(tmp_path: Path) -> None:
    """It thinks, although transformers' own would take it for a plain base."""
    heart = model("gpt2", {"kind": "learnable_weights", "window": 3})
    to_mlx(heart, words(), tmp_path / "out")
    opened = open_checkpoint(tmp_path / "out")
    assert opened.method == "coconut"
    expected, found = heart.state_dict(), opened.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
