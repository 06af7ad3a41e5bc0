"""Closed formulas against what models of these shapes truly hold and do."""

import gc
from typing import Any

import pytest
import torch
from live import Live
from tiny import FAMILIES, base_model, thinking
from torch.utils.flop_counter import FlopCounterMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from coconut_lm import costs, packing, products
from coconut_lm.adapters import add_lora
from coconut_lm.costs import PRECISIONS, Adapters, Load, Shape

LATENT, VOCABULARY = 66, 67
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": dict(n_embd=128, n_head=4, n_layer=4),
    "llama": dict(hidden_size=128, intermediate_size=320, num_attention_heads=8, num_hidden_layers=4),
}
SIZES["qwen3"] = SIZES["llama"]
WIDER = {"head_dim": 16}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs attention is float32 whatever the precision, and products have ways of their own."""
    monkeypatch.setattr(products, "pays", lambda: False)
    monkeypatch.setattr(packing, "_sdpa", lambda *given, **how: sdpa_attention_forward(*given, **how)[0])


def made(family: str, precision: str = "float32") -> Any:
    dtype = torch.bfloat16 if precision == "pure" else torch.float32
    changes = SIZES[family] | (WIDER if family != "gpt2" else {})
    return thinking(base_model(family, dtype, **changes)).train()


def measured(model: Any, load: Load, precision: str) -> tuple[int, int]:
    """Bytes alive between forward and backward, and at the worst, gradients included."""
    ids = torch.randint(0, 60, (load.rows, load.columns), generator=torch.Generator().manual_seed(0))
    ids[:, load.first : load.first + load.thoughts] = LATENT
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    labels = ids.masked_fill(torch.arange(load.columns) < load.columns - load.supervised // load.rows, -100)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    columns = range(load.first, load.first + load.thoughts)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast")
    live = Live()
    with live:
        with autocast:
            loss = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                labels=labels,
                columns=columns,
                loss_only=True,
            ).loss
        gc.collect()
        kept = live.now
        loss.backward()
    return kept, live.peak


def predicted(shape: Shape, load: Load, precision: str, gradients: int = 0, **how: Any) -> tuple[int, int]:
    """Gradients come while activations go. Where layers are recomputed they meet: with the last layer of a
    single pass, or with what the passes before the last have kept."""
    found = costs.activations(shape, load, PRECISIONS[precision], **how)
    casts = 0 if how.get("recompute") else found.casts
    beside = found.layers + found.around if load.thoughts else 0
    peak = max(found.peak, beside + found.recomputed + gradients) if how.get("recompute") else found.peak
    return found.layers + found.around + casts + load.supervised * shape.vocabulary * 4, peak


def test_shapes_are_read_from_configurations_and_dicts() -> None:
    assert Shape.of({"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12}) == Shape(
        12, 768, 12, 12, 64, 3072, 50257, rotary=False, tied=True
    )
    for family in FAMILIES:
        config = base_model(family).config
        assert Shape.of(config) == Shape.of(config.to_dict())
        assert Shape.of(config).kept == (32 if family == "gpt2" else 16)
    assert Shape.of(base_model("gpt_oss").config).experts == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_but_for_norms_and_biases(family: str) -> None:
    model = base_model(family)
    tables = {id(weight): weight.numel() for weight in model.parameters() if weight.dim() > 1}
    positions = 128 * 32 if family == "gpt2" else 0
    # Of a mixture, the router and the experts' biases are two-dimensional too.
    extra = 2 * (2 * 32 + 2 * (2 * 48 + 32)) if family == "gpt_oss" else 0
    assert Shape.of(model.config).parameters == sum(tables.values()) - positions - extra


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("thoughts", [0, 2, 6])
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_those_that_are_alive(
    family: str, precision: str, thoughts: int, recompute: bool
) -> None:
    model, load = made(family, precision), Load(4, 96, 40, thoughts, 4 * 40)
    if recompute:
        model.activation_checkpointing_enable()
    kept, peak = measured(model, load, precision)
    size = PRECISIONS[precision].compute if thoughts else PRECISIONS[precision].weights
    gradients = size * sum(weight.numel() for weight in model.parameters())
    shape = Shape.of(model.config.get_text_config())
    kept_said, peak_said = predicted(shape, load, precision, gradients, recompute=recompute)
    assert kept_said == pytest.approx(kept, rel=0.1 if recompute else 0.02)
    assert peak_said == pytest.approx(peak, rel=0.17 if recompute else 0.08)


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("thoughts", [0, 6])
def test_activations_under_adapters(family: str, precision: str, thoughts: int) -> None:
    model = add_lora(made(family, precision), dropout=0.0).train()
    load = Load(4, 96, 40, thoughts, 4 * 40)
    shape = Shape.of(model.get_base_model().config.get_text_config())
    narrow = [weight for name, weight in model.named_parameters() if "lora_A" in name]
    adapters = Adapters(
        sum(each.shape[1] for each in narrow) // shape.layers, sum(map(len, narrow)) // shape.layers, False
    )
    kept, _ = measured(model, load, precision)
    said, _ = predicted(shape, load, precision, adapters=adapters)
    assert said == pytest.approx(kept, rel=0.1)


def test_a_batch_is_read_in_passes() -> None:
    assert Load(1, 10, 4, 0, 1).passes == [(10, 10)]
    assert Load(1, 10, 4, 1, 1).passes == [(4, 4), (6, 10)]
    assert Load(1, 10, 4, 3, 1).passes == [(4, 4), (1, 5), (1, 6), (4, 10)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_operations_are_those_that_torch_counts(family: str) -> None:
    model = made(family)
    model.config.get_text_config()._attn_implementation = "eager"
    ids = torch.randint(0, 60, (1, 50))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.base_causallm(ids)
    shape = Shape.of(model.config.get_text_config())
    said = costs.flops_of_reading(shape, 50) + costs.flops_of_logits(shape, 50)
    attention = 4 * shape.attended * shape.layers * 50  # torch counts the masked half of the pairs too
    assert counter.get_total_flops() - said == pytest.approx(attention * (50 - 51 / 2), rel=0.01)


def test_an_answer_costs_its_prompt_thoughts_and_words() -> None:
    shape = Shape(2, 8, 2, 2, 4, 16, 50)
    whole = costs.flops_of_reading(shape, 12) + costs.flops_of_logits(shape, 3)
    assert costs.flops_of_answer(shape, 6, 4, 3) == whole
    piecewise = costs.flops_of_reading(shape, 6) + costs.flops_of_reading(shape, 6, 6)
    assert costs.flops_of_reading(shape, 12) == piecewise
    assert [costs.passes_of_answer(*given) for given in [(0, 0), (0, 1), (6, 0), (6, 5)]] == [1, 1, 7, 11]


def test_training_costs_three_forwards_and_less_where_weights_are_frozen() -> None:
    shape = Shape(2, 8, 2, 2, 4, 16, 50)
    layers, logits = costs.flops_of_reading(shape, 10), costs.flops_of_logits(shape, 4)
    assert costs.flops_of_training(shape, 10, 4) == 3 * (layers + logits)
    last = 2 * 2 * 8 * 16 * 10  # two layers' last product, which nothing is kept of
    assert costs.flops_of_training(shape, 10, 4, recompute=True) == 4 * layers - last + 3 * logits
    assert costs.flops_of_training(shape, 10, 4, adapters=True) == 2 * (layers + logits)
