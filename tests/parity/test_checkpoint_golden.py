"""The published code's own checkpoint files: read, put in, exported, and read again."""

import json
from pathlib import Path

import pytest
import torch
from tiny import thinking
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from coconut_lm import CoconutForCausalLM
from coconut_lm.checkpoint import load_base, load_into, read
from coconut_lm.export import to_official

GOLDEN = Path(__file__).parents[1] / "assets" / "golden"
COCONUT, COT = GOLDEN / "checkpoint_1", GOLDEN / "checkpoint_cot_1"
RECORDED = json.loads((GOLDEN / "forward.json").read_text(encoding="utf-8"))


def fresh_base() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config.from_pretrained(GOLDEN / "gpt2_tiny_config.json")).eval()


def from_coconut(path: Path = COCONUT) -> CoconutForCausalLM:
    model = thinking(fresh_base())
    load_into(model, read(path))
    return model


def from_cot(path: Path = COT) -> CoconutForCausalLM:
    """The recorded base has the latent tokens' rows already: what a CoT run saves goes into it whole."""
    base = fresh_base()
    load_base(base, read(path))
    return thinking(base)


def assert_as_recorded(model: CoconutForCausalLM) -> None:
    batch = {name: torch.tensor(values) for name, values in RECORDED["batch"].items()}
    output = model(**batch)
    assert output.loss.item() == pytest.approx(RECORDED["loss"], abs=1e-6)
    recorded = torch.tensor([values for _, _, values in RECORDED["logits_at_labels"]])
    torch.testing.assert_close(output.logits, recorded, rtol=0, atol=1e-5)


def test_a_fresh_model_has_other_logits() -> None:
    with pytest.raises(AssertionError):
        assert_as_recorded(thinking(fresh_base()))


def test_both_files_are_told_apart() -> None:
    assert (read(COCONUT).kind, read(COCONUT).thinks) == ("official", True)
    assert (read(COT).kind, read(COT).thinks) == ("official-plain", False)


def test_a_coconut_file_gives_the_recorded_logits() -> None:
    assert_as_recorded(from_coconut())


def test_a_cot_file_gives_the_recorded_logits() -> None:
    assert_as_recorded(from_cot())


def saved(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)


def test_a_coconut_file_comes_out_as_it_went_in(tmp_path: Path) -> None:
    to_official(from_coconut(), tmp_path / "checkpoint_1")
    before, after = saved(COCONUT), saved(tmp_path / "checkpoint_1")
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert len({tensor.data_ptr() for tensor in after.values()}) == len(before) - 2  # one table, three names


def test_a_cot_file_comes_out_as_it_went_in(tmp_path: Path) -> None:
    model = from_cot()
    model.config.latent_token_id = None  # a model of a method without thoughts
    to_official(model, tmp_path / "checkpoint_cot_1")
    before, after = saved(COT), saved(tmp_path / "checkpoint_cot_1")
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_out_and_in_again_gives_the_same_logits_to_the_bit(tmp_path: Path) -> None:
    first = from_coconut()
    to_official(first, tmp_path / "checkpoint_2")
    first.save_pretrained(tmp_path / "folder")
    ids = torch.tensor(RECORDED["batch"]["input_ids"][:1])
    logits = first(input_ids=ids).logits
    assert torch.equal(from_coconut(tmp_path / "checkpoint_2")(input_ids=ids).logits, logits)
    again = CoconutForCausalLM.from_pretrained(tmp_path / "folder").eval()
    assert torch.equal(again(input_ids=ids).logits, logits)
