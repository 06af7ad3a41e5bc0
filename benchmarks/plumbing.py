"""What is done beside computing: encoding texts, changing the stage, making batches."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import median

import numpy as np
import recorded
import startup
from clock import repeated, timed
from figure import Figure, Job
from sides import learner
from transformers import PreTrainedTokenizerFast
from workload import MICRO, TINY, our_model

from coconut_lm.collate import Order
from coconut_lm.data.example import Example
from coconut_lm.feed import Place, steps
from coconut_lm.methods import Curriculum, Rows
from coconut_lm.tokens import add_latent_tokens, encode, latent_tokens, load_tokenizer

EXAMPLES = 385_620  # GSM8K with its augmented training questions
WORDS = 4000
WORDS_PER_TOKEN = 0.75
BATCH = 32
WORKERS = (0, 1, 2)
CURRICULUM = Curriculum(c_thought=2, max_latent_stage=3)


def measure(job: Job) -> Iterator[Figure]:
    job.say("plumbing: making texts")
    examples = texts(400 if job.quick else EXAMPLES)
    tokenizer = load_tokenizer(job.tokenizer) if job.tokenizer else trained_tokenizer(examples)
    job.say(f"plumbing: encoding {len(examples):,} examples")
    effort = replace(job.effort, patience=job.effort.patience / 3)
    seconds = repeated(lambda: encode(examples, tokenizer), effort, job.device)
    encoded = encode(examples, tokenizer)
    also = {"examples/s": len(examples) / median(seconds), "tokens": len(encoded.ids)}
    yield Figure("plumbing", f"encoding {len(examples):,} examples", "s", seconds, also=also)
    rows = Rows(encoded, latent_tokens(tokenizer), "coconut", CURRICULUM)
    job.say("plumbing: a change of stage")
    for grouped in (False, True):
        yield _stage_switch(rows, grouped, job)
    for workers in WORKERS[:2] if job.quick else WORKERS:
        job.say(f"plumbing: batches by {workers} workers")
        yield _making(rows, workers, job)
        yield _waiting(rows, workers, job)
    yield from startup.measure(job)


def texts(number: int) -> list[Example]:
    """Of made words, with questions about as long as GSM8K's, and steps like its own."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfw"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 9, WORDS)]
    lengths = recorded.gsm8k()
    often = np.arange(1, WORDS + 1) ** -1.0
    drawn = rng.choice(WORDS, size=200_000, p=often / often.sum()).tolist()
    starts, figures = rng.integers(190_000, size=number).tolist(), rng.integers(2, 99, (number, 2)).tolist()
    examples = []
    for index, (start, (a, b)) in enumerate(zip(starts, figures, strict=True)):
        question, *steps, _ = lengths[index % len(lengths)]
        chosen = drawn[start : start + max(1, int(question * WORDS_PER_TOKEN))]
        said = " ".join(words[word] for word in chosen) + f" {a} and {b}?"
        chain = tuple(f"<<{a}*{b + step}={a * (b + step)}>>" for step in range(len(steps)))
        examples.append(Example(said, chain, str(a * b)))
    return examples


def trained_tokenizer(examples: list[Example]) -> PreTrainedTokenizerFast:
    """Byte pairs, as GPT-2's, learned from some of these texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = examples[:20_000]
    pairs.train_from_iterator((" ".join([e.question, *e.steps, e.answer]) for e in some), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<eos>")
    add_latent_tokens(tokenizer)
    return tokenizer


def _stage_switch(rows: Rows, grouped: bool, job: Job) -> Figure:
    """From the end of an epoch to the first batch of the next, which is at another stage."""
    order = _order(rows, grouped)
    seconds = repeated(lambda: next(steps(rows, order, 1, Place())), job.effort, job.device)
    how = ", like lengths together" if grouped else ""
    return Figure("plumbing", f"change of stage, {len(rows):,} examples{how}", "s", seconds)


def _order(rows: Rows, grouped: bool) -> Order:
    return Order(len(rows), BATCH, lengths=rows.examples.lengths() if grouped else None)


def _making(rows: Rows, workers: int, job: Job) -> Figure:
    """Seconds a batch, once the first is there."""
    shares = steps(rows, _order(rows, True), 2, Place(), workers=workers)
    first, _ = timed(partial(next, shares), job.device)
    ahead = islice(shares, 10 if job.quick else 300)
    took, made = timed(lambda: sum(1 for _ in ahead), job.device)
    also = {"batches/s": made / took, "seconds to the first": first}
    return Figure("plumbing", f"a batch of {BATCH}, {workers} workers", "s", [took / made], also=also)


def _waiting(rows: Rows, workers: int, job: Job) -> Figure:
    """The share of its time that a small model waits for its batches: a larger one waits less."""
    shape = MICRO if job.quick else TINY
    train = learner(our_model(replace(shape, vocabulary=rows.tokens.before), job.device))
    shares = steps(rows, _order(rows, True), 2, Place(), workers=workers)
    train(next(shares))
    waited, trained = [], []
    for _ in range(5 if job.quick else 60):
        took, share = timed(partial(next, shares), job.device)
        waited.append(took)
        trained.append(timed(partial(train, share), job.device)[0])
    whole = sum(waited) + sum(trained)
    also = {"steps/s": len(trained) / whole}
    return Figure("plumbing", f"waiting for it, {workers} workers", "share", [sum(waited) / whole], also=also)
