"""Weights of every format put into a model: the same logits, or nothing and a word why."""

from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny import base_model, thinking, tiny
from torch import Tensor
from transformers import PreTrainedModel

from coconut_lm import CoconutForCausalLM, UserError
from coconut_lm.checkpoint import Weights, load_base, load_into, read

IDS = torch.tensor([[5, 7, 11, 64, 66, 66, 65, 3]])
LEARNED = {"kind": "learnable_weights", "window": 3, "scope": "pass"}


def source(feedback: dict[str, Any] | None = None) -> CoconutForCausalLM:
    return tiny("gpt2", torch.float32, feedback)


def empty(feedback: dict[str, Any] | None = None, **changes: Any) -> CoconutForCausalLM:
    """Of the same shape, with other weights."""
    model = thinking(base_model("gpt2", torch.float32, **changes), feedback)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def logits(model: CoconutForCausalLM) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def snapshot(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def refused(model: CoconutForCausalLM, weights: Weights) -> str:
    """The message; the model is as it was."""
    before = snapshot(model)
    with pytest.raises(UserError) as raised:
        load_into(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return str(raised.value)


def changed(**changes: Tensor | None) -> Weights:
    """The weights of `source`, with some tensors others, or gone."""
    tensors = dict(source().base_causallm.state_dict())
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    return Weights(tensors, thinks=True, place="here")


@pytest.mark.parametrize("write", [foreign.published_file, foreign.mlx_file])
def test_a_file_gives_the_logits_it_was_made_of(tmp_path: Path, write: Any) -> None:
    suffix = ".safetensors" if write is foreign.mlx_file else ""
    model = empty()
    load_into(model, read(write(source(), tmp_path / f"checkpoint_1{suffix}")))
    assert torch.equal(logits(model), logits(source()))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_other_families_and_untied_heads(tmp_path: Path, family: str) -> None:
    made = tiny(family, torch.float32)
    model = tiny(family, torch.float32)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    load_into(model, read(foreign.published_file(made, tmp_path / "checkpoint_1")))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in made.state_dict().items())


def test_a_learned_window_weighs_the_newest_state_by_the_last_number(tmp_path: Path) -> None:
    model = empty(LEARNED)
    load_into(model, read(foreign.window_file(source(), tmp_path / "checkpoint_1")))
    h_BWD = torch.eye(3)[None]  # in the order of the text
    weighed = model.feedback(h_BWD, torch.ones(1, 3), torch.zeros(1))[0]
    torch.testing.assert_close(weighed, torch.tensor(foreign.WINDOW).softmax(0))


def test_a_lora_folder_is_worked_in(tmp_path: Path) -> None:
    base = base_model("gpt2", torch.float32)
    adapted = get_peft_model(
        base, LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    torch.save({"latent_weights": torch.tensor(foreign.WINDOW)}, tmp_path / "latent.pt")
    model = source(LEARNED)
    weights = read(tmp_path)
    assert (weights.kind, weights.thinks) == ("seed001-lora", True)
    load_into(model, weights)
    with torch.no_grad():
        expected = adapted(IDS).logits
        found = model.base_causallm(IDS).logits
        assert not torch.allclose(found, source().base_causallm(IDS).logits, atol=0.1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert model.feedback.latent_weights.tolist() == pytest.approx(foreign.WINDOW[::-1])
    deeper = thinking(base_model("gpt2", torch.float32, n_layer=3), LEARNED)
    with pytest.raises(UserError, match="do not fit the base"):
        load_into(deeper, weights)
    (tmp_path / "peft" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="is no LoRA folder"):
        load_into(source(LEARNED), weights)


def test_a_cot_file_goes_into_the_base_before_it_grows(tmp_path: Path) -> None:
    made = base_model("gpt2", torch.float32, vocab_size=64)
    torch.save(made.state_dict(), tmp_path / "checkpoint_1")
    base = base_model("gpt2", torch.float32, vocab_size=64)
    torch.nn.init.normal_(base.get_input_embeddings().weight)
    load_base(base, read(tmp_path / "checkpoint_1"))
    assert torch.equal(base(IDS[:, :3]).logits, made(IDS[:, :3]).logits)
    words = foreign.tokenizer()
    model = CoconutForCausalLM.from_base(base, words)
    table = model.get_input_embeddings().weight
    assert len(table) == 67 and torch.equal(
        table[66], table[words.unk_token_id]
    )  # "<<" is no word of its own


def test_what_does_not_think_takes_a_thinking_file_without_its_latent_rows(tmp_path: Path) -> None:
    plain = thinking(base_model("gpt2", torch.float32, vocab_size=64))
    plain.config.latent_token_id = None
    weights = read(foreign.window_file(source(), tmp_path / "checkpoint_1"))
    with pytest.warns(UserWarning, match="the last 3 rows, of the latent tokens, are left out"):
        load_into(plain, weights)
    expected = source().get_input_embeddings().weight[:64]
    assert torch.equal(plain.get_input_embeddings().weight, expected)


def test_a_thinking_model_does_not_take_what_has_no_latent_rows(tmp_path: Path) -> None:
    message = refused(empty(), read(foreign.plain_file(source(), tmp_path / "checkpoint_1")))
    assert "no rows for the latent tokens" in message and "load_base" in message


def test_missing_left_over_and_misshapen_tensors_are_named() -> None:
    message = refused(
        empty(),
        changed(transformer__ln_f__bias=None, extra=torch.ones(1), transformer__ln_f__weight=torch.ones(9)),
    )
    assert "1 missing: transformer.ln_f.bias" in message
    assert "1 unexpected: extra" in message
    assert "1 of another shape: transformer.ln_f.weight (9,) for (32,)" in message


def test_ten_names_are_enough() -> None:
    weights = changed(**{f"extra{number}": torch.ones(1) for number in range(15)})
    assert "15 unexpected: " in (message := refused(empty(), weights))
    assert message.count("extra") == 10 and "... and 5 more" in message


def test_nothing_that_belongs_to_the_model() -> None:
    weights = Weights({"encoder.layer.0.weight": torch.ones(2, 2)}, thinks=True, place="here")
    assert "no tensor of here belongs to the model" in refused(empty(), weights)


def test_another_architecture_is_said_as_such() -> None:
    weights = Weights(dict(source().state_dict()), thinks=True, place="here")
    message = refused(empty(n_embd=16, n_layer=3), weights)
    assert "vocabulary 67, width 32, 2 layers" in message and "vocabulary 67, width 16, 3 layers" in message
    assert "name the model it was made of" in message


@pytest.mark.parametrize("rows", [66, 68, 100])
def test_another_vocabulary_is_said_as_such(rows: int) -> None:
    weights = Weights(dict(source().state_dict()), thinks=True, place="here")
    message = refused(empty(vocab_size=rows), weights)
    assert "here has another vocabulary" in message
    assert "vocabulary 67" in message and f"vocabulary {rows}" in message


def test_two_tables_that_should_be_one() -> None:
    table = source().get_input_embeddings().weight.detach()
    for name in ("embedding.weight", "lm_head.weight"):
        assert "two different tensors" in refused(empty(), changed(**{name.replace(".", "__"): table + 1}))


def test_a_feedback_that_the_weights_lack_or_have_too_much(tmp_path: Path) -> None:
    learned = read(foreign.window_file(source(), tmp_path / "checkpoint_1"))
    assert "set latent_variant" in refused(empty(), learned)
    assert "1 missing: feedback.latent_weights" in refused(empty(LEARNED), changed())
    with_four = {"kind": "learnable_weights", "window": 4}
    assert "feedback.latent_weights (3,) for (4,)" in refused(empty(with_four), learned)


def test_a_fixed_window_is_the_configurations(tmp_path: Path) -> None:
    fixed = {"kind": "fixed_window", "weights": [0.5, 0.5]}
    model = empty(fixed)
    load_into(model, changed())  # the published file does not hold it
    saved = Weights(dict(source(fixed).state_dict()), thinks=True, place="here")
    load_into(model.to(torch.bfloat16), saved)
    message = refused(empty({"kind": "fixed_window", "weights": [0.9, 0.1]}), saved)
    assert "trained with another window" in message and "[0.5, 0.5]" in message


def test_a_length_that_was_not_saved_is_measured() -> None:
    model = empty({"latent_norm": "match_embedding"})
    load_into(model, changed())
    norms = source().get_input_embeddings().weight.norm(dim=-1)
    assert model.feedback.embedding_norm.item() == pytest.approx(norms.mean().item(), rel=1e-5)


def test_a_quantised_model_is_refused() -> None:
    model = empty()
    model.base_causallm.hf_quantizer = object()
    with pytest.raises(UserError, match="quantised"):
        load_into(model, changed())


@settings(deadline=None, max_examples=15)
@given(st.sets(st.sampled_from(sorted(source().base_causallm.state_dict().keys() - {"lm_head.weight"}))))
def test_all_of_it_or_nothing(gone: set[str]) -> None:
    """Whatever is missing, the model is loaded whole or left as it was."""
    weights = changed(**{name.replace(".", "__"): None for name in gone - {"transformer.wte.weight"}})
    if gone - {"transformer.wte.weight"}:  # the head has the table too
        assert f"{len(gone - {'transformer.wte.weight'})} missing" in refused(empty(), weights)
    else:
        load_into(model := empty(), weights)
        assert torch.equal(logits(model), logits(source()))
