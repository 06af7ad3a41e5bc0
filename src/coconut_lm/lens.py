"""What thoughts say: each as the tokens that the model would write from it (a logit lens), how long it is,
how undecided.

Shapes: B rows, K columns that may hold a thought, D width, V vocabulary, N thoughts.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coconut_lm import base as bases
from coconut_lm.answer import Answerer
from coconut_lm.assembly import Loaded, heart
from coconut_lm.collate import collate_prompts
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Prediction, Setting, predict, task_named
from coconut_lm.methods import Row
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.runfolder import write_json
from coconut_lm.tokens import encode

BATCH = 32
ANSWER_LENGTH = 128  # tokens that an answer may have, unless told


@dataclass(frozen=True)
class Thought:
    """Read as it was fed: a feedback that rescales or projects feeds what the head was not trained on."""

    tokens: tuple[tuple[str, float], ...]  # the likeliest, with their probabilities
    norm: float
    norm_ratio: float  # beside the mean length of the token embeddings
    entropy: float  # nats

    def to_json(self) -> dict[str, Any]:
        """Its figures to four places."""
        return {
            "tokens": [[text, round(probability, 4)] for text, probability in self.tokens],
            "norm": round(self.norm, 4),
            "norm_ratio": round(self.norm_ratio, 4),
            "entropy": round(self.entropy, 4),
        }


def decode(loaded: Loaded, rows: Sequence[Row], top: int = 5) -> list[list[Thought]]:
    """The thoughts of each prompt, in order."""
    model = heart(loaded.model)
    unit = bases.mean_embedding_norm(model)
    found: list[list[Thought]] = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        fed_ND = _fed(loaded, model, batch)
        thoughts = iter(_read(loaded, model, fed_ND, unit, top))
        found += [[next(thoughts) for _ in range(row.thoughts)] for row in batch]
    return found


@torch.no_grad()
def _fed(loaded: Loaded, model: CoconutForCausalLM, rows: Sequence[Row]) -> Tensor:
    """What the rows were fed, one row's thoughts after the other's."""
    batch = collate_prompts(rows, loaded.tokens)
    if not batch.columns:
        return torch.empty(0, 0)
    ids, mask = (torch.from_numpy(a).to(model.device) for a in (batch.input_ids, batch.attention_mask))
    training = model.training
    try:
        model.eval()
        trace = model(
            ids, attention_mask=mask, columns=batch.columns, logits_to_keep=1, return_thoughts=True
        ).thoughts
    finally:
        model.train(training)
    return trace.fed_BKD[trace.is_thought_BK]


@torch.no_grad()
def _read(
    loaded: Loaded, model: CoconutForCausalLM, fed_ND: Tensor, unit: float, top: int
) -> Iterator[Thought]:
    if not len(fed_ND):
        return
    # They are handed over scaled down where the model scales up what it is handed.
    states_ND = fed_ND * bases.input_scale(model.config.get_text_config())
    log_p_NV = bases.logits(model.base_causallm, states_ND[None])[0].float().log_softmax(-1)
    # A token that is ruled out has probability 0 and log-probability -inf: nothing to add.
    entropy_N = -(log_p_NV.exp() * log_p_NV.clamp_min(torch.finfo(torch.float32).min)).sum(-1)
    likeliest = log_p_NV.exp().topk(min(top, log_p_NV.shape[-1]))
    figures = zip(
        likeliest.indices.tolist(),
        likeliest.values.tolist(),
        states_ND.float().norm(dim=-1).tolist(),
        entropy_N.tolist(),
        strict=True,
    )
    for ids, probabilities, norm, entropy in figures:
        texts = loaded.tokenizer.batch_decode([[each] for each in ids])
        yield Thought(tuple(zip(texts, probabilities, strict=True)), norm, norm / unit, entropy)


# -- with what is written after them --


@dataclass(frozen=True)
class Answer:
    """What was written after so many slots, and what was thought in them."""

    slots: int
    output: str
    ended: bool
    thoughts: list[Thought]

    def to_json(self) -> dict[str, Any]:
        """With its thoughts, as files and --json have them."""
        thoughts = [thought.to_json() for thought in self.thoughts]
        return {"slots": self.slots, "output": self.output, "ended": self.ended, "thoughts": thoughts}


def ask(
    loaded: Loaded,
    question: str,
    counts: Sequence[int] | None = None,
    *,
    stage: int | None = None,
    top: int = 5,
    max_new_tokens: int = ANSWER_LENGTH,
) -> list[Answer]:
    """The answer with each number of thoughts (or pauses), or with the number that the stage implies."""
    if not question.strip():
        raise UserError("nothing is asked", given=repr(question), expected="a question")
    # How many steps it would take is not known: as many as the last stage has thoughts for.
    unknown = Example(question, ("",) * loaded.curriculum.max_latent_stage, "")
    prompts = loaded.rows(encode([unknown], loaded.tokenizer))
    stage = loaded.stage(counts[0] if counts else None) if stage is None else stage
    rows = [prompts.prompt(0, stage, count) for count in counts or (None,)]
    replies = Answerer(loaded.model, loaded.tokens, max_new_tokens)(rows)
    outputs = loaded.tokenizer.batch_decode([[*r.ids] for r in replies], skip_special_tokens=True)
    return [
        Answer(_slots(loaded, row), output, reply.ended, thoughts)
        for row, output, reply, thoughts in zip(
            rows, outputs, replies, decode(loaded, rows, top), strict=True
        )
    ]


def _slots(loaded: Loaded, row: Row) -> int:
    fillers = [loaded.tokens.latent, loaded.tokens.pause]
    return int(sum(int(token) in fillers for token in row.input_ids))


def write_thoughts(
    loaded: Loaded,
    examples: Sequence[Example],
    setting: Setting,
    path: str | os.PathLike[str],
    *,
    top: int = 5,
) -> None:
    """Thoughts and answers of these examples, asked as an evaluation asks them, for its report."""
    prompts = loaded.rows(encode(examples, loaded.tokenizer))
    found = predict(
        Answerer(loaded.model, loaded.tokens, setting.max_new_tokens),
        prompts,
        examples,
        tokenizer=loaded.tokenizer,
        task=task_named(setting.task, setting.scoring),
        stage=setting.stage,
        thoughts=setting.thoughts,
    )
    predictions = sorted(found, key=lambda each: each.index)
    rows = [prompts.prompt(index, setting.stage, setting.thoughts) for index in range(len(examples))]
    write_json(path, [_told(*each) for each in zip(predictions, decode(loaded, rows, top), strict=True)])


def _told(prediction: Prediction, thoughts: list[Thought]) -> dict[str, Any]:
    return {
        "question": prediction.question,
        "thoughts": [thought.to_json() for thought in thoughts],
        "output": prediction.output,
        "gold": prediction.gold,
        "correct": prediction.correct,
    }
