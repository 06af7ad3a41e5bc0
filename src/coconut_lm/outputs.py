"""What a forward of our model gives.

Shapes: B rows, T columns, W columns of a window, K thoughts, D width, N supervised positions, V vocabulary.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
class Thoughts:
    """The trace of a forward: what was fed at each column of `columns`, and which rows thought there."""

    columns: list[int]
    fed_BKD: Tensor
    is_thought_BK: Tensor

    @property
    def norms_BK(self) -> Tensor:
        return self.fed_BKD.norm(dim=-1)


@dataclass(frozen=True)
class Trail:
    """What a cache does not tell to who goes on from it with a thought: the newest hidden states, and how
    many thoughts each row has had."""

    hidden_BWD: Tensor
    thoughts_B: Tensor


@dataclass
class CoconutOutput(CausalLMOutputWithPast):
    """`logits` are those of all columns, or, where labels were given, of the supervised positions (N, V)."""

    last_hidden_state: Tensor | None = None
    thoughts: Thoughts | None = None
    trail: Trail | None = None
