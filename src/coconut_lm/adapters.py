"""Low-rank adapters (peft) around a latent-reasoning model, with the new tokens' rows trained too."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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

    Without the rows, the markers would keep the value of the tokens they were copied from for ever.
    """
    from peft import LoraConfig, get_peft_model

    config = model.config
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
            target_modules=list(target_modules)
            if target_modules and not isinstance(target_modules, str)
            else target_modules,
            trainable_token_indices={name: [row for row in rows if row is not None]},
            modules_to_save=["feedback"] if any(True for _ in model.feedback.parameters()) else None,
        ),
    )
