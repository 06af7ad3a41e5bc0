"""A model on MLX that is asked as the torch model is asked: whoever asks need not know.

Shapes: B rows, T columns, K thoughts, W columns of a window, D width, V vocabulary.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import torch
from torch import Tensor, nn

from coconut_lm import base as torch_bases
from coconut_lm import checks
from coconut_lm.configuration import CoconutConfig
from coconut_lm.feedback import Feedback
from coconut_lm.mlx import base as bases
from coconut_lm.mlx import model as hearts
from coconut_lm.mlx.bridge import TYPES, to_mlx, to_torch
from coconut_lm.mlx.cache import Columns
from coconut_lm.mlx.feedback import Feedback as MlxFeedback
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.outputs import CoconutOutput, Thoughts, Trail


class MlxModel:
    """Called as CoconutForCausalLM is to read and to write; it does not train. Tensors are on the host.

    Thoughts are those of its own feedback, unless someone put another one at `feedback`, which torch then
    computes.
    """

    training = False
    device = torch.device("cpu")

    def __init__(self, net: hearts.Coconut, config: CoconutConfig) -> None:
        self.net, self.config = net, config
        self.feedback: Feedback = Native(net.feedback)
        self.own = self.feedback
        # Some multiply what they are handed where torch's do it in the embedding.
        self.unit = net.scale / torch_bases.input_scale(config.get_text_config())
        self.dtype = TYPES[bases.embedding(net.base)(mx.array([0])).dtype]
        self.base_causallm = Head(net)

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: "Caches | None" = None,
        columns: Sequence[int] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        return_thoughts: bool = False,
        trail: Trail | None = None,
        thought_layer: int = hearts.LAST,
        **unused: Any,
    ) -> CoconutOutput:
        """As CoconutForCausalLM.forward without labels. Padding is on the left, so positions follow from the
        mask."""
        cache = past_key_values or Caches(self.net)
        mask_BT = checks.attention_mask(input_ids, attention_mask, cache.get_seq_length())
        checks.length(mask_BT, torch_bases.positions(self.config.get_text_config()))
        columns = self._find_columns(input_ids, mask_BT) if columns is None else columns
        cache.pad(mask_BT)
        walked = self.net(
            to_mlx(input_ids),
            to_mlx(mask_BT),
            columns,
            cache.kept,
            None if trail is None else hearts.Trail(*map(to_mlx, vars(trail).values())),
            None if self.feedback is self.own else Foreign(self.feedback),
            thought_layer,
        )
        logits_BTV = self.net.logits(walked.hidden_BTD[:, -(logits_to_keep or 0) :])
        mx.eval(logits_BTV, walked.fed, [each.state for each in cache.kept])
        return CoconutOutput(
            logits=to_torch(logits_BTV),
            past_key_values=cache,
            thoughts=self._trace(walked, columns) if return_thoughts else None,
            trail=Trail(*map(to_torch, vars(walked.trail).values())) if return_thoughts else None,
        )

    def _find_columns(self, input_ids: Tensor, mask_BT: Tensor) -> list[int]:
        checks.vocabulary(input_ids, self.config.vocab_size)
        mask_BT = mask_BT[:, -input_ids.shape[1] :]
        is_latent_BT = (input_ids == self.net.latent) & mask_BT.bool()
        checks.begins_with_latent(is_latent_BT, mask_BT)
        columns: list[int] = is_latent_BT.any(0).nonzero().flatten().tolist()
        return columns

    def _trace(self, walked: hearts.Walked, columns: Sequence[int]) -> Thoughts | None:
        if not walked.fed:
            return None
        fed_BKD = to_torch(mx.stack(walked.fed, axis=1)) * self.unit
        return Thoughts(list(columns), fed_BKD, to_torch(walked.is_latent_BT)[:, list(columns)])

    def get_base_model(self) -> "MlxModel":
        """As peft's has it: nothing is put around this one."""
        return self

    def eval(self) -> "MlxModel":
        return self

    def train(self, training: bool = True) -> "MlxModel":
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        """A copy."""
        table_VD = bases.embedding(self.net.base)(mx.arange(self.config.vocab_size))
        return nn.Embedding.from_pretrained(to_torch(table_VD) * self.unit)

    def peak_memory(self) -> int:
        """Bytes that arrays took at the worst moment so far."""
        return int(mx.get_peak_memory())


class Head:
    """What coconut_lm.base.logits asks of a base."""

    base_model_prefix = "blocks"

    def __init__(self, net: hearts.Coconut) -> None:
        self.net = net

    def forward(self, inputs_embeds: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=to_torch(self.net.logits(to_mlx(inputs_embeds))))


class Native(Feedback):
    """A feedback of MLX, for torch's to wrap."""

    def __init__(self, feedback: MlxFeedback) -> None:
        super().__init__()
        self.feedback, self.window = feedback, feedback.window

    def forward(self, h_BWD: Tensor, mask_BW: Tensor, index_B: Tensor) -> Tensor:
        return to_torch(self.feedback(to_mlx(h_BWD), to_mlx(mask_BW), to_mlx(index_B)))


class Foreign:
    """A feedback of torch, for the walk on MLX."""

    def __init__(self, feedback: Feedback) -> None:
        self.feedback, self.window = feedback, feedback.window

    def __call__(self, h_BWD: mx.array, mask_BW: mx.array, index_B: mx.array) -> mx.array:
        thought_BD: Tensor = self.feedback(to_torch(h_BWD), to_torch(mask_BW), to_torch(index_B).long())
        return to_mlx(thought_BD)


class Caches:
    """The caches of all layers, as the Answerer and the interventions use transformers' one."""

    droppable = True

    def __init__(self, net: hearts.Coconut) -> None:
        self.kept = net.columns()

    @property
    def layers(self) -> list["Layer"]:
        return [Layer(each) for each in self.kept]

    def get_seq_length(self) -> int:
        return int(self.kept[0]._idx)

    def pad(self, mask_BT: Tensor) -> None:
        left_B = to_mlx((mask_BT.cumsum(1) == 0).sum(1)).astype(mx.int32)
        for each in self.kept:
            each.pad(left_B)

    def batch_select_indices(self, rows: Tensor) -> None:
        """Rows by number, or those that are true."""
        self._select(rows.nonzero().flatten() if rows.dtype == torch.bool else rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        rows = len(self.kept[0].keys)
        self._select(torch.arange(rows).repeat_interleave(repeats))

    def _select(self, rows_B: Tensor) -> None:
        for each in self.kept:
            each.select(to_mlx(rows_B))


class Layer:
    """Keys and values of a layer, to be read and exchanged."""

    def __init__(self, kept: Columns) -> None:
        self._kept = kept

    @property
    def keys(self) -> Tensor:
        return to_torch(self._kept.keys_and_values()[0])

    @keys.setter
    def keys(self, keys_BHTE: Tensor) -> None:
        self._kept.keys = to_mlx(keys_BHTE)

    @property
    def values(self) -> Tensor:
        return to_torch(self._kept.keys_and_values()[1])

    @values.setter
    def values(self, values_BHTE: Tensor) -> None:
        self._kept.values = to_mlx(values_BHTE)


def of(heart: CoconutForCausalLM, quantize: int | None = None) -> MlxModel:
    """The same model; with `quantize`, its weights in so many bits."""
    net = hearts.of(heart)
    if quantize is not None:
        bases.quantize(net.base, quantize)
    return MlxModel(net, heart.config)
