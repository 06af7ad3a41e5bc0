"""Who asks the model on MLX is told what torch would tell: replies, thoughts, noise, branches, exchanges."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import LLAMA, tokenizer_of
from mixed import TOKENS, prompt, prompts
from tiny import EOS, LATENT, base_model, tiny
from torch import Tensor

from coconut_lm import CoconutForCausalLM, UserError, substitutes
from coconut_lm.adapters import add_lora
from coconut_lm.answer import Answerer, Read, read
from coconut_lm.assembly import merged
from coconut_lm.collate import collate_prompts
from coconut_lm.data.example import Example
from coconut_lm.evaluate import Reply
from coconut_lm.exam import placed
from coconut_lm.interventions import branched, fan_out, noisy, sampled
from coconut_lm.mlx import facade
from coconut_lm.trainingfree import open_instruct

FAMILIES = ["gpt2", "llama", "qwen3", "gpt_oss"]
WINDOW: dict[str, Any] = {"kind": "learnable_weights", "window": 3, "projection": 16}


def both(family: str, feedback: dict[str, Any] | None = None) -> tuple[CoconutForCausalLM, facade.MlxModel]:
    model = tiny(family, torch.float32, feedback)
    return model, facade.of(model)


def assert_alike(ours: list[Reply], theirs: list[Reply]) -> None:
    assert [reply.ids for reply in ours] == [reply.ids for reply in theirs]
    assert [reply.ended for reply in ours] == [reply.ended for reply in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.thought_norms == pytest.approx(other.thought_norms, rel=1e-4)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


@pytest.mark.parametrize("feedback", [{}, WINDOW], ids=["last hidden", "window"])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_torch_in_any_batch(family: str, feedback: dict[str, Any]) -> None:
    model, net = both(family, feedback)
    rows = prompts(12, seed=3)
    theirs = Answerer(model, TOKENS, 10, scored=True)(rows)
    asked = Answerer(net, TOKENS, 10, scored=True)
    assert_alike(asked(rows), theirs)
    assert_alike([asked([row])[0] for row in rows], theirs)


@pytest.mark.parametrize("family", ["gpt2", "gpt_oss"])
def test_rows_that_end_leave_the_batch(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends where it is told to; the others do not notice, however the rest is padded."""
    model, net = both(family)
    ends = torch.tensor([1, 7, 2, 2, 5, 7, 0, 3])
    widths = []
    called = facade.MlxModel.__call__

    def counted(self: facade.MlxModel, input_ids: Tensor, **how: Any) -> Any:
        widths.append(len(input_ids))
        return called(self, input_ids, **how)

    monkeypatch.setattr(facade.MlxModel, "__call__", counted)

    def picks(batch: Any, branches: int, room: int) -> Any:
        return lambda logits, rows, column: torch.where(ends[rows] == column, EOS, logits.argmax(-1))

    told = {"picks": picks, "scored": True}
    rows = prompts(8, seed=2)
    theirs = Answerer(model, TOKENS, 8, **told)(rows)
    assert_alike(Answerer(net, TOKENS, 8, **told)(rows), theirs)
    assert widths[0] == 8 and widths[-1] == 2


def test_a_latent_is_never_written() -> None:
    model, net = both("gpt2")
    with torch.no_grad():
        model.base_causallm.transformer.ln_f.bias.copy_(model.get_input_embeddings().weight[LATENT] * 50)
    net = facade.of(model)
    row = prompts(1)[0]
    assert net(torch.tensor([[1, 2]]), logits_to_keep=1).logits.argmax() == LATENT
    assert LATENT not in Answerer(net, TOKENS, 5)([row])[0].ids


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_read_in_parts_is_the_prompt(family: str) -> None:
    """Wherever it is parted, also where a row has not begun."""
    model, net = both(family, WINDOW)
    batch = collate_prompts([prompt(0, [5, 9, 2, 7], 3), prompt(1, [3], 4), prompt(2, [8] * 8, 1)], TOKENS)
    with torch.no_grad():
        whole = read(model, batch, batch.columns).output
        for at in range(1, batch.input_ids.shape[1] + 1):
            parted = fan_out(net, batch, batch.columns, 2, at)
            logits = whole.logits.repeat_interleave(2, 0)
            torch.testing.assert_close(parted.logits[:, -1], logits[:, -1], rtol=0, atol=1e-4)
            fed = whole.thoughts.fed_BKD.repeat_interleave(2, 0)
            torch.testing.assert_close(parted.thoughts.fed_BKD, fed, rtol=0, atol=1e-4)


NOISES: dict[str, Read] = {
    "everywhere": noisy("gaussian_scaled", 0.3, seed=1),
    "first": noisy("orthogonal", 0.5, where="first"),
    "adaptive": noisy("gaussian_scaled", 0.3, schedule="adaptive"),
    "of a layer": noisy("gaussian", 0.1, layer=1),
    "of what goes in": noisy("gaussian", 0.1, layer=0),
}


