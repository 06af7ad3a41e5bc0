"""Weights put into a model, whole or not at all."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from coconut_lm import base as bases
from coconut_lm import layout
from coconut_lm.adapters import quietly
from coconut_lm.errors import UserError
from coconut_lm.feedback import MatchEmbedding
from coconut_lm.model import CoconutForCausalLM
from coconut_lm.weights import FEEDBACK, PREFIX, Weights, read, tensors

__all__ = ["Weights", "load_base", "load_into", "read"]

LATENT_ROWS = 4  # start, end, latent and pause: what a vocabulary may have grown by
_CAUSAL_MASK = re.compile(r"att\w*\.(bias|mask|masked_bias|causal_mask|attn_mask)$|rotary_emb\.inv_freq$")


def load_base(base: PreTrainedModel, weights: Weights) -> None:
    """Puts weights into a base whose vocabulary has not grown; rows of latent tokens are left out."""
    _put(_Places(base), weights, may_cut=True)


def load_into(model: CoconutForCausalLM, weights: Weights) -> None:
    """Puts weights into a whole model; into one that does not think, without the rows of latent tokens."""
    thinks = model.config.thinks
    if thinks and not weights.thinks:
        raise UserError(
            f"{weights.place} has no rows for the latent tokens",
            do="put it into the base before the vocabulary grows: load_base, then from_base",
        )
    if weights.adapter is not None:
        model.base_causallm = _adapted(model.base_causallm, weights.adapter)
    places = _Places(model.base_causallm, model.feedback if thinks else None)
    given = _put(places, weights, may_cut=not thinks)
    if isinstance(model.feedback, MatchEmbedding) and f"{FEEDBACK}embedding_norm" not in given:
        norm = bases.mean_embedding_norm(model)
        model.feedback.get_buffer("embedding_norm").fill_(norm)


def _adapted(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The base with a LoRA folder worked into its weights."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    named = ("adapter_model.safetensors", "adapter_model.bin")
    file = next((adapter / name for name in named if (adapter / name).is_file()), None)
    if file is None or not (adapter / "adapter_config.json").is_file():
        raise UserError(f"{adapter} is no LoRA folder", expected=f"adapter_config.json and {named[0]}")
    adapters = tensors(file)
    try:
        with quietly():
            model = get_peft_model(base, PeftConfig.from_pretrained(str(adapter)))
            result = set_peft_model_state_dict(model, adapters)
    except (RuntimeError, ValueError, TypeError) as error:
        given = str(error).splitlines()[0]
        raise UserError(f"the adapters of {adapter} do not fit the base", given=given) from None
    lost = [*result.unexpected_keys, *(name for name in result.missing_keys if "lora_" in name)]
    if lost:
        raise UserError(f"the adapters of {adapter} do not fit the base", given=_listed(lost))
    return model.merge_and_unload()


class _Places:
    """Where tensors go: the names that a model has for them, tied ones once."""

    def __init__(self, base: PreTrainedModel, feedback: nn.Module | None = None) -> None:
        if getattr(base, "hf_quantizer", None) is not None:
            do = "convert them (coconut-lm convert) and name the folder as model_id"
            raise UserError("weights cannot be put into a quantised model", do=do)
        state = base.state_dict(keep_vars=True)
        first = {id(tensor): name for name, tensor in reversed(state.items())}
        self.own = {name: first[id(tensor)] for name, tensor in state.items()}
        self.targets: dict[str, Tensor] = {name: state[name] for name in first.values()}
        tables = (base.get_input_embeddings(), base.get_output_embeddings())
        self.tables = [
            first[i] for i in dict.fromkeys(id(table.weight) for table in tables if table is not None)
        ]
        self.own["embedding.weight"] = self.tables[0]  # the published code saves it twice
        self.prefix = base.base_model_prefix
        self.turned = layout.transposed(base)
        self.thinks = feedback is not None
        inner = {FEEDBACK + n: t for n, t in feedback.state_dict(keep_vars=True).items()} if feedback else {}
        self.targets |= inner
        self.own |= {name: name for name in inner}
        # What a configuration gives, and other formats do not hold: a fixed window, a length.
        self.optional = {name for name, t in inner.items() if not isinstance(t, nn.Parameter)}

    def name_of(self, name: str) -> str:
        """The model's name for a tensor that has, lacks or has another name of the transformer before it."""
        name = name.removeprefix(PREFIX)
        tail = name.partition(".")[2]
        tried = (name, f"{self.prefix}.{name}", tail, f"{self.prefix}.{tail}")
        return next((self.own[each] for each in tried if each in self.own), name)

    def sorted_in(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors by the model's names, in the model's layout, without what no model needs."""
        given: dict[str, Tensor] = {}
        for written, tensor in weights.tensors.items():
            name = self.name_of(written)
            needless = _CAUSAL_MASK.search(name) or (name.startswith(FEEDBACK) and not self.thinks)
            if name not in self.targets and needless:
                continue
            if name in given and not _same(given[name], tensor):
                problem = f"{weights.place} holds two different tensors for one place"
                raise UserError(problem, given=f"{written}, for {name}")
            given[name] = tensor
        linear = [n for n in self.turned if n in given and given[n].shape != self.targets[n].shape]
        if any(given[name].shape[::-1] == self.targets[name].shape for name in linear):
            given |= {name: given[name].T for name in self.turned if name in given}
        return given


def _put(places: _Places, weights: Weights, may_cut: bool) -> dict[str, Tensor]:
    given = places.sorted_in(weights)
    if may_cut:
        given = _cut(given, places, weights.place)
    _refuse(given, places, weights)
    with torch.no_grad():
        for name, tensor in given.items():
            places.targets[name].copy_(tensor)
    return given


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or (one.shape == other.shape and torch.equal(one, other))


def _cut(given: dict[str, Tensor], places: _Places, place: str) -> dict[str, Tensor]:
    """Without the rows that latent tokens were given at the end of the vocabulary."""
    more = {n: len(given[n]) - len(places.targets[n]) for n in places.tables if n in given}
    if not any(0 < rows <= LATENT_ROWS for rows in more.values()):
        return given
    rows = max(more.values())
    warnings.warn(f"{place}: the last {rows} rows, of the latent tokens, are left out", stacklevel=4)
    return given | {name: given[name][: len(places.targets[name])] for name in more}


def _refuse(given: dict[str, Tensor], places: _Places, weights: Weights) -> None:
    """Names what is missing, left over or of another shape, if anything is."""
    targets, problem = places.targets, f"{weights.place} does not fit the model"
    required = targets.keys() - places.optional
    if weights.adapter is not None:
        required = {name for name in required if name.startswith(FEEDBACK)}
    shapes = {n: (t.shape, targets[n].shape) for n, t in given.items() if n in targets}
    other = {name: shape for name, shape in shapes.items() if shape[0] != shape[1]}
    wrong = {
        "missing": [name for name in targets if name in required and name not in given],
        "unexpected": [name for name in given if name not in targets],
        "of another shape": [f"{n} {tuple(a)} for {tuple(b)}" for n, (a, b) in other.items()],
    }
    lines = [f"  {len(names)} {kind}: {_listed(names)}" for kind, names in wrong.items() if names]
    if not lines:
        return _refuse_other_window(given, places, weights)
    if not shapes:
        problem, do = f"no tensor of {weights.place} belongs to the model", "name the model it was made of"
    elif other and not wrong["missing"] and other.keys() <= set(places.tables):
        problem, do = f"{weights.place} has another vocabulary", "use its tokenizer, and its method"
    elif any(name.startswith(FEEDBACK) for name in [*wrong["missing"], *wrong["unexpected"]]):
        do = "set latent_variant and the keys beside it as they were when it was trained"
    else:
        do = "name the model it was made of (model_id), or give a whole checkpoint"
    raise UserError(
        "\n".join([problem, *lines]), given=_shape(given, places), expected=_shape(targets, places), do=do
    )


def _refuse_other_window(given: dict[str, Tensor], places: _Places, weights: Weights) -> None:
    """A fixed window is the configuration's; one that was trained with another is another model."""
    for name in places.optional & given.keys():
        found, asked = given[name].float(), places.targets[name].float()
        if name.endswith("latent_weights") and not torch.allclose(found, asked, atol=0.01):  # bfloat16 rounds
            raise UserError(
                f"{weights.place} was trained with another window",
                given=[round(each, 6) for each in found.tolist()],
                expected=[round(each, 6) for each in asked.tolist()],
                do="set latent_window_weights to those of the checkpoint",
            )


def _shape(held: Mapping[str, Tensor], places: _Places) -> str:
    """What an architecture looks like from outside."""
    table = held.get(places.tables[0])
    layers = {int(number) for name in held for number in re.findall(r"\.(\d+)\.", name)[:1]}
    size = f"vocabulary {table.shape[0]}, width {table.shape[-1]}, " if table is not None else ""
    return f"{size}{max(layers, default=-1) + 1} layers, {len(held)} tensors"


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" ... and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
