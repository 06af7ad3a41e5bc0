"""Low-rank adapters (peft) around a latent-reasoning model, with the new tokens' rows trained too."""

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from coconut_lm.errors import UserError
from coconut_lm.model import CoconutForCausalLM

if TYPE_CHECKING:
    from peft import PeftModel


def quantization() -> BitsAndBytesConfig:
    """QLoRA (arXiv 2305.14314): the frozen weights in 4 bits (nf4, twice quantised)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("quantised weights need bitsandbytes", do="pip install bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def add_lora(
    model: CoconutForCausalLM,
    *,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.05,
    target_modules: str | Sequence[str] | None = None,
) -> "PeftModel":
    """Freezes `model` but for adapters, the feedback's parameters, and the rows of the latent tokens.

    `target_modules` are names, a pattern or "all-linear"; None takes what is usual for the base.
    Without the rows, the markers would keep the value of the tokens they were copied from for ever.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    config = model.config
    if target_modules is None:  # peft knows the usual ones of the base, not of our model type
        target_modules = USUAL.get(config.get_text_config().model_type, "all-linear")
    if not isinstance(target_modules, str):
        target_modules = list(target_modules)
    rows = [config.start_token_id, config.end_token_id, config.latent_token_id, config.pause_token_id]
    new = [row for row in rows if row is not None]
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's layers
        trainable_token_indices={name: new} if new else None,
        modules_to_save=["feedback"] if any(True for _ in model.feedback.parameters()) else None,
    )
    with quietly():
        return get_peft_model(model, settings)


@contextmanager
def quietly() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 by an old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
