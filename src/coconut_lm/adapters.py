"""Low-rank adapters (peft) around a latent-reasoning model, with the new tokens' rows trained too."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers.pytorch_utils import Conv1D

from coconut_lm.model import CoconutForCausalLM

if TYPE_CHECKING:
    from peft import PeftModel


def add_lora(
    model: CoconutForCausalLM,
    *,
    r: int = 8,
    alpha: int = 16,
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
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=r,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=target_modules,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's layers
            trainable_token_indices={name: [row for row in rows if row is not None]},
            modules_to_save=["feedback"] if any(True for _ in model.feedback.parameters()) else None,
        ),
    )