@pytest.mark.parametrize("family", ["gpt2", "gpt_oss"])
@pytest.mark.parametrize("noise", NOISES)
def test_noise_on_thoughts_is_that_of_torch(family: str, noise: str) -> None:
    model, net = both(family)
    rows = prompts(6, least=1)
    told: dict[str, Any] = {"read": NOISES[noise], "scored": True}
    ours, theirs = (Answerer(each, TOKENS, 6, **told)(rows) for each in (net, model))
    assert_alike(ours, theirs)
    for one, other in zip(ours, theirs, strict=True):
        figures = [{**each.notes["diagnostics"]} for each in (one, other)]
        assert figures[0].pop("noise_type") == figures[1].pop("noise_type")
        assert figures[0] == pytest.approx(figures[1], rel=1e-3, abs=1e-6)
    assert net.feedback is net.own


@pytest.mark.parametrize("reading", [branched(3), noisy("gaussian_scaled", 0.4, branches=3, start=1)])
def test_branches_are_those_of_torch(reading: Read) -> None:
    model, net = both("llama")
    rows = prompts(4, least=1)
    told: dict[str, Any] = {"read": reading, "branches": 3, "picks": sampled(0.7, 0.9, 5), "scored": True}
    ours, theirs = (Answerer(each, TOKENS, 6, **told).branched(rows) for each in (net, model))
    for one, other in zip(ours, theirs, strict=True):
        assert_alike(one, other)


@pytest.mark.parametrize("what", ["thoughts", "question"])
def test_keys_and_values_are_exchanged(what: Any) -> None:
    model, net = both("qwen3")
    rows = [prompt(0, [5, 9, 2, 7], 3), prompt(1, [3, 1, 1, 8], 3), prompt(2, [4, 4], 3)]
    reading = substitutes.interchanged(lambda row: [rows[1], rows[0], rows[2]][row], TOKENS, what)
    assert substitutes.exchangeable(net)
    ours, theirs = (Answerer(each, TOKENS, 8, read=reading, scored=True)(rows) for each in (net, model))
    assert_alike(ours, theirs)


def test_other_thoughts_are_fed() -> None:
    model, net = both("gpt2")
    rows = prompts(5, least=1)
    replies = []
    for each in (net, model):
        answerer = Answerer(each, TOKENS, 8)
        known = substitutes.record(answerer, rows, 2)
        given = substitutes.anothers([1, 2, 3, 4, 0], share=0.5)
        replies.append(Answerer(each, TOKENS, 8, read=substitutes.fed(known, given), scored=True)(rows))
    assert_alike(*replies)


def test_what_it_does_not_do_is_said() -> None:
    _, net = both("gpt2")
    with pytest.raises(UserError, match="begins with a latent|latent"):
        net(torch.tensor([[LATENT, 3]]))
    with pytest.raises(UserError, match="attention mask does not fit"):
        net(torch.tensor([[1, 2]]), attention_mask=torch.ones(1, 3))


def test_adapters_count() -> None:
    adapted = add_lora(tiny("gpt2", torch.float32))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    rows = prompts(6)
    theirs = Answerer(adapted, TOKENS, 8, scored=True)(rows)
    assert_alike(Answerer(facade.of(merged(adapted)), TOKENS, 8, scored=True)(rows), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_read_as_halves(dtype: torch.dtype) -> None:
    """As near to what float32 says as torch's halves are."""
    model = tiny("llama", torch.float32).to(dtype)
    net, whole = facade.of(model), copy.deepcopy(model).float()
    assert net.dtype == dtype
    batch = collate_prompts(prompts(6, least=1), TOKENS)
    with torch.no_grad():
        found = [read(each, batch, batch.columns).output for each in (net, model, whole)]
    assert [each.logits.dtype for each in found] == [dtype, dtype, torch.float32]
    ours, theirs = (each.thoughts.fed_BKD.float().sub(found[2].thoughts.fed_BKD).norm() for each in found[:2])
    assert 0 < ours < 2 * theirs


def test_an_instruct_model_thinks_untrained(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(LLAMA, latent=False)
    ends = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], tokenizer.eos_token_id)
    base_model("llama", torch.float32, vocab_size=len(tokenizer), **ends).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = open_instruct(tmp_path, "gsm8k", thoughts=3)
    asked = loaded.prompts([Example("Tom has 3 eggs and buys 4 more. How many?", (), "7")])
    rows = [asked.prompt(0, loaded.stage())]
    net = placed(loaded, "mlx").model
    assert isinstance(net, facade.MlxModel)
    theirs = Answerer(loaded.model, loaded.tokens, 12, scored=True)(rows)
    assert_alike(Answerer(net, loaded.tokens, 12, scored=True)(rows), theirs)
