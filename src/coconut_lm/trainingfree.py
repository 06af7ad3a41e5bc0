"""Thoughts without training: an instruct model that is given latent tokens, as if it were a Coconut."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from coconut_lm import chat, tokens
from coconut_lm.assembly import Loaded, heart, merged, open_checkpoint
from coconut_lm.chat import Benchmark
from coconut_lm.data import benchmarks
from coconut_lm.data.example import Example, Task
from coconut_lm.errors import UserError
from coconut_lm.methods import Curriculum, Rows
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.runfolder import checkpoint_of

THOUGHTS = 8  # as in the published experiments
STAGE = 1  # the one with thoughts; stage 0 has the markers alone


@dataclass(frozen=True, kw_only=True)
class Instruct(Loaded):
    """An instruct model with what it is asked: in place of a checkpoint's Loaded."""

    benchmark: Benchmark
    style: str

    def read(self, data: str, *, split: str | None = None, limit: int | None = None) -> list[Example]:
        """The benchmark's records, or examples."""
        return benchmarks.examples(self.benchmark.name, data, split=split, limit=limit)

    def prompts(self, examples: Sequence[Example], seed: int = 0) -> Rows:
        """The questions in the chat template."""
        return self.rows(chat.encode(examples, self.tokenizer, self.benchmark, self.style), seed)

    def judge(self, task: str, scoring: str = "tolerant") -> Task:
        """The benchmark's, which reads the final part."""
        return self.benchmark.judge(scoring)

    def stage(self, thoughts: int | None = None) -> int:
        return STAGE


def open_instruct(
    place: str | os.PathLike[str],
    benchmark: str,
    *,
    thoughts: int = THOUGHTS,
    markers: bool = True,
    style: str = "form",
    new_token_init: str = "random",
    seed: int = 0,
) -> Instruct:
    """Any causal language model with a chat template: a hub id, a folder, a checkpoint.

    Tokens that the model does not know get rows by `new_token_init` ("random" drawn from `seed`, "mean" or
    "<<"); a Coconut keeps its own. Without `markers` its prompts are the template's alone.
    """
    asked = chat.benchmark(benchmark)
    if thoughts < 0:
        raise UserError("impossible thoughts", given=thoughts, expected="0 or more")
    path = checkpoint_of(place)
    tokenizer = tokens.load_tokenizer(path if path.is_dir() else str(place))
    latent = chat.latent_tokens(tokenizer, style)  # which a missing template is said by, before a model loads
    found = open_checkpoint(place)
    model = found.model if heart(found.model).config.thinks else _grown(found, new_token_init, seed)
    known = {"style": style, "markers": markers, "new_token_init": new_token_init, "row_seed": seed}
    return Instruct(
        model=model,
        tokenizer=found.tokenizer,
        tokens=latent,
        method="coconut" if markers else "no_cot",
        curriculum=Curriculum(c_thought=thoughts, max_latent_stage=STAGE, after_last_stage="hold"),
        place=found.place,
        benchmark=asked,
        style=style,
        told={"training_free": benchmark, "latents": thoughts, **known},
    )


def _grown(found: Loaded, init: str, seed: int) -> CoconutForCausalLM:
    """The model with rows for the latent tokens: the same ones for a seed, whatever was drawn before."""
    base = merged(found.model).base_causallm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CoconutForCausalLM.from_base(base, found.tokenizer, new_token_init=init).eval()
