"""The heart: a causal language model that feeds its last hidden state back as the next input embedding.

Shapes: B rows, T columns, W columns of a window, K thoughts, D width, N supervised positions, V vocabulary.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import Cache

from coconut_lm import base as bases
from coconut_lm import card, checks, crossentropy, onepass, packing, products, recompute, tokens, vocabulary
from coconut_lm.configuration import CoconutConfig
from coconut_lm.errors import UserError
from coconut_lm.feedback import Feedback, MatchEmbedding, build
from coconut_lm.methods import IGNORED
from coconut_lm.outputs import CoconutOutput, Thoughts, Trail
from coconut_lm.passcache import PassCache


class NeverLatent(LogitsProcessor):
    """The latent token stands for a thought in a prompt; as an output it would mean nothing.

    Scores may be changed in place unless `generate` also returns the raw logits: they are one tensor.
    """

    def __init__(self, latent_token_id: int, in_place: bool = False) -> None:
        self.latent_token_id, self.in_place = latent_token_id, in_place

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores if self.in_place else scores.clone()
        scores[:, self.latent_token_id] = -torch.inf
        return scores


class CoconutForCausalLM(PreTrainedModel, GenerationMixin):
    feedback: Feedback
    config_class = CoconutConfig
    base_model_prefix = "base_causallm"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: CoconutConfig, base: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.base_causallm = bases.new(config.base_config) if base is None else base
        bases.fuse_gelu(self.base_causallm)
        products.install(self.base_causallm)
        packing.install(self.base_causallm)
        self.feedback = build(**config.feedback, hidden_size=config.get_text_config().hidden_size)
        # peft reads these from the outermost model: without them an adapter would part tied embeddings.
        tied = getattr(self.base_causallm, "all_tied_weights_keys", {})
        self.tied_weights = {f"base_causallm.{a}": f"base_causallm.{b}" for a, b in tied.items()}
        self._tied_weights_keys = self.tied_weights
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        columns: Sequence[int] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_thoughts: bool = False,
        mask_on_host: np.ndarray | None = None,
        supervised: Tensor | None = None,
        loss_only: bool = False,
        trail: Trail | None = None,
        thought_layer: int = onepass.LAST,
        **unused: Any,
    ) -> CoconutOutput:
        """`columns` are those that may hold a latent. The collator knows them; None looks for them, which
        waits for the device and checks the ids on the way. Only ids in the prompt are thoughts: while
        generating, `columns` is empty after the first call. `mask_on_host` is the attention mask again, and
        `supervised` which positions predict a label, counted through all rows: with both, nothing waits.
        With `loss_only`, logits make way for the loss. With the `trail` of the call that filled the cache,
        the first column may be a thought. Thoughts are made of the states of `thought_layer`."""
        use_cache = labels is None if use_cache is None else use_cache  # training needs it within a step only
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        mask_BT = checks.attention_mask(input_ids, attention_mask, seen)
        checks.length(mask_BT, bases.positions(self.config.get_text_config()))
        if columns is None:
            columns = self._find_columns(input_ids, mask_BT[:, seen:])
        if position_ids is None:
            position_ids = (mask_BT.cumsum(1) - 1).clamp_min(0)[:, seen:]
        if past_key_values is None and (use_cache or len(columns) > 0):
            past_key_values = PassCache(self.config.get_text_config(), mask_BT.shape[1])
        real_BT = None if mask_on_host is None else torch.from_numpy(mask_on_host)
        hidden_BTD, thoughts, trail = self._think(
            input_ids, mask_BT, position_ids, past_key_values, columns, real_BT, trail, thought_layer
        )
        loss, logits = None, None
        if labels is not None:
            loss, logits = self._loss(hidden_BTD, labels, num_items_in_batch, supervised, loss_only)
        if labels is None or logits_to_keep is not None:
            logits = bases.logits(self.base_causallm, hidden_BTD[:, -(logits_to_keep or 0) :])
        return CoconutOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            last_hidden_state=hidden_BTD,
            thoughts=thoughts if return_thoughts else None,
            trail=trail if return_thoughts else None,
        )

    def _think(
        self,
        input_ids: Tensor,
        mask_BT: Tensor,
        position_ids: Tensor,
        cache: Cache | None,
        columns: Sequence[int],
        real_BT: Tensor | None,
        trail: Trail | None,
        layer: int,
    ) -> tuple[Tensor, Thoughts | None, Trail]:
        """The algorithm: run up to a latent column, feed the last hidden state in there, run on."""
        embeds_BTD = self.get_input_embeddings()(input_ids)
        is_latent_BT = self._is_latent(input_ids)
        seen = mask_BT.shape[1] - input_ids.shape[1]
        before_B: Tensor | int = 0 if trail is None else trail.thoughts_B
        hidden: list[Tensor] = []
        source = [] if trail is None else [trail.hidden_BWD]
        fed: list[Tensor] = []
        for start, stop in pairwise([0, *columns, input_ids.shape[1]]):
            if start == stop:  # the first column is a thought
                continue
            chunk_BTD = embeds_BTD[:, start:stop]
            if start in columns:
                index_B = before_B + is_latent_BT[:, :start].sum(1)
                thought_BD = self._thought(source, mask_BT[:, : seen + start], index_B)
                fed.append(torch.where(is_latent_BT[:, start, None], thought_BD, chunk_BTD[:, 0]))
                chunk_BTD = torch.cat([fed[-1][:, None], chunk_BTD[:, 1:]], dim=1)
            given = (chunk_BTD, mask_BT[:, : seen + stop], position_ids[:, start:stop], cache)
            real = None if real_BT is None else real_BT[:, : seen + stop]
            last_BWD, source_BWD = onepass.run(self.base_causallm, *given, real, layer)
            hidden.append(last_BWD)
            source.append(source_BWD)
        trace = Thoughts(list(columns), torch.stack(fed, 1), is_latent_BT[:, list(columns)]) if fed else None
        end = Trail(self._newest(source), before_B + is_latent_BT.sum(1))
        return torch.cat(hidden, dim=1), trace, end

    def _newest(self, states: list[Tensor]) -> Tensor:
        """As many of the newest states as the feedback looks back on, or all."""
        window = self.feedback.window
        states_BWD = states[-1][:, -window:]
        for earlier_BTD in reversed(states[:-1]):
            if (lacking := window - states_BWD.shape[1]) == 0:
                break
            states_BWD = torch.cat([earlier_BTD[:, -lacking:], states_BWD], dim=1)
        return states_BWD

    def _thought(self, states: list[Tensor], mask_BT: Tensor, index_B: Tensor) -> Tensor:
        """What is fed next, made from the newest states of all columns so far."""
        states_BWD = self._newest(states)
        mask_BW = mask_BT[:, -states_BWD.shape[1] :]
        thought_BD = self.feedback(states_BWD, mask_BW, index_B)
        scaled_BD = thought_BD / bases.input_scale(self.config.get_text_config())
        return scaled_BD.to(self.get_input_embeddings().weight.dtype)

    def _loss(
        self,
        hidden_BTD: Tensor,
        labels: Tensor,
        items: Tensor | int | None,
        where_N: Tensor | None,
        only: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy at the supervised positions; the other logits are never computed."""
        if where_N is None:
            where_N = (F.pad(labels[:, 1:], (0, 1), value=IGNORED) != IGNORED).flatten().nonzero().flatten()
        states_ND = hidden_BTD.flatten(0, 1).index_select(0, where_N)
        logits_NV = bases.logits(self.base_causallm, states_ND[None])[0]
        total = crossentropy.summed(logits_NV, labels.flatten()[where_N + 1], spend=only)
        # A batch without a supervised position has loss zero and gradient zero, not 0/0.
        count = max(1, len(where_N)) if items is None else items
        return total / count, None if only else logits_NV

    def _is_latent(self, input_ids: Tensor) -> Tensor:
        if not self.config.thinks:
            return torch.zeros_like(input_ids, dtype=torch.bool)
        return input_ids == self.config.latent_token_id

    def _find_columns(self, input_ids: Tensor, mask_BT: Tensor) -> list[int]:
        checks.vocabulary(input_ids, self.config.vocab_size)
        is_latent_BT = self._is_latent(input_ids) & mask_BT.bool()
        checks.begins_with_latent(is_latent_BT, mask_BT)
        return is_latent_BT.any(0).nonzero().flatten().tolist()

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        # For a static cache the parent makes a mask of this one pass; each of ours needs its own.
        inputs["attention_mask"] = kwargs.get("attention_mask")
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs["columns"] = ()
        return inputs

    def generate(self, *args: Any, logits_processor: LogitsProcessorList | None = None, **kwargs: Any) -> Any:
        """transformers' `generate`: prompts padded on the left, any number of latents in each."""
        asked = {**vars(kwargs.get("generation_config") or self.generation_config), **kwargs}
        if asked.get("prefill_chunk_size") is not None:
            raise UserError(
                "a prompt with thoughts is read whole", given="prefill_chunk_size", do="leave it out"
            )
        if asked.get("use_cache") is not False and asked.get("cache_implementation") is None:
            kwargs.setdefault("past_key_values", PassCache(self.config.get_text_config()))
        processors = list(logits_processor or [])
        if self.config.thinks:
            processors.append(NeverLatent(self.config.latent_token_id, not asked.get("output_logits")))
        return super().generate(*args, logits_processor=LogitsProcessorList(processors), **kwargs)

    @classmethod
    def from_base(
        cls,
        base: str | os.PathLike[str] | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        feedback: Mapping[str, Any] | Feedback | None = None,
        new_token_init: str | None = "<<",
        **kwargs: Any,
    ) -> "CoconutForCausalLM":
        """Makes any causal LM (a hub id, a folder, a config JSON to start from scratch, or a model) think.

        `tokenizer` is given the latent tokens if it lacks them; without one, the base's own is loaded.
        `feedback` holds the arguments of `coconut_lm.feedback.build`, or is a module, which a saved model
        does not know by itself; `kwargs` go to transformers' loading.
        With `new_token_init=None` the vocabulary stays: the base alone, for methods without thoughts.
        """
        if tokenizer is None:
            tokenizer = tokens.load_tokenizer(
                base.name_or_path if isinstance(base, PreTrainedModel) else base
            )
        tokens.add_latent_tokens(tokenizer)
        model = base if isinstance(base, PreTrainedModel) else bases.load(base, len(tokenizer), **kwargs)
        if isinstance(model, cls):
            raise UserError("this model thinks already", given=model.name_or_path, do="use from_pretrained")
        latent = tokens.latent_tokens(tokenizer)
        ids: dict[str, int | None] = {}
        if new_token_init is not None:
            vocabulary.grow(model, tokenizer, new_token_init)
            ids = {"start_token_id": latent.start, "end_token_id": latent.end}
            ids |= {"latent_token_id": latent.latent, "pause_token_id": latent.pause}
        config = CoconutConfig(
            base_config=model.config,
            **ids,
            pad_token_id=latent.pad,
            eos_token_id=latent.eos,
            feedback={} if isinstance(feedback, Feedback) else dict(feedback or {}),
            dtype=model.dtype,
        )
        thinking = cls(config, base=model)
        if isinstance(feedback, Feedback):
            thinking.feedback = feedback
        return thinking._take_over(model)

    def _take_over(self, base: PreTrainedModel) -> "CoconutForCausalLM":
        """The base's place, precision and habits become ours."""
        self.feedback.to(device=base.device, dtype=base.dtype)
        if isinstance(self.feedback, MatchEmbedding):
            self.feedback.get_buffer("embedding_norm").fill_(bases.mean_embedding_norm(self))
        self.generation_config = copy.deepcopy(base.generation_config)
        self.generation_config.pad_token_id = self.config.pad_token_id
        if self.generation_config.eos_token_id is None:
            self.generation_config.eos_token_id = self.config.eos_token_id
        return self.train(base.training)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As transformers', but a checkpoint that does not fit whole is an error, not a warning."""
        kwargs.setdefault("ignore_mismatched_sizes", True)  # they are reported below, with the others
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        wrong = [
            f"  {kind.replace('_', ' ')}: {', '.join(map(str, info[kind]))}"
            for kind in kinds
            if info.get(kind)
        ]
        if wrong:
            raise UserError("\n".join(["the checkpoint does not fit the model", *wrong]), given=args[0])
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """As transformers', with a card that says how to load it, where there is none."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            card.introduce(save_directory, self.config.get_text_config().model_type, self.config.thinks)

    @property
    def base_model(self) -> nn.Module:
        """What gives hidden states: the whole. Who asks the base for them would leave the thinking out."""
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.base_causallm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base_causallm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.base_causallm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.base_causallm.set_output_embeddings(new_embeddings)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = checkpoint, **_: Any
    ) -> None:
        if enable:
            recompute.enable(self.base_causallm, gradient_checkpointing_func)
        else:
            recompute.disable(self.base_causallm)


AutoConfig.register("coconut", CoconutConfig, exist_ok=True)  # the name was announced before
AutoModelForCausalLM.register(CoconutConfig, CoconutForCausalLM)
