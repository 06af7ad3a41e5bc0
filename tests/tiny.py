"""Tiny random models of many families: the fixtures of the suite. Vocabulary 67, as in the golden figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from coconut_lm import CoconutConfig, CoconutForCausalLM

EOS, START, END, LATENT = 63, 64, 65, 66
COMMON = dict(
    vocab_size=67,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    pad_token_id=EOS,
    bos_token_id=EOS,
    eos_token_id=EOS,
)
# Tied to its head, Gemma's scaled embeddings would make it repeat one token for ever.
UNTIED = dict(tie_word_embeddings=False)
SLIDING = dict(sliding_window=6, layer_types=["sliding_attention", "full_attention"])
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": dict(
        vocab_size=67,
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=EOS,
        eos_token_id=EOS,
        **dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0),
    ),
    "llama": COMMON,
    "qwen3": COMMON,
    "mistral": COMMON | dict(sliding_window=6),
    "phi3": COMMON | dict(sliding_window=6),
    "gemma": COMMON | UNTIED,
    "gemma2": COMMON | SLIDING | UNTIED | dict(attn_implementation="eager"),
    "gemma3_text": COMMON | SLIDING | UNTIED,
    "granite": COMMON | dict(embedding_multiplier=12.0, logits_scaling=8.0),
    "gpt_oss": COMMON | SLIDING | dict(num_local_experts=2, num_experts_per_tok=1),
}


def base_model(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> PreTrainedModel:
    """Weights large enough that thoughts matter and greedy texts vary."""
    torch.manual_seed(7)
    if changes.get("vocab_size", 67) < 67:
        changes = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], 0) | changes
    config = AutoConfig.for_model(family, initializer_range=0.3, **(FAMILIES[family] | changes))
    options = {"experts_implementation": "eager"} if family == "gpt_oss" else {}
    return AutoModelForCausalLM.from_config(config, **options).eval().to(dtype)


def thinking(base: PreTrainedModel, feedback: dict[str, Any] | None = None) -> CoconutForCausalLM:
    config = CoconutConfig(
        base_config=base.config,
        start_token_id=START,
        end_token_id=END,
        latent_token_id=LATENT,
        pad_token_id=EOS,
        feedback=feedback,
        dtype=base.dtype,
    )
    torch.manual_seed(8)
    return CoconutForCausalLM(config, base=base)._take_over(base)


def tiny(
    family: str, dtype: torch.dtype = torch.float64, feedback: dict[str, Any] | None = None
) -> CoconutForCausalLM:
    return thinking(base_model(family, dtype), feedback)


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Norms, rotations and softmaxes that insist on float32 compute in float64 instead: without that, a
    difference of 1e-16 before them is one of 1e-7 behind them."""
    names = {"float32": torch.float32}
    as_float = torch.Tensor.float
    try:
        torch.float32 = torch.float64  # type: ignore[misc]
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
        yield
    finally:
        torch.float32 = names["float32"]  # type: ignore[misc]
        torch.Tensor.float = as_float  # type: ignore[method-assign]
