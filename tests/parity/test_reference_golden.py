"""The reference algorithm and the oracle against figures recorded from the published code, and each other."""

import json
from functools import cache
from pathlib import Path

import pytest
import reference
import torch
from safetensors.torch import load_file
from tiny import FAMILIES, base_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "assets" / "golden"
RECORDED = json.loads((GOLDEN / "forward.json").read_text(encoding="utf-8"))
LATENT, EOS = RECORDED["tokens"]["latent"], RECORDED["tokens"]["eos"]
NEVER = -1  # an end token that no model writes
ROWS = [(row["input_ids"], row["labels"]) for row in RECORDED["rows"]]
BATCH = {name: torch.tensor(values) for name, values in RECORDED["batch"].items()}


def recorded_model(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(GOLDEN / "gpt2_tiny_config.json"))
    result = model.load_state_dict(load_file(GOLDEN / "gpt2_tiny.safetensors"), strict=False)
    assert result.missing_keys == ["lm_head.weight"] and not result.unexpected_keys
    return model.to(dtype).eval()


@cache
def random_model(family: str) -> PreTrainedModel:
    # Gemma 2 has eager attention alone: a float32 softmax, where a float64 mask is -inf and a padded row nan.
    return base_model(family, torch.float32 if family == "gemma2" else torch.float64)


def assert_gradients_as_recorded(model: PreTrainedModel) -> None:
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    assert norms == pytest.approx(RECORDED["grad_norms"], rel=1e-4, abs=0)


def assert_logits_as_recorded(logits_of_row: list[Tensor]) -> None:
    """Recorded is the column of the label; its logits stand one column before."""
    for row, column, values in RECORDED["logits_at_labels"]:
        found = logits_of_row[row][column - 1]
        torch.testing.assert_close(found, torch.tensor(values, dtype=found.dtype), rtol=0, atol=1e-5)


def test_the_reference_loss_logits_and_gradients_are_the_recorded_ones() -> None:
    model = recorded_model()
    loss, logits_BTV = reference.reference_loss(model, LATENT, **BATCH)
    loss.backward()
    assert loss.item() == pytest.approx(RECORDED["loss"], abs=1e-6)
    assert_gradients_as_recorded(model)
    assert_logits_as_recorded(list(logits_BTV.detach()))


