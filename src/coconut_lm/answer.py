"""What a model writes after prompts: greedily, the same in any batch.

Shapes: B rows still writing, T columns, K thoughts, V vocabulary.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from coconut_lm import base as bases
from coconut_lm.collate import Batch, collate_prompts
from coconut_lm.configuration import CoconutConfig
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Reply
from coconut_lm.methods import Row
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.outputs import CoconutOutput, Thoughts
from coconut_lm.tokens import LatentTokens

DROP = 0.75  # rows that have ended are left out once no more than so many of a batch write
ASK = 8  # tokens after which a GPU is asked whether all rows have ended: it waits for that

Pick = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Reading:
    """Prompts as they were read: logits of what comes next, the cache, the thoughts.

    What else is to be said of each row goes into the notes of its reply."""

    output: CoconutOutput
    notes: Sequence[Mapping[str, Any]] | None = None


Read = Callable[[CoconutForCausalLM, Batch, Sequence[int]], Reading]


def read(model: CoconutForCausalLM, batch: Batch, columns: Sequence[int], **how: Any) -> Reading:
    """Whole prompts; `columns` are those that may hold a thought, `how` is more for the model."""
    output = model(
        input_ids=torch.from_numpy(batch.input_ids).to(model.device),
        attention_mask=torch.from_numpy(batch.attention_mask).to(model.device),
        mask_on_host=batch.attention_mask,
        columns=columns,
        use_cache=True,
        logits_to_keep=1,
        return_thoughts=True,
        **how,
    )
    return Reading(output)


def greedy(logits_BV: Tensor, rows_B: Tensor, column: int) -> Tensor:
    """The likeliest tokens, (B,). `rows` are those of the batch that still write, `column` the how-manieth
    token this is: who picks otherwise may need to know."""
    return logits_BV.argmax(-1)


def greedily(batch: Batch, branches: int, room: int) -> Pick:
    """What picks the tokens behind these prompts, so many rows of each, so many tokens at most."""
    return greedy


class Answerer:
    """Takes prompts, gives replies: one batch, greedy, whatever habits the checkpoint brought along.

    `synced` is for a model in shards, where every rank must make the same passes: those of a prompt then
    depend on its columns alone, and the caller has agreed on `min_columns` with the other ranks.

    Prompts may be read otherwise, with other thoughts for one, and tokens picked otherwise: `read` may make
    several rows of each prompt, its `branches`, which stand side by side. `scored` replies know how likely
    they are.
    """

    def __init__(
        self,
        model: PreTrainedModel | Any,
        tokens: LatentTokens,
        max_new_tokens: int,
        *,
        synced: bool = False,
        min_columns: int = 0,
        read: Read = read,
        picks: Callable[[Batch, int, int], Pick] = greedily,
        branches: int = 1,
        scored: bool = False,
    ) -> None:
        # The layers of an adapter sit inside the model.
        inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(getattr(inner, "config", None), CoconutConfig):
            raise UserError(
                "this model does not think",
                given=type(inner).__name__,
                expected="CoconutForCausalLM",
                do="wrap it: CoconutForCausalLM.from_base(model, tokenizer)",
            )
        self.model, self.tokens, self.max_new_tokens = inner, tokens, max_new_tokens
        self.synced, self.min_columns = synced, min_columns
        self.read, self.picks, self.branches, self.scored = read, picks, branches, scored
        self.limit = bases.positions(inner.config.get_text_config()) or sys.maxsize

    def __call__(self, prompts: Sequence[Row]) -> list[Reply]:
        """One reply to each, that of its first branch."""
        return [replies[0] for replies in self.branched(prompts)]

    def branched(self, prompts: Sequence[Row]) -> list[list[Reply]]:
        """The replies of all branches. A batch writes no more than its longest prompt leaves room for; rows
        that have more are asked again without it."""
        rooms = [self.room(prompt) for prompt in prompts]
        replies = self._answer(prompts, min(rooms))
        cut = [
            number
            for number, (each, room) in enumerate(zip(replies, rooms, strict=True))
            if any(not reply.ended and len(reply.ids) < room for reply in each)
        ]
        if cut and not self.synced:
            again = self.branched([prompts[number] for number in cut])
            for number, each in zip(cut, again, strict=True):
                replies[number] = each
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
    def _answer(self, prompts: Sequence[Row], room: int) -> list[list[Reply]]:
        batch, copies = collate_prompts(prompts, self.tokens), self.branches
        with _evaluating(self.model):
            reading = self.read(self.model, batch, _columns(batch, self.min_columns))
            output, pick = reading.output, self.picks(batch, copies, room)
            mask = torch.from_numpy(batch.attention_mask).to(self.model.device)
            written, scores = self._write(output, mask.repeat_interleave(copies, 0), room, pick)
        rows = len(prompts) * copies
        norms = _norms(output.thoughts) if output.thoughts is not None else [()] * rows
        told = zip(written.tolist(), scores.tolist(), norms, reading.notes or [{}] * rows, strict=True)
        replies = [self._reply(*each) for each in told]
        return [replies[row : row + copies] for row in range(0, rows, copies)]

    def _write(self, output: CoconutOutput, mask_BT: Tensor, room: int, pick: Pick) -> tuple[Tensor, Tensor]:
        """Up to `room` tokens behind each prompt, and their log-probabilities where these are asked for; what
        stands behind an end of text means nothing."""
        rows_B = torch.arange(len(mask_BT), device=mask_BT.device)
        positions_B = mask_BT.sum(1)
        written = torch.full((len(rows_B), room), self.tokens.eos, device=mask_BT.device)
        precise = torch.promote_types(output.logits.dtype, torch.float32)
        shape = written.shape if self.scored else (len(rows_B), 0)
        scores = torch.zeros(shape, dtype=precise, device=mask_BT.device)
        going_B = torch.ones_like(rows_B, dtype=torch.bool)
        for column in range(room):
            logits_BV = self._logits(output)
            token_B = pick(logits_BV, rows_B, column)
            written[rows_B, column] = token_B
            if self.scored:
                scores[rows_B, column] = going_B * _log_probability(logits_BV, token_B).to(scores)
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
        return written, scores

    def _logits(self, output: CoconutOutput) -> Tensor:
        logits_BV = output.logits[:, -1]
        if self.model.config.thinks:  # a latent stands for a thought in a prompt; written, it means nothing
            logits_BV[:, self.tokens.latent] = -torch.inf
        return logits_BV

    def _left(self, going_B: Tensor, column: int) -> int:
        """How many rows still write, here or, where ranks go together, anywhere."""
        if going_B.device.type != "cpu" and not self.synced and column % ASK:
            return len(going_B)
        left = going_B.sum()
        if self.synced:
            torch.distributed.all_reduce(left)
        return int(left)

    def _reply(
        self, ids: list[int], scores: list[float], norms: tuple[float, ...], notes: Mapping[str, Any]
    ) -> Reply:
        ended = self.tokens.eos in ids
        kept = tuple(ids[: ids.index(self.tokens.eos)] if ended else ids)
        return Reply(kept, ended, norms, sum(scores) if self.scored else None, notes)


def _log_probability(logits_BV: Tensor, token_B: Tensor) -> Tensor:
    """Of the tokens, whatever way they were picked."""
    return logits_BV.float().log_softmax(-1).gather(1, token_B[:, None])[:, 0]


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
    cache = output.past_key_values
    return getattr(cache, "droppable", False) or all(isinstance(each, DynamicLayer) for each in cache.layers)


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
