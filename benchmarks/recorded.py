"""How long real questions, steps and answers are, and made examples of these lengths."""

from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from coconut_lm.tokens import EncodedSet

HERE = Path(__file__).parent
Lengths = Sequence[Sequence[int]]  # of each example: its question, its steps, its answer


def gsm8k() -> list[list[int]]:
    """Of the 500 validation problems."""
    return _read("gsm8k_lengths.txt")


def prosqa() -> list[list[int]]:
    """Of the 300 validation questions."""
    return _read("prosqa_lengths.txt")


def _read(name: str) -> list[list[int]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [[int(number) for number in line.split()] for line in lines if not line.startswith("#")]


def made(lengths: Lengths, vocabulary: int, seed: int = 0) -> EncodedSet:
    """Examples of these lengths whose tokens are drawn below `vocabulary`."""
    pieces = np.array([0, *accumulate(chain.from_iterable(lengths))])
    firsts = np.array([0, *accumulate(map(len, lengths))])
    ids = np.random.default_rng(seed).integers(vocabulary, size=pieces[-1], dtype=np.int32)
    return EncodedSet(ids, pieces, firsts)
