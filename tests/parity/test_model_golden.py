"""The model against figures recorded from the published code (a tiny random GPT-2, float32)."""

import pytest
import torch
from goldenforward import RECORDED, TOKENS, recorded_model, row
from tiny import START
from torch import Tensor

from coconut_lm.collate import collate, collate_prompts


def tensors() -> dict[str, Tensor | range]:
    """The recorded rows through the library's own collation."""
    rows = [row(item["input_ids"], item["labels"].count(-100)) for item in RECORDED["rows"]]
    batch = collate(rows, TOKENS)
    names = ("input_ids", "attention_mask", "labels", "position_ids")
    return {name: torch.from_numpy(getattr(batch, name)) for name in names} | {"columns": batch.columns}


def test_loss_gradients_and_logits_are_the_recorded_ones() -> None:
    model, batch = recorded_model(), tensors()
    output = model(**batch)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(RECORDED["loss"], abs=1e-6)
    norms = {name: p.grad.norm().item() for name, p in model.base_causallm.named_parameters()}
    assert norms == pytest.approx(RECORDED["grad_norms"], rel=1e-4, abs=0)
    recorded = torch.tensor([values for _, _, values in RECORDED["logits_at_labels"]])
    torch.testing.assert_close(output.logits, recorded, rtol=0, atol=1e-5)


def test_greedy_outputs_of_the_whole_batch_are_the_recorded_ones() -> None:
    model, cases = recorded_model(), RECORDED["generated"]
    batch = collate_prompts([row(case["prompt"], len(case["prompt"])) for case in cases], TOKENS)
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    new = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=10, do_sample=False)
    assert new[:, ids.shape[1] :].tolist() == [case["output"][len(case["prompt"]) :] for case in cases]


def test_thoughts_matter_to_these_figures() -> None:
    """Were latents read as ordinary tokens, the recorded loss would not come out."""
    model, batch = recorded_model(), tensors()
    model.config.latent_token_id = START - 10_000
    assert model(**(batch | {"columns": ()})).loss.item() != pytest.approx(RECORDED["loss"], abs=1e-4)
