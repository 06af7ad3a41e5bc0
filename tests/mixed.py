"""Rows of all kinds, and every feedback: what two ways of computing are compared on."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tiny import END, EOS, LATENT, START, tiny

from coconut_lm import CoconutForCausalLM
from coconut_lm.methods import Row as Prompt
from coconut_lm.tokens import LatentTokens

Row = tuple[list[int], list[int]]  # ids and labels
FEEDBACKS: dict[str, dict[str, Any]] = {
    "last hidden": {},
    "fixed window": {"kind": "fixed_window"},
    "learned window": {"kind": "learnable_weights", "window": 4},
    "window of the first pass": {"kind": "learnable_weights", "window": 3, "scope": "pass"},
    "projection": {"projection": 16},
    "matched to embeddings": {"kind": "fixed_window", "latent_norm": "match_embedding"},
}


def row(question: list[int], thoughts: int, answer: list[int], markers: bool = True) -> Row:
    prompt = question + ([START] + [LATENT] * thoughts + [END] if markers else [])
    return prompt + answer, [-100] * len(prompt) + answer


ROWS = [
    row([5, 9, 11, 2, 7], 3, [8, 1, 4, EOS]),
    row([3], 0, [6, 6, EOS]),
    row([12, 40, 33, 21, 60, 2, 9, 17, 4], 4, [51]),
    row([30, 31], 1, [7, 2, 9, 14, 22, 50, EOS]),
    row([30, 31, 8], 0, [1, 2, 3], markers=False),
]


def exact(family: str, feedback: dict[str, Any]) -> CoconutForCausalLM:
    model = tiny(family, feedback=feedback)
    for name, parameter in model.feedback.named_parameters():
        if name.endswith("latent_weights"):
            torch.nn.init.normal_(parameter)
    return model


TOKENS = LatentTokens(START, END, LATENT, None, EOS, EOS)


def prompt(index: int, words: Sequence[int], thoughts: int) -> Prompt:
    ids = np.array([*words, START, *[LATENT] * thoughts, END], np.int32)
    return Prompt(ids, len(ids), thoughts, len(words) + 1 if thoughts else -1, index)


def prompts(count: int, seed: int = 0, least: int = 0) -> list[Prompt]:
    """Of all lengths, with different numbers of thoughts."""
    rng = random.Random(seed)
    return [
        prompt(i, [rng.randrange(63) for _ in range(rng.randint(1, 12))], rng.randint(least, 4))
        for i in range(count)
    ]
