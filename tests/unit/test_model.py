"""The model as its users meet it: made from a base, saved, loaded, adapted, and fed nonsense."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import END, EOS, FAMILIES, LATENT, START, base_model, tiny
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from coconut_lm import CoconutConfig, CoconutForCausalLM, UserError, add_lora
from coconut_lm.feedback import LastHidden
from coconut_lm.passcache import PassCache
from coconut_lm.tokens import add_latent_tokens, word_tokenizer

IDS = torch.tensor([[3, 9, START, LATENT, LATENT, END, 7, 8, EOS], [3, 5, 6, START, LATENT, END, 7, 8, EOS]])
LABELS = IDS.where(torch.arange(9) > 5, -100)
SETTINGS: dict[str, Any] = {
    "kind": "learnable_weights",
    "window": 2,
    "projection": 8,
    "latent_norm": "match_embedding",
}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return word_tokenizer(["Tom is a lempus. Is Tom a lempus or wumpus? << 1 + 2 = 3 >>"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("feedback", [None, SETTINGS], ids=["plain", "with parameters"])
def test_what_was_saved_loads_as_it_was(family: str, feedback: dict[str, Any] | None, tmp_path: Path) -> None:
    model = tiny(family, torch.float32, feedback)
    for parameter in model.feedback.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    keys = set(load_file(tmp_path / "model.safetensors"))
    assert all(key.startswith(("base_causallm.", "feedback.")) for key in keys)
    expected = model(IDS).logits
    for kind in (CoconutForCausalLM, AutoModelForCausalLM):
        loaded = kind.from_pretrained(tmp_path)
        assert isinstance(loaded, CoconutForCausalLM)
        torch.testing.assert_close(loaded(IDS).logits, expected, rtol=0, atol=0)
    batch = {"input_ids": IDS[:1, :6], "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    assert torch.equal(loaded.generate(**batch, max_new_tokens=4), model.generate(**batch, max_new_tokens=4))


@pytest.mark.parametrize(
    "first", ["import coconut_lm", "import transformers", "import coconut_lm, transformers.modeling_utils"]
)
def test_auto_classes_know_us_in_either_order_of_imports(first: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    tiny("gpt2", torch.float32).save_pretrained(tmp_path)
    code = f"""{first}
from transformers import AutoConfig
import coconut_lm
print(type(AutoConfig.from_pretrained({str(tmp_path)!r})).__name__)
from transformers import AutoModelForCausalLM
print(type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__name__)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["CoconutConfig", "CoconutForCausalLM"], done.stderr


