"""What a run cannot be made of is said before it; what it is made of stays as it was."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_data, settings
from torch import Tensor

from coconut_lm import preflight
from coconut_lm.assembly import Loaded, assemble, heart
from coconut_lm.collate import collate
from coconut_lm.config import Config
from coconut_lm.data.example import read_examples
from coconut_lm.errors import UserError
from coconut_lm.feedback import Feedback, LastHidden
from coconut_lm.methods import METHODS, Rows
from coconut_lm.tokens import encode


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data()


def made(**changes: Any) -> tuple[Loaded, Rows]:
    examples = read_examples("train.json")
    texts = [" ".join([each.question, *each.steps, each.answer]) for each in examples]
    loaded = assemble(Config(**settings(**changes)), lambda: texts)
    return loaded, loaded.rows(encode(examples, loaded.tokenizer))


def told(loaded: Loaded, rows: Rows) -> str:
    with pytest.raises(UserError, match="would not train as it should") as caught:
        preflight.short_check(loaded, rows)
    assert "coconut-lm check CONFIG" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_fit_to_run(method: str) -> None:
    preflight.short_check(*made(method=method))


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"r": 2}},
        {"latent_variant": "learnable_weights", "latent_window_size": 2},
        {"latent_variant": "learnable_weights", "lora": {"r": 2}},
        {"latent_variant": "learnable_weights", "method": "cot"},
        {"latent_variant": "fixed_window", "latent_projection": 8},
        {"latent_norm": "match_embedding", "bf16": "pure"},
        {"gradient_checkpointing": True, "after_last_stage": "hold"},
        {"max_latent_stage": 0},
    ],
    ids=str,
)
def test_every_variant_is_fit_to_run(changes: Mapping[str, Any]) -> None:
    preflight.short_check(*made(**changes))


def test_all_stays_as_it_was() -> None:
    loaded, rows = made(lora={"r": 2, "dropout": 0.5})
    model = loaded.model.train()
    heart(model).base_causallm.base_model.drop.eval()
    modes = [module.training for module in model.modules()]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    trained[0].grad = torch.full_like(trained[0], 3.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    preflight.short_check(loaded, rows)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(trained[0].grad, torch.full_like(trained[0], 3.0))
    assert all(weight.grad is None for weight in trained[1:])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    hooks = [module._forward_pre_hooks or module._forward_hooks for module in model.modules()]
    assert not any(hooks) and not any(weight._post_accumulate_grad_hooks for weight in trained)


def test_the_gradients_are_those_of_a_backward_pass() -> None:
    loaded, rows = made()
    batch = collate(preflight.sample(rows), loaded.tokens)
    reached = preflight.reach(loaded.model, batch)
    model = loaded.model.eval()
    loss = model(**preflight.tensors(batch, torch.device("cpu")), columns=batch.columns).loss
    loss.backward()
    assert reached.loss == loss.item()
    assert len(reached.thoughts) == len(batch.columns) == 2
    norms = {name: weight.grad.norm().item() for name, weight in model.named_parameters()}
    assert reached.weights == pytest.approx(norms)


def test_the_sample_thinks_most_and_is_short() -> None:
    _, rows = made()
    chosen = preflight.sample(rows)
    assert [row.thoughts for row in chosen] == [2, 2]
    others = [rows.row(index, 3) for index in range(len(rows))]
    assert len(chosen[0].input_ids) <= min(len(row.input_ids) for row in others)


# -- what is broken, and told --


class Detached(Feedback):
    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        return LastHidden()(h_BWD, mask_BW, index_B).detach()


class SecondDetached(Feedback):
    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        return torch.where(index_B[:, None] == 1, h_BWD[:, -1].detach(), h_BWD[:, -1])


def frozen(match: str) -> Callable[[Loaded], None]:
    def freeze(loaded: Loaded) -> None:
        for name, weight in loaded.model.named_parameters():
            if match in name:
                weight.requires_grad_(False)

    return freeze


def fed_by(feedback: Feedback) -> Callable[[Loaded], None]:
    return lambda loaded: setattr(heart(loaded.model), "feedback", feedback)


def unused(loaded: Loaded) -> None:
    heart(loaded.model).base_causallm.register_parameter("spare", torch.nn.Parameter(torch.ones(2)))


def not_finite(loaded: Loaded) -> None:
    with torch.no_grad():
        heart(loaded.model).get_input_embeddings().weight.fill_(torch.nan)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (fed_by(Detached()), "gradient through thoughts: none passes thought 1, 2 of 2"),
        (fed_by(SecondDetached()), "gradient through thoughts: none passes thought 2 of 2"),
        (frozen("wte"), "rows of the latent tokens: frozen"),
        (frozen(""), "gradient to weights: nothing is to be trained"),
        (unused, "gradient to weights: none reaches base_causallm.spare"),
        (not_finite, "loss: nan"),
    ],
    ids=["detached", "one detached", "frozen rows", "all frozen", "unused", "not finite"],
)
def test_a_broken_model_is_stopped(break_it: Callable[[Loaded], None], said: str) -> None:
    loaded, rows = made()
    break_it(loaded)
    assert said in told(loaded, rows)


def test_frozen_rows_under_adapters_are_told() -> None:
    loaded, rows = made(lora={"r": 2})
    frozen("trainable_tokens")(loaded)
    assert "rows of the latent tokens: frozen" in told(loaded, rows)


def test_rows_longer_than_the_positions_are_told() -> None:
    loaded, rows = made()
    heart(loaded.model).config.get_text_config().max_position_embeddings = 20
    assert "lengths: up to " in told(loaded, rows)


def test_ids_beyond_the_vocabulary_are_told() -> None:
    loaded, rows = made()
    beyond = replace(rows.examples, ids=rows.examples.ids + 10_000)
    assert "token ids: ids up to " in told(loaded, loaded.rows(beyond))
