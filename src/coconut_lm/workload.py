"""The batches that a configuration asks for: the widest of every stage, and what a row is on average."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coconut_lm import tokens
from coconut_lm.config import Config
from coconut_lm.costs import Load
from coconut_lm.data.example import read_examples
from coconut_lm.errors import UserError
from coconut_lm.methods import METHODS, Curriculum, Rows

ASSUMED = 256  # tokens of a row where nothing says how many
SAMPLE = 2000  # examples that are looked at


@dataclass(frozen=True)
class Stage:
    """Epochs of one stage: a device's widest batch, and what a row is on average."""

    stage: int
    epochs: int
    load: Load
    tokens: float
    supervised: float


def training_rows(config: Config) -> tuple[Rows | None, int | None, str]:
    """Rows of some of the training examples, how many there are in all, and why there are none."""
    if not config.train_path or not Path(config.train_path).exists():
        return None, config.train_samples, "no training data is here"
    examples = read_examples(config.train_path, split="train", limit=config.train_samples)
    try:
        if config.tokenizer == "word":
            texts = (" ".join([each.question, *each.steps, each.answer]) for each in examples)
            tokenizer = tokens.word_tokenizer(texts)
        else:
            tokenizer = tokens.load_tokenizer(
                str(config.tokenizer or config.model_id or config.load_model_path)
            )
    except UserError:
        return None, len(examples), "the tokenizer is not here"
    latent = tokens.add_latent_tokens(tokenizer, pause=True)
    some = examples[:: -(-len(examples) // SAMPLE)]
    rows = Rows(
        tokens.encode(some, tokenizer), latent, config.method, Curriculum.of(config), seed=config.seed
    )
    return rows, len(examples), ""


def stages(config: Config, rows: Rows | None = None, length: int | None = None) -> list[Stage]:
    """Every stage that the run's epochs have, in order; rows of `length` tokens where there is no data."""
    curriculum, method = Curriculum.of(config), METHODS[config.method]
    epochs = Counter(method.schedule(curriculum, epoch) for epoch in range(config.resume, config.num_epochs))
    if rows is None or length is not None:
        length = length or config.max_seq_length or ASSUMED
        return [_assumed(config, stage, count, length) for stage, count in sorted(epochs.items())]
    return [_looked_at(config, rows, stage, count) for stage, count in sorted(epochs.items())]


def _assumed(config: Config, stage: int, epochs: int, length: int) -> Stage:
    """Half of a row is its question. Nothing is taken off for the steps that go."""
    method = METHODS[config.method]
    slots = method.slots(Curriculum.of(config), config.max_latent_stage, stage, False)
    thoughts = slots if method.filler == "latent" else 0
    first, learned = max(1, length // 2) + method.markers, max(1, length - length // 2)
    columns, size = first + slots + method.markers + learned, config.batch_size_training
    return Stage(stage, epochs, Load(size, columns, first, thoughts, size * learned), columns, learned)


def _looked_at(config: Config, rows: Rows, stage: int, epochs: int) -> Stage:
    made = [rows.row(index, stage) for index in range(len(rows))]
    limit = config.max_seq_length or max(len(row.input_ids) for row in made)
    made = [row for row in made if len(row.input_ids) <= limit] or made
    lengths = np.array([len(row.input_ids) for row in made])
    firsts = np.array([max(row.first, 0) for row in made])
    supervised = np.array([len(row.input_ids) - row.supervised_from for row in made])
    widest = Load(
        rows=config.batch_size_training,
        columns=int(firsts.max() + (lengths - firsts).max()),
        first=int(firsts.max()),
        thoughts=max(row.thoughts for row in made),
        supervised=config.batch_size_training * int(supervised.max()),
    )
    return Stage(stage, epochs, widest, float(lengths.mean()), float(supervised.mean()))
