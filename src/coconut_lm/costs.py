"""What a model costs, in closed formulas of its shape: floating-point operations, bytes, passes.

Bytes of activations are those that autograd keeps of transformers' models with scaled-dot-product attention
and a padding mask; tests hold them against every tensor that is alive. Sizes in the names: A is the width of
all heads together, K that of the key heads, D the model's width, F the MLP's, V the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

ADAM = 2  # moments of every trained parameter
ASIDE = 2**30  # what a device's driver and its libraries take before anything else
HEAD_NORMS = ("qwen3", "gemma3", "olmo2")


@dataclass(frozen=True)
class Shape:
    """A decoder as far as it costs something."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    rotary: bool = True
    """RMS norms, rotated keys and an MLP of three matrices; otherwise GPT-2's way."""
    head_norms: bool = False
    tied: bool = False
    experts: int = 0
    """0 is one MLP for all tokens."""
    chosen: int = 1
    """Experts that a token meets."""

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """From a configuration of transformers, or the dict of one."""
        given = dict(config) if isinstance(config, Mapping) else config.to_dict()

        def one(*names: str, default: Any = None) -> Any:
            return next((given[name] for name in names if given.get(name) is not None), default)

        width, heads = one("hidden_size", "n_embd"), one("num_attention_heads", "n_head", "num_heads")
        kind = str(given.get("model_type", ""))
        return cls(
            layers=one("num_hidden_layers", "n_layer", "num_layers"),
            width=width,
            heads=heads,
            kv_heads=one("num_key_value_heads", default=heads),
            head_dim=one("head_dim", default=width // heads),
            inner=one("intermediate_size", "n_inner", default=4 * width),
            vocabulary=one("vocab_size", default=50257),
            rotary=one("rms_norm_eps") is not None,
            head_norms=kind.startswith(HEAD_NORMS),
            tied=bool(one("tie_word_embeddings", default=one("rms_norm_eps") is None)),
            experts=one("num_local_experts", "num_experts", default=0),
            chosen=one("num_experts_per_tok", default=1),
        )

    @property
    def attended(self) -> int:
        """A: the width of all heads together."""
        return self.heads * self.head_dim

    @property
    def kept(self) -> int:
        """K: the width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def table(self) -> int:
        return self.vocabulary * self.width

    def block(self, experts: int | None = None) -> int:
        """Weights of a layer's products, with so many experts of those there are."""
        mlp = (3 if self.rotary else 2) * self.width * self.inner
        attention = 2 * self.width * (self.attended + self.kept)
        return attention + mlp * (max(self.experts, 1) if experts is None else experts)

    @property
    def parameters(self) -> int:
        """All but norms, biases and tables of positions."""
        return self.layers * self.block() + self.table * (1 if self.tied else 2)


# -- floating-point operations: two for a weight and a token, four for a pair of columns and a unit of A --


def flops_of_reading(shape: Shape, tokens: float, seen: float = 0) -> float:
    """The layers over so many tokens behind others that are in the cache."""
    pairs = tokens * seen + tokens * (tokens + 1) / 2
    return shape.layers * (2 * shape.block(shape.chosen) * tokens + 4 * shape.attended * pairs)


def flops_of_logits(shape: Shape, tokens: float) -> float:
    return 2.0 * shape.table * tokens


def flops_of_answer(shape: Shape, prompt: int, thoughts: int, written: int) -> float:
    """Reading a prompt (thoughts not counted in), thinking, writing; the last token is not read again.

    `written` counts end-of-text if it was written.
    """
    return flops_of_reading(shape, prompt + thoughts + max(written - 1, 0)) + flops_of_logits(shape, written)


def passes_of_answer(thoughts: int, written: int) -> int:
    """Forwards one behind the other; the prompt's last one writes the first token."""
    return thoughts + max(written, 1)


def flops_of_training(
    shape: Shape, tokens: float, supervised: float, *, recompute: bool = False, adapters: bool = False
) -> float:
    """Forward and backward of a row: twice the forward for all gradients, once where weights are frozen."""
    backward = 1 if adapters else 2
    layers = flops_of_reading(shape, tokens) * (1 + backward)
    if recompute:  # up to a layer's last product, of which nothing is kept
        last = 2 * shape.inner * shape.width * shape.chosen * shape.layers
        layers += flops_of_reading(shape, tokens) - last * tokens
    return layers + flops_of_logits(shape, supervised) * (1 + backward)


# -- bytes --


@dataclass(frozen=True)
class Precision:
    """Bytes of a number: in the weights, in products, in what flows from layer to layer."""

    weights: int
    compute: int
    stream: int

    @property
    def cast(self) -> int:
        """Bytes of the copy of a weight that autocast makes."""
        return self.compute if self.compute < self.weights else 0


PRECISIONS = {
    "float32": Precision(4, 4, 4),
    "autocast": Precision(4, 2, 4),
    "pure": Precision(2, 2, 2),
}


@dataclass(frozen=True)
class Adapters:
    """LoRA beside a layer: what its adapters read, and how narrow they are, summed over them."""

    reads: int
    ranks: int
    dropout: bool = True


@dataclass(frozen=True)
class Load:
    """A batch: its rows, its columns, those before the first thought, the thoughts, and what is learned."""

    rows: int
    columns: int
    first: int
    thoughts: int
    supervised: int
    """Positions with a label, all rows together."""

    @property
    def passes(self) -> list[tuple[int, int]]:
        """(columns, columns up to its end) of every pass."""
        if self.thoughts == 0:
            return [(self.columns, self.columns)]
        ends = [self.first + number for number in range(self.thoughts)]
        rest = self.columns - ends[-1]
        return [(self.first, self.first), *((1, end) for end in ends[1:]), (rest, self.columns)]

    def with_rows(self, rows: int) -> "Load":
        return replace(self, rows=rows, supervised=max(1, self.supervised * rows // self.rows))


@dataclass(frozen=True)
class Activations:
    """Bytes of one forward and backward, beside weights and their gradients."""

    layers: int
    """Kept in the layers through all passes, keys and values among them."""
    logits: int
    """At the supervised positions, in float32: their gradients take their place. And in half precision."""
    recomputed: int
    """One layer's, made again in the backward pass."""
    around: int
    """Thoughts and the last norm."""
    casts: int
    """The weights in autocast's precision."""

    @property
    def peak(self) -> int:
        """At the end of the forward, or where the backward pass runs a layer again."""
        return self.layers + self.around + max(self.logits + self.casts, self.recomputed)


def activations(
    shape: Shape,
    load: Load,
    precision: Precision,
    *,
    recompute: bool = False,
    adapters: Adapters | None = None,
) -> Activations:
    tokens = load.rows * load.columns
    thinking = load.thoughts > 0
    of_token = token_bytes(shape, precision, thinking, adapters)
    spans = [
        load.rows * (columns * of_token + context_bytes(shape, precision, thinking, columns, end))
        for columns, end in load.passes
    ]
    kept = _kept_bytes(shape, precision)
    layer = sum(spans)
    if recompute:  # its inputs, and the keys and values, of which there is one tensor for all passes
        layer = tokens * (precision.stream * shape.width + kept * thinking)
    width = shape.width * precision.stream
    around = tokens * _norm_bytes(shape, precision, 1, adapters is not None)
    return Activations(
        layers=shape.layers * layer,
        logits=load.supervised * (shape.vocabulary * (4 + precision.compute % 4) + width),
        recomputed=_again_bytes(shape, load, precision, max(spans)) if recompute else 0,
        around=around,
        # Autocast keeps the copy of a weight that is trained; of a frozen one it makes another in every pass.
        casts=precision.cast
        * (shape.layers * shape.block() + shape.table)
        * (len(load.passes) if adapters else 1),
    )


def _again_bytes(shape: Shape, load: Load, precision: Precision, layer: int) -> int:
    widest = load.rows * max(columns for columns, _ in load.passes)
    return layer + widest * shape.inner * precision.compute


def token_bytes(shape: Shape, precision: Precision, thinking: bool, adapters: Adapters | None = None) -> int:
    """What a layer keeps of a token for the backward pass."""
    size, frozen = precision.compute, adapters is not None
    norms = _norm_bytes(shape, precision, 3, frozen) + _norm_bytes(shape, precision, 2, frozen)
    queries = 2 * size * shape.attended + 4 * shape.heads  # queries and what attention answers; its sums
    keys = _kept_bytes(shape, precision) if thinking else 0
    if thinking and not shape.rotary:  # queries are a part of one product with keys and values
        queries += 2 * size * shape.kept
    if not thinking and shape.heads == shape.kv_heads:
        keys = 2 * size * shape.kept
    if shape.head_norms:
        queries += (4 if frozen else 4 + size) * (shape.attended + shape.kept)
    copies = (3 if frozen else 4) if shape.rotary else (1 if frozen else 2)
    mlp = size * copies * shape.inner * (shape.chosen if shape.experts else 1)
    return norms + queries + keys + mlp + (_adapter_bytes(precision, adapters) if adapters else 0)


def context_bytes(shape: Shape, precision: Precision, thinking: bool, columns: int, end: int) -> int:
    """What a layer keeps of a pass for each column it attends to, its mask included."""
    size, cast = precision.compute, shape.rotary and precision.cast > 0
    mask = size * columns * end
    if columns > 1 and shape.heads > shape.kv_heads:  # keys and values are repeated for the heads
        return mask + 2 * size * shape.attended * end
    if cast and thinking:  # the copy that attention gets is no longer the cache's
        return mask + size * shape.kept * end
    return mask


def _norm_bytes(shape: Shape, precision: Precision, readers: int, frozen: bool) -> int:
    """A norm and what its readers keep: autocast makes a copy for each of them."""
    copies = readers if precision.cast and shape.rotary else 1
    if frozen:
        return (4 if shape.rotary else precision.stream) * shape.width
    inner = 4 + precision.stream if shape.rotary else precision.stream
    return (inner + precision.compute * copies) * shape.width


def _kept_bytes(shape: Shape, precision: Precision) -> int:
    """Keys and values of a token; rotated keys leave autocast's precision."""
    rotated = precision.stream if shape.rotary else precision.compute
    return (rotated + precision.compute) * shape.kept


def _adapter_bytes(precision: Precision, adapters: Adapters) -> int:
    """peft's adapters are float32, so they get a copy of what they read, and one for dropout."""
    size = precision.compute if precision.cast else 4
    return adapters.reads * (size + adapters.dropout) + adapters.ranks * size
