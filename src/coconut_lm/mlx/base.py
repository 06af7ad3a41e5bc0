"""What is asked of an mlx_lm model, whatever its architecture: states of embeddings, logits of states.

Shapes: B rows, T columns, D width, N positions, V vocabulary.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm import utils
from mlx_lm.models import gpt2
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.rope_utils import YarnRoPE

from coconut_lm.errors import UserError

GROUPS = (64, 32)  # numbers that share a scale


def new(config: dict[str, Any]) -> nn.Module:
    """An mlx_lm model of this configuration, its weights still to come."""
    kind = config["model_type"]
    try:
        model, arguments = utils._get_classes(config)
        base: nn.Module = model(arguments.from_dict(config))
    except ValueError:
        raise _unfit(kind, "mlx_lm does not know it") from None
    except TypeError as error:  # a key that transformers writes under another name
        raise _unfit(kind, f"mlx_lm asks for more: {error}") from None
    inner = getattr(base, "model", None)
    if not isinstance(inner, gpt2.GPT2Model) and not hasattr(inner, "embed_tokens"):
        raise _unfit(kind, "mlx_lm's takes no input embeddings")
    return base


def sanitized(base: nn.Module, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Transformers' weights as this architecture of mlx_lm has them."""
    return base.sanitize(weights) if hasattr(base, "sanitize") else weights


def load(base: nn.Module, weights: Mapping[str, mx.array], kind: str) -> None:
    """All weights, or none fits."""
    try:
        base.load_weights(list(sanitized(base, dict(weights)).items()))
    except ValueError as error:
        raise _unfit(kind, f"mlx_lm has other weights: {str(error).splitlines()[0]}") from None


def quantize(base: nn.Module, bits: int) -> None:
    """Matrices in 4 or 8 bits, where their rows can be parted into groups; what a model keeps whole, as the
    router of its experts, it keeps whole."""
    if bits not in (4, 8):
        raise UserError("weights have 4 or 8 bits", given=bits)
    own = getattr(base, "quant_predicate", lambda path, module: True)

    def fits(path: str, module: nn.Module) -> Any:
        group = next((size for size in GROUPS if module.weight.shape[-1] % size == 0), None)
        asked = own(path, module)
        if group is None or not hasattr(module, "to_quantized") or asked is False:
            return False
        return {"group_size": group, "bits": bits} | (asked if isinstance(asked, dict) else {})

    nn.quantize(base, class_predicate=lambda path, module: hasattr(module, "weight") and fits(path, module))
    mx.eval(base.parameters())


def rotate(base: nn.Module, wavelengths: mx.array) -> None:
    """YaRN's rotations as they are given: mlx_lm rounds the range of its ramp, which gpt-oss does not."""
    for module in base.modules():
        if isinstance(module, YarnRoPE):
            module._freqs = wavelengths


def _unfit(kind: str, why: str) -> UserError:
    return UserError(
        "this architecture cannot think on MLX",
        given=f"{kind}: {why}",
        expected="gpt2, llama, qwen2, qwen3, gpt_oss or another that does",
        do="set backend: torch",
    )


def embedding(base: nn.Module) -> nn.Module:
    """The table of the input embeddings."""
    inner = base.model
    return inner.wte if isinstance(inner, gpt2.GPT2Model) else inner.embed_tokens


def states(base: nn.Module, embeds_BTD: mx.array, cache: Sequence[Any]) -> mx.array:
    """The last hidden states, those that the head reads."""
    inner = base.model
    if isinstance(inner, gpt2.GPT2Model):
        return _gpt2(inner, embeds_BTD, cache)
    if "input_embeddings" in inspect.signature(type(inner).__call__).parameters:
        ids_BT = mx.zeros(embeds_BTD.shape[:2], mx.int32)  # some read their shape
        return inner(ids_BT, cache=list(cache), input_embeddings=embeds_BTD)
    table = inner.embed_tokens
    inner.embed_tokens = lambda embeds_BTD: embeds_BTD  # it looks up what it is given, and that is all
    try:
        return inner(embeds_BTD, cache=list(cache))
    finally:
        inner.embed_tokens = table


def _gpt2(inner: gpt2.GPT2Model, embeds_BTD: mx.array, cache: Sequence[Any]) -> mx.array:
    """mlx_lm's own takes ids alone."""
    position_BT = mx.arange(embeds_BTD.shape[1]) + mx.array(cache[0].offset)[..., None]
    hidden_BTD = embeds_BTD + inner.wpe(mx.maximum(position_BT, 0))
    mask = create_attention_mask(hidden_BTD, cache[0])
    for block, kept in zip(inner.h, cache, strict=True):
        hidden_BTD = block(hidden_BTD, mask, cache=kept)
    return inner.ln_f(hidden_BTD)


def logits(base: nn.Module, hidden_BTD: mx.array) -> mx.array:
    """The model's own way from last hidden states to logits (tied, scaled, capped), its blocks left out."""
    stand_in: Any = _Answered(base, hidden_BTD)
    return type(base).__call__(stand_in, None)


def input_scale(base: nn.Module, rows: int, width: int, cache: Sequence[Any], kind: str) -> float:
    """By what the model multiplies the embeddings it is handed, as its first block sees them. Rows are one
    more than heads of keys: some have masks that would be taken for those of heads."""
    if isinstance(base.model, gpt2.GPT2Model):
        return 1.0  # it adds to them
    try:
        with watched(base, 0) as seen:
            states(base, mx.ones((rows, 3, width)), cache)
    except ValueError as error:
        raise _unfit(kind, f"mlx_lm's reads no batches: {error}") from None
    scale: Any = seen[0].mean().item()
    return float(scale)


@contextmanager
def watched(base: nn.Module, layer: int) -> Iterator[list[mx.array]]:
    """What goes into a block while this lasts."""
    blocks = base.model.h if isinstance(base.model, gpt2.GPT2Model) else base.model.layers
    seen: list[mx.array] = []
    block = blocks[layer]
    blocks[layer] = _Watched(block, seen)
    try:
        yield seen
    finally:
        blocks[layer] = block


class _Watched:
    def __init__(self, block: nn.Module, seen: list[mx.array]) -> None:
        self._block, self._seen = block, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    def __call__(self, hidden_BTD: mx.array, *args: Any, **kwargs: Any) -> Any:
        self._seen.append(hidden_BTD)
        return self._block(hidden_BTD, *args, **kwargs)


class _Answered:
    """A model whose blocks have already run: they answer with the states it is given."""

    def __init__(self, base: Any, hidden_BTD: mx.array) -> None:
        self._base, self.model = base, _Inner(base.model, hidden_BTD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


class _Inner:
    def __init__(self, inner: Any, hidden_BTD: mx.array) -> None:
        self._inner, self._hidden = inner, hidden_BTD

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self._hidden
