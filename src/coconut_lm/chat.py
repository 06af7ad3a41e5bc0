"""Questions put to instruct models in their own chat template, encoded so that thoughts can follow.

What a prompt holds besides is the method's business, as with any other question: `Rows` of method coconut end
it in thoughts between markers, those of method no_cot leave it as the template made it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np

from coconut_lm import tokens
from coconut_lm.data.example import Example, Task, Verdict
from coconut_lm.data.survey import ROOMS
from coconut_lm.errors import UserError
from coconut_lm.tokens import EncodedSet, LatentTokens

PUBLISHED = "Please solve this step by step."  # the whole ask of the published noise experiments
DATE = datetime(
    2024, 7, 26
)  # what templates that tell the date take for today: a prompt is the same tomorrow
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
ANALYSIS = f"{CHANNEL}analysis{MESSAGE}"  # where models that write in channels think


@dataclass(frozen=True)
class Benchmark:
    """How answers are judged, what is asked for after the question, how much may be written."""

    name: str
    task: str
    ask: str
    max_new_tokens: int

    def judge(self, scoring: str = "tolerant") -> Task:
        """Its task, read as an instruct model writes."""
        inner = replace(ROOMS[self.task].TASK, scoring=scoring, max_new_tokens=self.max_new_tokens)
        return FinalPart(inner, self.task, self.max_new_tokens, scoring)


_NUMBER = 'Work it out step by step. Then write the answer on a last line of its own: "#### " and the number.'
_LETTER = 'Reason step by step. Then end with "The answer is X", where X is the letter of the right option.'
_BOX = "Work it out step by step, and put the final answer in \\boxed{}."
BENCHMARKS = {
    known.name: known
    for known in (
        Benchmark("gsm8k", "gsm8k", _NUMBER, 512),
        Benchmark("gsm-symbolic", "gsm8k", _NUMBER, 512),
        Benchmark("mmlu", "mmlu", _LETTER, 1024),
        Benchmark("math", "math", _BOX, 2048),
    )
}
# form: the ask names the form of the answer; published: it does not; raw: no template, for base models.
STYLES = ("form", "published", "raw")


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name."""
    if name not in BENCHMARKS:
        raise UserError("unknown benchmark", given=name, expected=", ".join(BENCHMARKS))
    return BENCHMARKS[name]


@dataclass
class FinalPart:
    """A Task that reads only what is said after the thinking, where a model sets that apart."""

    task: Task
    name: str
    max_new_tokens: int
    scoring: str = "tolerant"

    def score(self, output: str, example: Example) -> Verdict:
        """Judges the final part."""
        return self.task.score(final_part(output), example)


_THOUGHT_OVER = re.compile(rf"</think>|(?:{re.escape(CHANNEL)}|(?<=assistant))final(?:{re.escape(MESSAGE)})?")


def final_part(text: str) -> str:
    """What follows the last </think>, or the opening of the final channel, with its special tokens or what
    decoding leaves of them; the whole text where nothing does."""
    last = list(_THOUGHT_OVER.finditer(text))[-1:]
    return next((text[match.end() :] for match in last if text[match.end() :].strip()), text)


# -- prompts --


def message(question: str, asked: Benchmark, style: str = "form") -> str:
    """What the user says."""
    if _known(style) == "raw":
        return f"Question: {question}\nAnswer:"
    return f"{question}\n\n{PUBLISHED if style == 'published' else asked.ask}"


def prompt(tokenizer: Any, said: str) -> list[int]:
    """Up to where the model would begin to think: after the template's prompt for an answer, in the analysis
    channel of a vocabulary that has channels. Marks of the template that a question spells out are text."""
    how = {"tokenize": True, "return_dict": False, "sanitize_control_tokens": True}
    ids: list[int] = _rendered(tokenizer, [_turn("user", said)], add_generation_prompt=True, **how)
    vocabulary = tokenizer.get_vocab()
    if {CHANNEL, MESSAGE} <= vocabulary.keys() and ids[-1] != vocabulary[MESSAGE]:
        ids = ids + tokenizer.encode(ANALYSIS, add_special_tokens=False)
    return ids


def encode(examples: Sequence[Example], tokenizer: Any, asked: Benchmark, style: str = "form") -> EncodedSet:
    """Each question in its prompt, without steps, and the answer with the end of the turn."""
    end = latent_tokens(tokenizer, style).eos
    pieces = []
    for example in examples:
        said = message(example.question, asked, style)
        pieces += [_plain(tokenizer, said) if style == "raw" else prompt(tokenizer, said)]
        pieces += [[*tokenizer.encode(example.answer, add_special_tokens=False), end]]
    encoded = EncodedSet(
        np.fromiter(chain.from_iterable(pieces), np.int32),
        np.cumsum([0, *map(len, pieces)]),
        2 * np.arange(len(examples) + 1),
    )
    tokens.refuse_markers(encoded, tokenizer)
    return encoded


def _known(style: str) -> str:
    if style not in STYLES:
        raise UserError("unknown style of prompts", given=style, expected=", ".join(STYLES))
    return style


def _plain(tokenizer: Any, text: str) -> list[int]:
    """A tokenizer that closes every text with end-of-text must not close a prompt."""
    ids: list[int] = tokenizer.encode(text)
    return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids


def latent_tokens(tokenizer: Any, style: str = "form") -> LatentTokens:
    """Those of the tokenizer; what ends a text is what ends an answer's turn."""
    known = tokens.latent_tokens(tokenizer)
    return known if _known(style) == "raw" else replace(known, eos=end_of_turn(tokenizer))


def end_of_turn(tokenizer: Any) -> int:
    """The token that the template puts behind an answer; the end of text where it puts none."""
    turns = [_turn("user", "Is it?"), _turn("assistant", "Certainly.")]
    _, answered, behind = _rendered(tokenizer, turns, tokenize=False).rpartition("Certainly.")
    marks = {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids}
    ids = tokenizer.encode(behind, add_special_tokens=False) if answered else []
    return next((token for token in ids if token in marks), int(tokenizer.eos_token_id))


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(tokenizer: Any, turns: Sequence[Mapping[str, str]], **how: Any) -> Any:
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the tokenizer has no chat template",
            given=getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__,
            expected="an instruct model's, with chat_template",
            do="give an instruct model, or ask without a template: style raw",
        )
    template = _TODAY.sub(lambda call: repr(DATE.strftime(call[2])), tokenizer.get_chat_template())
    try:
        return tokenizer.apply_chat_template(turns, chat_template=template, **how)
    except TemplateError as error:
        raise UserError("the chat template takes no plain question", given=error) from None
