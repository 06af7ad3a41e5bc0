"""Figures recorded from the published code (a tiny random GPT-2, float32), and that model."""

import json
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from tiny import EOS, LATENT, thinking
from transformers import GPT2Config, GPT2LMHeadModel

from coconut_lm import CoconutForCausalLM
from coconut_lm.methods import Row
from coconut_lm.tokens import LatentTokens

GOLDEN = Path(__file__).parent / "assets" / "golden"
RECORDED = json.loads((GOLDEN / "forward.json").read_text(encoding="utf-8"))
TOKENS = LatentTokens(**RECORDED["tokens"], pause=None, pad=EOS)


def row(ids: list[int], supervised_from: int) -> Row:
    first = ids.index(LATENT) if LATENT in ids else -1
    return Row(np.array(ids, np.int32), supervised_from, ids.count(LATENT), first, 0)


def recorded_model() -> CoconutForCausalLM:
    base = GPT2LMHeadModel(GPT2Config.from_pretrained(GOLDEN / "gpt2_tiny_config.json"))
    base.load_state_dict(load_file(GOLDEN / "gpt2_tiny.safetensors"), strict=False)
    return thinking(base.eval())
