"""What a model writes after prompts: greedily, the same in any batch.

Shapes: B rows, K thoughts.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from coconut_lm import base as bases
from coconut_lm.collate import Batch, collate_prompts
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Reply
from coconut_lm.methods import Row
from coconut_lm.model import CoconutForCausalLM, CoconutOutput, Thoughts
from coconut_lm.tokens import LatentTokens


class Answerer:
    """Takes prompts, gives replies: one batch, greedy, whatever habits the checkpoint brought along.

    `synced` is for a model in shards, where every rank must make the same passes: those of a prompt then
    depend on its columns alone, and the caller has agreed on `min_columns` with the other ranks.
    """

    def __init__(
        self,
        model: PreTrainedModel | Any,
        tokens: LatentTokens,
        max_new_tokens: int,
        *,
        synced: bool = False,
        min_columns: int = 0,
    ) -> None:
        # The layers of an adapter sit inside the model; peft's own `generate` would bring back its habits.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(inner, CoconutForCausalLM):
            raise UserError(
                "this model does not think",
                given=type(inner).__name__,
                expected="CoconutForCausalLM",
                do="wrap it: CoconutForCausalLM.from_base(model, tokenizer)",
            )
        self.model, self.tokens, self.max_new_tokens = inner, tokens, max_new_tokens
        self.synced, self.min_columns = synced, min_columns
        self.limit = bases.positions(inner.config.get_text_config()) or sys.maxsize

    def __call__(self, prompts: Sequence[Row]) -> list[Reply]:
        """A batch writes no more than its longest prompt leaves room for; rows that have more are asked
        again without it."""
        rooms = [self.room(prompt) for prompt in prompts]
        replies = self._answer(prompts, min(rooms))
        cut = [
            number
            for number, (reply, room) in enumerate(zip(replies, rooms, strict=True))
            if not reply.ended and len(reply.ids) < room
        ]
        if cut and not self.synced:
            for number, reply in zip(cut, self([prompts[number] for number in cut]), strict=True):
                replies[number] = reply
        return replies

    def room(self, prompt: Row) -> int:
        """How many tokens may be written behind it."""
        length = len(prompt.input_ids)
        if length >= self.limit:
            much = "thoughts" if length - prompt.thoughts < self.limit else "tokens"
            raise UserError(
                f"example {prompt.index} has more {much} than the model has positions for",
                given=f"{length} tokens, {prompt.thoughts} of them thoughts",
                expected=f"at most {self.limit - 1}, and one to answer with",
                do="ask for fewer thoughts" if much == "thoughts" else "leave this example out",
            )
        return min(self.max_new_tokens, self.limit - length)

    @torch.no_grad()
    def _answer(self, prompts: Sequence[Row], room: int) -> list[Reply]:
        batch = collate_prompts(prompts, self.tokens)
        ids, mask = (
            torch.from_numpy(a).to(self.model.device) for a in (batch.input_ids, batch.attention_mask)
        )
        config = self.model.config.get_text_config()
        # Rows read in groups of like lengths, as our own cache allows, would make passes of their own.
        cache = {"past_key_values": DynamicCache(config=config)} if self.synced else {}
        with _plainly(self.model), _traced(self.model) as traces:
            written = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                columns=_columns(batch, self.min_columns),
                return_thoughts=True,
                do_sample=False,
                max_new_tokens=room,
                eos_token_id=self.tokens.eos,
                pad_token_id=self.tokens.pad,
                synced_gpus=self.synced,
                **cache,
            )
        norms = _norms(traces[0]) if traces else [()] * len(prompts)
        new = written[:, ids.shape[1] :].tolist()
        return [self._reply(row, each) for row, each in zip(new, norms, strict=True)]

    def _reply(self, ids: list[int], norms: tuple[float, ...]) -> Reply:
        ended = self.tokens.eos in ids
        return Reply(tuple(ids[: ids.index(self.tokens.eos)] if ended else ids), ended, norms)


def _columns(batch: Batch, at_least: int) -> range:
    """Those that may hold a thought, and more before them where other ranks have more."""
    stop = batch.columns.stop or batch.input_ids.shape[1]
    count = max(len(batch.columns), at_least)
    assert count < batch.input_ids.shape[1], "no prompt is as short as that"
    start = max(1, stop - count)
    return range(start, start + count)


def _norms(trace: Thoughts) -> list[tuple[float, ...]]:
    """The norms of each row's thoughts, in order."""
    rows = zip(trace.norms_BK.tolist(), trace.is_thought_BK.tolist(), strict=True)
    return [tuple(norm for norm, real in zip(*row, strict=True) if real) for row in rows]


@contextmanager
def _plainly(model: PreTrainedModel) -> Iterator[None]:
    """In evaluation mode, and without the checkpoint's habits: `generate` takes sampling and penalties from
    there even beside a configuration of ours."""
    habits, training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = habits
        model.train(training)


@contextmanager
def _traced(model: CoconutForCausalLM) -> Iterator[list[Thoughts]]:
    """Collects what the forwards in here thought: no second one is needed to know it."""
    traces: list[Thoughts] = []

    def collect(_: Any, __: Any, output: CoconutOutput) -> None:
        if output.thoughts is not None:
            traces.append(output.thoughts)

    hook = model.register_forward_hook(collect)
    try:
        yield traces
    finally:
        hook.remove()


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a CUDA device, or else the most this process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
