"""What all sides are given: a model's shape, random weights, a training batch. Nothing is downloaded."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from coconut_lm import CoconutConfig, CoconutForCausalLM
from coconut_lm.collate import Batch, collate
from coconut_lm.methods import Row
from coconut_lm.tokens import LatentTokens

SEED = 0


@dataclass(frozen=True)
class Net:
    """A model of GPT-2's kind; `vocabulary` leaves out the three latent tokens."""

    name: str
    layers: int
    width: int
    heads: int
    vocabulary: int

    @property
    def tokens(self) -> LatentTokens:
        """The latent ones behind the vocabulary, whose last ends a text."""
        start, eos = self.vocabulary, self.vocabulary - 1
        return LatentTokens(start, start + 1, start + 2, pause=None, eos=eos, pad=eos)

    @cached_property
    def config(self) -> GPT2Config:
        """Without dropout: both sides shall compute the same."""
        return GPT2Config(
            vocab_size=self.vocabulary + 3,
            n_layer=self.layers,
            n_embd=self.width,
            n_head=self.heads,
            bos_token_id=self.tokens.eos,
            eos_token_id=self.tokens.eos,
            **dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0),
        )


MICRO = Net("micro", 1, 32, 2, 61)  # for the tests
TINY = Net("tiny", 2, 128, 4, 97)  # with a vocabulary of words
SMALL = Net("GPT-2-small", 12, 768, 12, 50257)


def plain_model(net: Net, device: torch.device) -> GPT2LMHeadModel:
    """As transformers builds it: the same weights at every call."""
    torch.manual_seed(SEED)
    return GPT2LMHeadModel(net.config).to(device)


def our_model(net: Net, device: torch.device) -> CoconutForCausalLM:
    """The same weights, as coconut-lm takes them over."""
    base, tokens = plain_model(net, device), net.tokens
    ids = dict(start_token_id=tokens.start, end_token_id=tokens.end, latent_token_id=tokens.latent)
    return CoconutForCausalLM(CoconutConfig(base.config, **ids, pad_token_id=tokens.pad), base=base)


@dataclass(frozen=True)
class Work:
    """A training batch whose rows are all alike, so that nothing is padded."""

    net: Net
    rows: int
    columns: int
    thoughts: int

    @property
    def supervised(self) -> int:
        """Tokens of a row that are learned: steps that remain, and the answer."""
        return self.columns // 3

    @property
    def question(self) -> int:
        return self.columns - self.supervised - self.thoughts - 2

    def __str__(self) -> str:
        return f"{self.net.name}, {self.rows} x {self.columns}, {self.thoughts} thoughts"

    def batch(self) -> Batch:
        rng = np.random.default_rng(SEED)
        return collate([self._row(number, rng) for number in range(self.rows)], self.net.tokens)

    def _row(self, number: int, rng: np.random.Generator) -> Row:
        tokens = self.net.tokens
        ids = rng.integers(tokens.eos, size=self.columns, dtype=np.int32)
        first = self.question + 1
        ids[self.question] = tokens.start
        ids[first : first + self.thoughts] = tokens.latent
        ids[first + self.thoughts] = tokens.end
        begins = self.columns - self.supervised
        return Row(ids, begins, self.thoughts, first if self.thoughts else -1, number)
