"""Adapters and windows: what moves in training, what stays, and what a checkpoint brings back."""

import gc
from pathlib import Path
from typing import Any

import pytest
import ranks
import runs
import torch
from torch import Tensor
from torch.nn import Linear
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from coconut_lm.assembly import Loaded, merged, open_checkpoint
from coconut_lm.collate import collate
from coconut_lm.config import Config
from coconut_lm.data.example import read_examples
from coconut_lm.feed import tensors
from coconut_lm.monitors import window_weights
from coconut_lm.tokens import encode
from coconut_lm.train import Watch

GPT2_TOKENIZER = Path(__file__).parents[1] / "assets" / "gpt2-tokenizer"
NEW = ("<|start-latent|>", "<|end-latent|>", "<|latent|>")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranks.make_data(train=18, valid=2)


def trained(**changes: Any) -> Loaded:
    """The run as its newest checkpoint brings it back."""
    name = changes.setdefault("name", "a")
    assert runs.train(**changes)
    return open_checkpoint(runs.folder(name).path)


def after_cot(**changes: Any) -> tuple[Loaded, Loaded]:
    """A CoT run, and one with adapters that begins at its checkpoint."""
    start = trained(name="cot", method="cot", num_epochs=1)
    given = {"lora": {}, "lr": 1e-2, "load_model_path": "runs/cot/checkpoints/checkpoint_1"}
    return start, trained(**(given | changes))


@torch.no_grad()
def logits(loaded: Loaded) -> Tensor:
    """Of rows with thoughts."""
    rows = loaded.rows(encode(read_examples("valid.json"), loaded.tokenizer))
    batch = collate([rows.row(index, 2) for index in range(len(rows))], loaded.tokens)
    found: Tensor = loaded.model(**tensors(batch, torch.device("cpu")), columns=batch.columns).logits
    return found


def test_adapters_and_new_rows_move_and_all_else_stays() -> None:
    cot, coconut = after_cot()
    adapters = {n: w for n, w in coconut.model.named_parameters() if "lora_B" in n}
    assert adapters and all(weight.abs().max() > 0 for weight in adapters.values())
    before, after = cot.model.state_dict(), frozen(coconut)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.equal(weight, after[name][: len(weight)]), f"{name} has moved"
    table = "base_causallm.transformer.wte.weight"
    assert len(after[table]) == len(before[table]) + len(NEW)


def frozen(loaded: Loaded) -> dict[str, Tensor]:
    """The weights under the adapters, by the names they have without."""
    found = {}
    for name, weight in loaded.model.get_base_model().state_dict().items():
        if "lora_" not in name and "trainable_tokens" not in name:
            found[name.replace(".base_layer", "").replace(".token_adapter", "")] = weight
    return found


def test_only_the_new_rows_of_the_vocabulary_move() -> None:
    cot, coconut = after_cot()
    whole = merged(coconut.model)
    before, after = cot.model.get_input_embeddings().weight, whole.get_input_embeddings().weight
    assert torch.equal(before, after[: len(before)])
    ids = coconut.tokenizer.convert_tokens_to_ids(list(NEW))
    assert sorted(ids) == [len(before), len(before) + 1, len(before) + 2]
    initial = before.mean(0)  # new_token_init: mean
    assert all((after[row] - initial).abs().max() > 1e-3 for row in ids)
    assert torch.equal(whole.get_output_embeddings().weight, after), "tied as before"


@pytest.mark.parametrize("variant", ["coconut", "learnable_weights_lora"])
def test_merged_equals_unmerged(variant: str) -> None:
    _, coconut = after_cot(latent_variant=variant, lora={"target_modules": ["c_attn", "c_proj"]})
    apart = logits(coconut)
    whole = Loaded(merged(coconut.model), coconut.tokenizer, coconut.tokens, "coconut", coconut.curriculum)
    assert (logits(whole) - apart).abs().max() < 1e-5
    assert not [name for name, _ in whole.model.named_parameters() if "lora" in name]


def test_the_variant_with_adapters_has_the_settings_it_was_published_with() -> None:
    config = Config(**runs.settings(latent_variant="learnable_weights_lora"))
    assert config.lora and (config.lora.r, config.lora.alpha, config.lora.dropout) == (8, 16, 0.05)
    assert config.lora.target_modules == ("c_attn", "c_proj")
    peft = trained(latent_variant="learnable_weights_lora").model.peft_config["default"]
    assert (peft.r, peft.lora_alpha, peft.lora_dropout, peft.bias) == (8, 16, 0.05, "none")


# -- windows --


@pytest.mark.parametrize("variant", ["learnable_weights", "learnable_weights_lora"])
def test_a_learned_window_is_saved_told_and_brought_back(variant: str) -> None:
    loaded = trained(latent_variant=variant, lr=1e-2, num_epochs=3)
    shares = window_weights(loaded.model)
    assert shares and len(shares) == 3 and max(shares) - min(shares) > 1e-4, "it starts even"
    told = [row["window"] for row in runs.figures("a") if row["kind"] == "epoch"]
    assert told[0] == pytest.approx([1 / 3] * 3) and told[-1] == pytest.approx(shares, abs=1e-7)


def test_a_fixed_window_stays() -> None:
    weights = [0.5, 0.3, 0.2]
    loaded = trained(latent_variant="fixed_window", latent_window_weights=weights, lr=1e-2)
    assert window_weights(loaded.model) == pytest.approx(weights)
    told = [row["window"] for row in runs.figures("a") if row["kind"] == "epoch"]
    assert told == [pytest.approx(weights)] * 3
    plain = trained(name="plain", lr=1e-2)
    assert (logits(loaded) - logits(plain)).abs().max() > 1e-4, "and matters"


# -- quantised --


@pytest.mark.filterwarnings("ignore")  # what bitsandbytes says of a CPU
def test_quantised_weights_train_their_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    tokenizer = AutoTokenizer.from_pretrained(GPT2_TOKENIZER)
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=64, n_layer=2, n_head=2)
    GPT2LMHeadModel(shape).save_pretrained("base")
    tokenizer.save_pretrained("base")
    kinds: set[str] = set()

    class Looks(Watch):
        def step(self, record: dict[str, Any]) -> None:
            kinds.update(type(module).__name__ for module in gc.get_objects() if isinstance(module, Linear))

    adapters = {"quantize": "4bit", "target_modules": ["c_attn", "c_proj"]}
    given = {"model_id": "base", "tokenizer": None, "lora": adapters, "lr": 1e-2}
    assert runs.train(Looks(), **given, max_steps=1)
    assert "Linear4bit" in kinds
    (told,) = [row for row in runs.figures("a") if row["kind"] == "epoch"]
    assert told["val_n"] == 2 and told["val_loss"] > 0
    assert runs.train(Looks(), **given, max_steps=2), "goes on"
    loaded = open_checkpoint(runs.folder("a").path)
    weights = [weight for name, weight in loaded.model.named_parameters() if "lora_B" in name]
    assert weights and all(weight.abs().max() > 0 for weight in weights)