def test_the_reference_generates_what_was_recorded() -> None:
    model = recorded_model()
    for case in RECORDED["generated"]:
        assert reference.reference_generate(model, LATENT, EOS, case["prompt"], 10) == case["output"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_oracle_loss_and_gradients_are_the_recorded_ones(dtype: torch.dtype) -> None:
    model = recorded_model(dtype)
    loss = reference.oracle_loss(model, LATENT, ROWS)
    loss.backward()
    assert loss.dtype == dtype and loss.item() == pytest.approx(RECORDED["loss"], abs=1e-6)
    assert_gradients_as_recorded(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_oracle_logits_and_texts_are_the_recorded_ones(dtype: torch.dtype) -> None:
    model = recorded_model(dtype)
    pads = [row.index(1) for row in RECORDED["batch"]["attention_mask"]]
    logits = [reference.oracle_logits(model, LATENT, ids).detach() for ids, _ in ROWS]
    padded = [
        torch.cat([row.new_zeros(pad, row.shape[1]), row]) for pad, row in zip(pads, logits, strict=True)
    ]
    assert_logits_as_recorded(padded)
    for case in RECORDED["generated"]:
        assert reference.oracle_generate(model, LATENT, EOS, case["prompt"], 10) == case["output"]


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    names = dict(model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


# Granite is left out: the published code feeds thoughts as if they were embeddings, which Granite multiplies.
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"granite"}))
def test_reference_and_oracle_agree_on_every_family(family: str) -> None:
    """Two programs that share no step; norms and rotations compute in float32 whatever the model's dtype."""
    model = random_model(family)
    loss, logits_BTV = reference.reference_loss(model, LATENT, **BATCH)
    expected = reference.oracle_loss(model, LATENT, ROWS)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    row, pad = 3, RECORDED["batch"]["attention_mask"][3].index(1)
    whole_TV = reference.oracle_logits(model, LATENT, ROWS[row][0])
    torch.testing.assert_close(logits_BTV[row, pad : pad + len(whole_TV)], whole_TV, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_reference_and_oracle_write_the_same_text(family: str) -> None:
    model = random_model(family)
    texts = [
        (
            reference.reference_generate(model, LATENT, NEVER, case["prompt"], 8),
            reference.oracle_generate(model, LATENT, NEVER, case["prompt"], 8),
        )
        for case in RECORDED["generated"]
    ]
    assert all(published == text for published, text in texts)
    assert any(len(set(text[-8:])) > 1 for _, text in texts)


def test_generation_stops_before_the_end_token() -> None:
    model, prompt = random_model("gpt2"), RECORDED["generated"][0]["prompt"]
    new = reference.oracle_generate(model, LATENT, NEVER, prompt, 6)[len(prompt) :]
    last = next(place for place in range(1, 6) if new[place] not in new[:place])
    for generate in (reference.oracle_generate, reference.reference_generate):
        assert generate(model, LATENT, new[last], prompt, 6) == prompt + new[:last]
    assert reference.oracle_generate(model, LATENT, new[0], prompt, 6) == prompt
    # The published code never compares the first new token with the end token.
    assert reference.reference_generate(model, LATENT, new[0], prompt, 1) == [*prompt, new[0]]


def test_the_oracle_never_emits_a_latent() -> None:
    model, prompt = random_model("gpt2"), RECORDED["generated"][2]["prompt"]
    favourite = reference.oracle_generate(model, LATENT, NEVER, prompt, 1)[-1]
    assert favourite not in prompt
    assert favourite not in reference.oracle_generate(model, favourite, NEVER, prompt, 6)[len(prompt) :]


def test_a_feedback_sees_all_columns_before_its_latent() -> None:
    model, ids = recorded_model(), ROWS[0][0]
    seen: list[Tensor] = []

    def first_hidden(history_TD: Tensor) -> Tensor:
        seen.append(history_TD)
        return history_TD[0]

    embeds_TD = reference.oracle_embeds(model, LATENT, ids, first_hidden)
    columns = [column for column, token in enumerate(ids) if token == LATENT]
    assert [len(history) for history in seen] == columns
    for column in columns:
        torch.testing.assert_close(embeds_TD[column], seen[0][0])
    plain = reference.oracle_logits(model, LATENT, ids)
    assert not torch.allclose(reference.oracle_logits(model, LATENT, ids, first_hidden), plain)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_embedding_scale_is_measured(family: str) -> None:
    assert reference.embedding_scale(random_model(family)) == (12.0 if family == "granite" else 1.0)


def test_a_norm_or_a_projection_of_the_embeddings_is_no_scale() -> None:
    normed = AutoConfig.for_model("bloom", vocab_size=67, hidden_size=32, n_layer=1, n_head=2)
    projected = AutoConfig.for_model(
        "opt",
        vocab_size=67,
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    for config in (normed, projected):
        assert reference.embedding_scale(AutoModelForCausalLM.from_config(config)) == 1.0


def test_measuring_the_scale_leaves_the_model_as_it_was() -> None:
    model = recorded_model().train()
    model.transformer.drop.eval()
    reference.embedding_scale(model)
    assert model.training and model.transformer.h.training and not model.transformer.drop.training


@pytest.mark.parametrize("family", ["gpt2", "gemma", "gemma3_text", "granite"])
def test_thoughts_reach_the_first_block_unscaled_and_tokens_scaled(family: str) -> None:
    model, ids = random_model(family), ROWS[0][0]
    embeds_TD = reference.oracle_embeds(model, LATENT, ids)
    first = lambda **given: model(**given, output_hidden_states=True).hidden_states[0][0]  # noqa: E731
    entered_TD = first(inputs_embeds=embeds_TD[None])
    as_tokens_TD = first(input_ids=torch.tensor([ids]))
    torch.testing.assert_close(entered_TD[:10], as_tokens_TD[:10])
    column = ids.index(LATENT)
    before_TD = model(inputs_embeds=embeds_TD[None, :column], output_hidden_states=True).hidden_states[-1][0]
    position_D = model.transformer.wpe.weight[column] if family == "gpt2" else 0
    torch.testing.assert_close(entered_TD[column], before_TD[-1] + position_D)
