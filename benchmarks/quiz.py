"""Prompts as long as ProsQA's validation questions, and how each side answers them.

Random models would end their answers anywhere: the end token and the latent one are muted in them, and where
answers end, each prompt says after how many tokens.

Shapes: B rows, T columns, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import recorded
import reference
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from workload import Net

from coconut_lm.answer import Answerer
from coconut_lm.data.example import Example
from coconut_lm.evaluate import Reply, predict, task_named
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.tokens import add_latent_tokens

THOUGHTS = 6
NEVER = -1  # an end token that no model writes
SHORTEST = 5  # tokens of an answer that ends


class Quiz:
    def __init__(self, net: Net, prompts: int, most: int, ends: bool) -> None:
        self.net, self.most, self.ends = net, most, ends
        curriculum = Curriculum(max_latent_stage=THOUGHTS)
        lengths = [[question, 1] for (question,) in recorded.prosqa()[:prompts]]
        self.rows = Rows(recorded.made(lengths, net.tokens.eos), net.tokens, "coconut", curriculum)
        self.prompts = [self.rows.prompt(index, THOUGHTS) for index in range(prompts)]
        self.written = [self._length(prompt) for prompt in self.prompts]
        self.examples = [Example("", (), "")] * prompts
        self.tokenizer = _tokenizer(net)

    def _length(self, prompt: Row) -> int:
        if not self.ends:
            return self.most
        return _drawn(int(prompt.input_ids[: prompt.first - 1].sum()), self.most)

    def answers(
        self, model: CoconutForCausalLM, batch: int, asked: Sequence[int] | None = None
    ) -> dict[int, list[int]]:
        """What we write, by the evaluation's own way: batches, decoding, judging."""
        written: dict[int, list[int]] = {}
        now: list[int] = []  # of those asked at present, how many tokens each writes
        answerer = Answerer(model, self.net.tokens, self.most)
        if self.ends:
            answerer.picks = lambda *_: partial(self._pick, now)

        def generate(prompts: Sequence[Row]) -> Sequence[Reply]:
            now[:] = [self.written[row.index] for row in prompts]
            replies = answerer(prompts)
            written.update((row.index, [*reply.ids]) for row, reply in zip(prompts, replies, strict=True))
            return replies

        task = task_named("plain")
        for _ in predict(
            generate,
            self.rows,
            self.examples,
            tokenizer=self.tokenizer,
            task=task,
            stage=THOUGHTS,
            batch_size=batch,
            indices=asked,
        ):
            pass
        return written

    def _pick(self, lengths: Sequence[int], logits_BV: Tensor, rows_B: Tensor, column: int) -> Tensor:
        """The likeliest, or the end of text where an answer is to end."""
        over_B = torch.tensor(lengths, device=rows_B.device)[rows_B] <= column
        return torch.where(over_B, self.net.tokens.eos, logits_BV.argmax(-1))

    def prepare(self, model: Any, ours: bool) -> None:
        """Mutes what would end an answer or be no token."""
        tokens = self.net.tokens
        muted = torch.tensor([tokens.eos, tokens.latent], device=model.device)
        head: nn.Module = (model.base_causallm if ours else model).lm_head
        head.register_forward_hook(lambda _, __, logits: logits.index_fill_(-1, muted, -torch.inf))

    def reference(self, model: PreTrainedModel, index: int) -> list[int]:
        """What the reference writes after one prompt; it computes the token that ends an answer too."""
        prompt = self.prompts[index].input_ids.tolist()
        text = reference.reference_generate(model, self.net.tokens.latent, NEVER, prompt, self._passes(index))
        return text[len(prompt) :][: self.written[index]]

    def _passes(self, index: int) -> int:
        return min(self.written[index] + 1, self.most)

    def cost(self, index: int) -> int:
        """Tokens that the reference reads for an answer: the whole prefix for each that it writes."""
        passes, prompt = self._passes(index), len(self.prompts[index].input_ids)
        return passes * prompt + passes * (passes - 1) // 2

    def near_mean(self, number: int) -> list[int]:
        """The prompts of about mean cost."""
        costs = [self.cost(index) for index in range(len(self.prompts))]
        mean = sum(costs) / len(costs)
        return sorted(range(len(costs)), key=lambda index: abs(costs[index] - mean))[:number]

    def share(self, index: int) -> float:
        """Of all that the reference would read."""
        return self.cost(index) / sum(map(self.cost, range(len(self.prompts))))


def _drawn(question: Any, most: int) -> Any:
    """The length of an answer, by the sum of its question's ids: as if drawn from all there are."""
    shortest = min(SHORTEST, most)
    return shortest + question % (most - shortest + 1)


def _tokenizer(net: Net) -> PreTrainedTokenizerFast:
    """A word for every id."""
    from tokenizers import Tokenizer, models

    words = {f"w{number}": number for number in range(net.tokens.eos)} | {"<eos>": net.tokens.eos}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="<eos>", unk_token="w0"
    )
    tokens = add_latent_tokens(tokenizer)
    assert tokens == net.tokens, "the model and the tokenizer have the same ids"
    return tokenizer