def test_a_checkpoint_that_does_not_fit_is_an_error_that_lists_keys(tmp_path: Path) -> None:
    tiny("gpt2", torch.float32).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = "base_causallm.transformer.h.1.mlp.c_fc.weight"
    changes: dict[str, dict[str, torch.Tensor]] = {
        lost: {key: value for key, value in weights.items() if key != lost},
        "spare.weight": weights | {"spare.weight": torch.zeros(2)},
        "transformer.wte": {key.removeprefix("base_causallm."): value for key, value in weights.items()},
    }
    for named, state in changes.items():
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        if (
            named == "transformer.wte"
        ):  # transformers finds a base's own keys by their prefix: nothing is lost
            assert torch.equal(
                CoconutForCausalLM.from_pretrained(tmp_path).base_causallm.transformer.wte.weight,
                weights["base_causallm.transformer.wte.weight"],
            )
            continue
        with pytest.raises(UserError, match=named):
            CoconutForCausalLM.from_pretrained(tmp_path)
    save_file(weights | {lost: torch.zeros(3, 3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="mlp.c_fc.weight"):
        CoconutForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
@pytest.mark.parametrize("init", ["<<", "mean", "random"])
def test_new_rows_come_from_older_ones(family: str, init: str, tokenizer: PreTrainedTokenizerBase) -> None:
    base = base_model(family, torch.float32, vocab_size=len(tokenizer))
    old_in = base.get_input_embeddings().weight.detach().clone()
    old_out = base.get_output_embeddings().weight.detach().clone()
    torch.manual_seed(0)
    model = CoconutForCausalLM.from_base(base, tokenizer, new_token_init=init)
    assert (base.get_input_embeddings().weight is base.get_output_embeddings().weight) == (family == "gpt2")
    new = [model.config.start_token_id, model.config.end_token_id, model.config.latent_token_id]
    assert new == tokenizer.convert_tokens_to_ids(["<|start-latent|>", "<|end-latent|>", "<|latent|>"])
    for old, module in ((old_in, model.get_input_embeddings()), (old_out, model.get_output_embeddings())):
        torch.testing.assert_close(module.weight[: len(old)], old, rtol=0, atol=0)
        row = old[tokenizer.convert_tokens_to_ids("<<")] if init == "<<" else old.mean(0)
        if init == "random":
            assert len({tuple(value.tolist()) for value in module.weight[new].detach()}) == 3
        else:
            torch.testing.assert_close(module.weight[new], row.expand(3, -1))


def test_a_base_comes_from_a_folder_or_from_a_config_alone(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    base = base_model("llama", torch.float32, vocab_size=len(tokenizer))
    base.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = CoconutForCausalLM.from_base(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(model.base_causallm.model.norm.weight, base.model.norm.weight)
    assert model.base_causallm.config._attn_implementation == "eager"
    assert model.config.latent_token_id == len(tokenizer) + 2
    scratch = CoconutForCausalLM.from_base(tmp_path / "config.json", tokenizer)
    assert scratch.config.vocab_size == len(tokenizer)
    assert not torch.equal(scratch.base_causallm.lm_head.weight[:5], base.lm_head.weight[:5])
    with pytest.raises(UserError, match="thinks already"):
        CoconutForCausalLM.from_base(model, tokenizer)


def test_a_padded_vocabulary_is_not_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    model = CoconutForCausalLM.from_base(base_model("qwen3", torch.float32, vocab_size=200), tokenizer)
    assert model.config.vocab_size == 200


def test_a_sampling_habit_of_the_base_is_kept_and_can_be_overruled(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    base = base_model("llama", torch.float32, vocab_size=len(tokenizer))
    base.generation_config.do_sample = True
    model = CoconutForCausalLM.from_base(base, tokenizer)
    assert (
        model.generation_config.do_sample and model.generation_config.pad_token_id == tokenizer.pad_token_id
    )
    greedy = [model.generate(torch.tensor([[1, 2]]), do_sample=False, max_new_tokens=5) for _ in range(3)]
    assert all(torch.equal(greedy[0], other) for other in greedy)


def test_the_trace_holds_what_was_fed() -> None:
    model = tiny("gpt2")
    output = model(IDS, return_thoughts=True)
    trace, hidden = output.thoughts, output.last_hidden_state
    assert trace is not None and trace.columns == [3, 4]
    assert trace.is_thought_BK.tolist() == [[True, True], [False, True]]
    torch.testing.assert_close(trace.fed_BKD[:, 1], hidden[:, 3])
    torch.testing.assert_close(trace.fed_BKD[1, 0], model.get_input_embeddings().weight[START])
    torch.testing.assert_close(trace.norms_BK, trace.fed_BKD.norm(dim=-1))
    assert model(IDS).thoughts is None


def test_gradient_reaches_back_through_every_thought() -> None:
    model = tiny("gpt2")
    output = model(IDS, labels=LABELS, return_thoughts=True)
    (gradient,) = torch.autograd.grad(
        output.loss, output.thoughts.fed_BKD, retain_graph=True, allow_unused=True
    )
    assert gradient is None  # the trace is a copy; the chain itself is seen at the states that were fed
    (gradient,) = torch.autograd.grad(output.loss, model.get_input_embeddings().weight)
    assert gradient[3].abs().sum() > 0


def test_without_supervised_positions_the_loss_is_zero_and_poisons_nothing() -> None:
    model = tiny("gpt2")
    output = model(IDS, labels=torch.full_like(IDS, -100))
    output.loss.backward()
    assert output.loss.item() == 0 and len(output.logits) == 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(not gradient.any() for gradient in gradients)


def test_gelu_is_one_operation_of_the_same_formula() -> None:
    plain, x = base_model("gpt2").transformer.h[0].mlp.act, torch.linspace(-9, 9, 500, dtype=torch.float64)
    fused = tiny("gpt2").base_causallm.transformer.h[0].mlp.act
    assert isinstance(fused, torch.nn.GELU) and not isinstance(plain, torch.nn.GELU)
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-12, atol=1e-12)


def test_rows_of_padding_alone_poison_nothing() -> None:
    model = tiny("gpt2", feedback={"kind": "fixed_window"})
    mask = torch.ones_like(IDS)
    mask[1] = 0
    loss = model(IDS, attention_mask=mask, labels=LABELS.masked_fill(mask == 0, -100)).loss
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_both_attentions_agree(implementation: str) -> None:
    base = base_model("llama", torch.float32, attn_implementation=implementation)
    from tiny import thinking

    loss = thinking(base)(IDS, labels=LABELS).loss
    assert loss.item() == pytest.approx(
        tiny("llama", torch.float32)(IDS, labels=LABELS).loss.item(), rel=1e-5
    )


def test_half_precision_computes_its_loss_in_single() -> None:
    model = tiny("qwen3", torch.bfloat16)
    loss = model(IDS, labels=LABELS).loss
    assert loss.dtype == torch.float32 and loss.isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = tiny("qwen3", torch.float32)(IDS, labels=LABELS).loss
    assert mixed.isfinite()


def test_recomputed_blocks_run_twice() -> None:
    model = tiny("gpt2", torch.float32).train()
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    for block in model.base_causallm.transformer.h:
        # Before, not after: recomputation stops as soon as it has what it needs.
        block.mlp.register_forward_pre_hook(count)
    model(IDS, labels=LABELS).loss.backward()
    once, calls = calls, 0
    model.activation_checkpointing_enable()
    model(IDS, labels=LABELS).loss.backward()
    assert calls == 2 * once
    with torch.no_grad():
        calls = 0
        model(IDS, labels=LABELS)
    assert calls == once


def batch(ids: list[list[int]], **more: Any) -> dict[str, Any]:
    return {"input_ids": torch.tensor(ids, dtype=torch.long), **more}


NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "no rows": (batch([]), "nothing to read"),
    "no columns": ({"input_ids": torch.zeros(2, 0, dtype=torch.long)}, "nothing to read"),
    "one dimension": ({"input_ids": torch.tensor([1, 2])}, "nothing to read"),
    "latent first": (batch([[LATENT, 3]]), "begins with a latent"),
    "latent after padding": (
        batch([[EOS, LATENT, 3]], attention_mask=torch.tensor([[0, 1, 1]])),
        "begins with a latent",
    ),
    "ids too large": (batch([[3, 67]]), "beyond the vocabulary"),
    "ids negative": (batch([[3, -1]]), "beyond the vocabulary"),
    "too long": (batch([[3] * 129]), "longer than the model's positions"),
    "mask too short": (batch([[3, 4]], attention_mask=torch.ones(1, 1)), "attention mask does not fit"),
    "mask of other rows": (batch([[3, 4]], attention_mask=torch.ones(2, 2)), "attention mask does not fit"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_in_words(name: str) -> None:
    given, words = NONSENSE[name]
    with pytest.raises(UserError, match=words):
        tiny("gpt2")(**given)


def test_padding_does_not_count_as_length() -> None:
    ids, mask = torch.full((1, 140), EOS), torch.zeros(1, 140, dtype=torch.long)
    ids[0, -3:], mask[0, -3:] = torch.tensor([3, 4, 5]), 1
    torch.testing.assert_close(tiny("gpt2")(ids, mask).logits[:, -3:], tiny("gpt2")(ids[:, -3:]).logits)


def test_unknown_settings_name_what_is_known(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="coconut, fixed_window, learnable_weights"):
        tiny("gpt2", feedback={"kind": "window"})
    with pytest.raises(UserError, match="new_token_init"):
        CoconutForCausalLM.from_base(base_model("gpt2"), tokenizer, new_token_init="zeros")
    with pytest.raises(UserError, match="no tokenizer"):
        CoconutForCausalLM.from_base("/nowhere/at/all")


def test_the_config_alone_makes_a_model_and_survives_json(tmp_path: Path) -> None:
    config = CoconutConfig(base_config=base_model("qwen3").config, latent_token_id=LATENT, feedback=SETTINGS)
    config.save_pretrained(tmp_path)
    again = CoconutConfig.from_pretrained(tmp_path)
    assert again.feedback == SETTINGS and again.latent_token_id == LATENT
    assert again.base_config.to_dict() == config.base_config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "coconut"
    assert CoconutForCausalLM(again).config.vocab_size == 67


# -- adapters --


def adapted(family: str, feedback: dict[str, Any] | None = None) -> Any:
    targets = {"gpt2": ["c_attn", "c_proj"]}.get(family, ["q_proj", "v_proj", "up_proj"])
    return add_lora(tiny(family, torch.float32, feedback), r=4, alpha=8, dropout=0.0, target_modules=targets)


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_adapters_train_the_new_rows_and_nothing_old(family: str) -> None:
    model = adapted(family, {"kind": "learnable_weights", "window": 2})
    before = {name: value.clone() for name, value in model.get_base_model().state_dict().items()}
    rows = model.get_base_model().get_input_embeddings()(torch.tensor([START, END, 3])).detach().clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=LABELS).loss.backward()
        optimizer.step()
    moved = {
        name
        for name, value in model.get_base_model().state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved and all(
        "lora_" in n or "token_adapter" in n or "feedback.modules_to_save" in n for n in moved
    ), moved
    now = model.get_base_model().get_input_embeddings()(torch.tensor([START, END, 3])).detach()
    assert (
        not torch.equal(now[0], rows[0]) and not torch.equal(now[1], rows[1]) and torch.equal(now[2], rows[2])
    )


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_adapters_save_load_and_merge(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = adapted(family, {"kind": "learnable_weights", "window": 2})
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    model.eval()
    expected = model(input_ids=IDS).logits
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(
        tiny(family, torch.float32, {"kind": "learnable_weights", "window": 2}), tmp_path
    )
    torch.testing.assert_close(loaded(input_ids=IDS).logits, expected)
    prompt = {"input_ids": IDS[:1, :6], "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    text = loaded.generate(**prompt, max_new_tokens=4)
    merged = model.merge_and_unload()
    assert isinstance(merged, CoconutForCausalLM)
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.generate(**prompt, max_new_tokens=4), text)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        CoconutForCausalLM.from_pretrained(tmp_path / "merged")(IDS).logits, expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("family", "adapted_module"), [("gpt2", "c_attn"), ("qwen3", "q_proj"), ("granite", "q_proj")]
)
def test_without_targets_the_usual_ones_of_the_base_are_adapted(family: str, adapted_module: str) -> None:
    names = [name for name, _ in add_lora(tiny(family, torch.float32)).named_parameters() if "lora_A" in name]
    assert any(adapted_module in name for name in names) and not any("lm_head" in name for name in names)


def test_added_tokens_are_needed(tokenizer: PreTrainedTokenizerBase) -> None:
    from coconut_lm import vocabulary

    with pytest.raises(UserError, match="lacks the latent tokens"):
        vocabulary.grow(base_model("gpt2"), tokenizer)
    add_latent_tokens(tokenizer)
    assert vocabulary.grow(base_model("gpt2"), tokenizer).latent == tokenizer.convert_tokens_to_ids(
        "<|latent|>"
    )


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_passes_share_keys_and_values(family: str) -> None:
    """Autograd holds views: a tensor of keys, one of values for each layer, however many passes."""
    held: set[int] = set()

    def look(saved: torch.Tensor) -> torch.Tensor:
        if saved.dim() == 4 and saved.shape[-1] == 8 and not saved.is_contiguous():
            held.add(saved.untyped_storage().data_ptr())
        return saved

    model = tiny(family)
    with torch.autograd.graph.saved_tensors_hooks(look, lambda saved: saved):
        cache = PassCache(model.config.get_text_config(), IDS.shape[1])
        model(IDS, labels=LABELS, past_key_values=cache).loss.backward()
    rooms = {room.whole_BHTE.data_ptr() for layer in cache.layers for room in layer._rooms}
    assert len(rooms) == 4 and rooms <= held
    joined = [layer.keys for layer in cache.layers] + [layer.values for layer in cache.layers]
    assert {each.untyped_storage().data_ptr() for each in joined} == rooms


def test_a_feedback_module_can_be_given(tokenizer: PreTrainedTokenizerBase) -> None:
    base = base_model("gpt2", vocab_size=len(tokenizer) + 3)
    mine = LastHidden()
    model = CoconutForCausalLM.from_base(base, tokenizer, feedback=mine)
    assert model.feedback is mine


def test_what_the_host_knows_changes_no_number() -> None:
    model, mask = tiny("gpt2"), torch.ones_like(IDS)
    mask[1, -2:] = 0
    labels = LABELS.masked_fill(mask == 0, -100)
    known = {"mask_on_host": mask.numpy(), "supervised": torch.tensor([5, 6, 7, 14])}
    plain = model(IDS, attention_mask=mask, labels=labels)
    told = model(IDS, attention_mask=mask, labels=labels, **known)
    assert torch.equal(plain.loss, told.loss) and torch.equal(plain.logits, told.logits)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_a_text_can_be_continued_with_gradient(family: str) -> None:
    """Behind the columns that were foreseen, token by token."""
    model = tiny(family)
    whole = model(IDS[:1]).logits
    cache = model(IDS[:1, :6], use_cache=True).past_key_values
    for column in (6, 7, 8):
        mask = torch.ones(1, column + 1, dtype=torch.long)
        step = model(IDS[:1, column, None], attention_mask=mask, past_key_values=cache, columns=())
        torch.testing.assert_close(step.logits[:, 0], whole[:, column])
    found = torch.autograd.grad(step.logits.sum(), model.get_input_embeddings().weight)
    expected = torch.autograd.grad(whole[:, 8].sum(), model.get_input_embeddings().weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite"])
def test_the_loss_alone_is_the_same_loss(family: str) -> None:
    found = []
    for only in (False, True):
        model = tiny(family)
        output = model(IDS, labels=LABELS, loss_only=only)
        assert (output.logits is None) == only
        output.loss.backward()
        found.append([output.loss, *(weight.grad for weight in model.parameters())])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_a_cache_that_was_reordered_goes_on_reordered_with_gradient(family: str) -> None:
    model, swap = tiny(family), torch.tensor([1, 0])
    whole = model(IDS).logits
    cache = model(IDS[:, :7], use_cache=True).past_key_values
    cache.reorder_cache(swap)
    step = model(IDS[swap, 7, None], past_key_values=cache, columns=())
    torch.testing.assert_close(step.logits[:, 0], whole[swap, 7])
