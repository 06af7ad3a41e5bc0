"""coconut-lm: language models that reason in a continuous latent space.

Names load on first use, so that `import coconut_lm` stays fast and torch-free.
"""

import importlib
from typing import Any

from coconut_lm.autoclass import announce

__version__ = "0.1.0"

_EXPORTS = {
    "CoconutConfig": "configuration",
    "CoconutForCausalLM": "model",
    "Config": "config",
    "Curriculum": "methods",
    "Exam": "exam",
    "Examiner": "exam",
    "Example": "data.example",
    "FEEDBACKS": "feedback",
    "METHODS": "methods",
    "Noisy": "feedback",
    "Order": "collate",
    "Rows": "methods",
    "UserError": "errors",
    "add_latent_tokens": "tokens",
    "add_lora": "adapters",
    "collate_prompts": "collate",
    "encode": "tokens",
    "latent_tokens": "tokens",
    "load_tokenizer": "tokens",
    "open_checkpoint": "assembly",
    "read_examples": "data.example",
    "run": "launch",
    "shard": "collate",
    "word_tokenizer": "tokens",
    "write_examples": "data.example",
}
__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


announce()
