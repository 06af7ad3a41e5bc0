"""What a model writes after prompts: greedily, the same in any batch.

Shapes: B rows still writing, T columns, K thoughts, V vocabulary.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from coconut_lm import base as bases
from coconut_lm.collate import Batch, collate_prompts
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Reply
from coconut_lm.methods import Row
from coconut_lm.model import CoconutForCausalLM, CoconutOutput, Thoughts
from coconut_lm.tokens import LatentTokens

DROP = 0.75  # rows that have ended are left out once no more than so many of a batch write
ASK = 8  # tokens after which a GPU is asked whether all rows have ended: it waits for that

Pick = Callable[[Tensor, Tensor, int], Tensor]


def greedy(logits_BV: Tensor, rows_B: Tensor, column: int) -> Tensor:
    """The likeliest tokens, (B,). `rows` are those of the batch that still write, `column` the how-manieth
    token this is: who picks otherwise may need to know."""
    return logits_BV.argmax(-1)


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
        pick: Pick = greedy,
    ) -> None:
        # The layers of an adapter sit inside the model.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(inner, CoconutForCausalLM):
            raise UserError(
                "this model does not think",
                given=type(inner).__name__,
                expected="CoconutForCausalLM",
                do="wrap it: CoconutForCausalLM.from_base(model, tokenizer)",
            )
        self.model, self.tokens, self.max_new_tokens = inner, tokens, max_new_tokens
        self.synced, self.min_columns, self.pick = synced, min_columns, pick
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
        mask = torch.from_numpy(batch.attention_mask)
        with _evaluating(self.model):
            output = self.model(
                input_ids=torch.from_numpy(batch.input_ids).to(self.model.device),
                attention_mask=mask.to(self.model.device),
                mask_on_host=batch.attention_mask,
                columns=_columns(batch, self.min_columns),
                use_cache=True,
                logits_to_keep=1,
                return_thoughts=True,
            )
            written = self._write(output, mask.to(self.model.device), room).tolist()
        norms = _norms(output.thoughts) if output.thoughts is not None else [()] * len(prompts)
        return [self._reply(row, each) for row, each in zip(written, norms, strict=True)]

    def _write(self, output: CoconutOutput, mask_BT: Tensor, room: int) -> Tensor:
        """Up to `room` tokens behind each prompt; what stands behind an end of text means nothing."""
        rows_B = torch.arange(len(mask_BT), device=mask_BT.device)
        positions_B = mask_BT.sum(1)
        written = torch.full((len(rows_B), room), self.tokens.eos, device=mask_BT.device)
        going_B = torch.ones_like(rows_B, dtype=torch.bool)
        for column in range(room):
            token_B = self._next(output, rows_B, column)
            written[rows_B, column] = token_B
            going_B &= token_B != self.tokens.eos
            left = self._left(going_B, column)
            if left == 0 or column == room - 1:
                break
            mask_BT = torch.nn.functional.pad(mask_BT, (0, 1), value=1)
            if left <= DROP * len(rows_B) and _can_drop(output) and not self.synced:
                output.past_key_values.batch_select_indices(going_B)
                rows_B, positions_B, mask_BT = rows_B[going_B], positions_B[going_B], mask_BT[going_B]
                token_B, going_B = token_B[going_B], going_B[going_B]
            output = self.model(
                token_B[:, None],
                attention_mask=mask_BT,
                position_ids=positions_B[:, None],
                past_key_values=output.past_key_values,
                columns=(),
                use_cache=True,
                logits_to_keep=1,
            )
            positions_B = positions_B + 1
        return written

    def _next(self, output: CoconutOutput, rows_B: Tensor, column: int) -> Tensor:
        logits_BV = output.logits[:, -1]
        if self.model.config.thinks:  # a latent stands for a thought in a prompt; written, it means nothing
            logits_BV[:, self.tokens.latent] = -torch.inf
        return self.pick(logits_BV, rows_B, column)

    def _left(self, going_B: Tensor, column: int) -> int:
        """How many rows still write, here or, where ranks go together, anywhere."""
        if going_B.device.type != "cpu" and not self.synced and column % ASK:
            return len(going_B)
        left = going_B.sum()
        if self.synced:
            torch.distributed.all_reduce(left)
        return int(left)

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


def _can_drop(output: CoconutOutput) -> bool:
    return all(isinstance(layer, DynamicLayer) for layer in output.past_key_values.layers)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a CUDA device, or else the most this process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
