"""What both sides of the benchmark are given: a model's shape, random weights, a training batch, prompts.

Shapes: B rows, T columns.
"""

from dataclasses import dataclass

import reference
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from coconut_lm import CoconutConfig, CoconutForCausalLM

SEED = 0


@dataclass(frozen=True)
class Work:
    """A model's shape and what it is asked to do; `vocabulary` leaves out the three latent tokens."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    columns: int
    thoughts: int
    prompts: int = 64
    new_tokens: int = 64
    generate_batch: int = 64

    @property
    def latent(self) -> int:
        return self.vocabulary + 2

    @property
    def answer(self) -> int:
        """The most supervised tokens of a row: steps that remain, and the answer."""
        return self.columns // 3

    @property
    def question(self) -> int:
        return self.columns - self.answer - self.thoughts - 2


SHAPES = {
    "small": Work(12, 768, 12, 50257, batch=32, columns=90, thoughts=6),  # GPT-2 small
    "tiny": Work(2, 128, 4, 97, batch=32, columns=92, thoughts=4),  # with a vocabulary of words
    "micro": Work(1, 32, 2, 61, batch=2, columns=24, thoughts=2, prompts=2, new_tokens=4),  # for the tests
}


def build_base(work: Work) -> GPT2LMHeadModel:
    """The same weights at every call."""
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=work.vocabulary + 3,
        n_layer=work.layers,
        n_embd=work.width,
        n_head=work.heads,
        bos_token_id=work.vocabulary - 1,
        eos_token_id=work.vocabulary - 1,
        **dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0),
    )
    return GPT2LMHeadModel(config)


def build_model(work: Work) -> CoconutForCausalLM:
    base = build_base(work)
    ids = dict(start_token_id=work.vocabulary, end_token_id=work.vocabulary + 1, latent_token_id=work.latent)
    config = CoconutConfig(base.config, **ids, pad_token_id=base.config.eos_token_id)
    model = CoconutForCausalLM(config, base=base)
    model.generation_config.eos_token_id = None  # every answer gets its full length
    return model


def prompt(work: Work, words: int, generator: torch.Generator) -> list[int]:
    """A question of so many words, its thoughts between their marks."""
    question = torch.randint(work.vocabulary - 1, (words,), generator=generator).tolist()
    return [*question, work.vocabulary, *[work.latent] * work.thoughts, work.vocabulary + 1]


def spread(low: int, high: int, number: int, generator: torch.Generator) -> list[int]:
    """Lengths evenly from low to high, shuffled."""
    lengths = torch.linspace(low, high, number).round().long()
    return lengths[torch.randperm(number, generator=generator)].tolist()


def training_batch(work: Work) -> dict[str, Tensor]:
    """Latent-aligned rows: questions of different lengths end, and answers begin, in the same column."""
    generator = torch.Generator().manual_seed(SEED)
    pad = work.vocabulary - 1
    batch = {
        "input_ids": torch.full((work.batch, work.columns), pad),
        "attention_mask": torch.zeros(work.batch, work.columns, dtype=torch.long),
        "labels": torch.full((work.batch, work.columns), reference.IGNORED),
    }
    questions = spread(work.question // 2, work.question, work.batch, generator)
    answers = spread(work.answer * 2 // 3, work.answer, work.batch, generator)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        front = prompt(work, question, generator)
        start = work.question - question
        middle, stop = start + len(front), start + len(front) + answer
        batch["input_ids"][row, start:middle] = torch.tensor(front)
        batch["input_ids"][row, middle:stop] = torch.randint(pad, (answer,), generator=generator)
        batch["attention_mask"][row, start:stop] = 1
        batch["labels"][row, middle:stop] = batch["input_ids"][row, middle:stop]
    batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp_min(0)
    return batch


def make_prompts(work: Work) -> list[list[int]]:
    generator = torch.Generator().manual_seed(SEED + 1)
    lengths = spread(work.question // 2, work.question * 3 // 2, work.prompts, generator)
    return [prompt(work, words, generator) for words in lengths]
