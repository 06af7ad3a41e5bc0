"""What a saved model says of itself: its base, the ids of the latent tokens, and what is fed back."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig


class CoconutConfig(PreTrainedConfig):
    """`base_config` is a configuration, or a dict of one with its `model_type`; `feedback` holds the
    arguments of `coconut_lm.feedback.build`."""

    model_type = "coconut"
    sub_configs = {"base_config": AutoConfig}

    def __init__(
        self,
        base_config: Any = None,
        start_token_id: int | None = None,
        end_token_id: int | None = None,
        latent_token_id: int | None = None,
        pause_token_id: int | None = None,
        feedback: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if base_config is None or isinstance(base_config, dict):
            settings = dict(base_config or {"model_type": "gpt2"})
            base_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.base_config = base_config
        self.start_token_id = start_token_id
        self.end_token_id = end_token_id
        self.latent_token_id = latent_token_id
        self.pause_token_id = pause_token_id
        self.feedback = {"kind": "coconut"} | (feedback or {})
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(base_config, name, None))
        kwargs.setdefault("tie_word_embeddings", base_config.tie_word_embeddings)
        # The parent hands its own choice down, None too, and would erase the base's.
        kwargs.setdefault("attn_implementation", base_config._attn_implementation)
        super().__init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The base's, which holds its sizes."""
        text_config: PreTrainedConfig = self.base_config.get_text_config(decoder=decoder, encoder=encoder)
        return text_config

    @property
    def thinks(self) -> bool:
        """Without a latent token the model is its base alone."""
        return self.latent_token_id is not None

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, those of the latent tokens included."""
        return int(self.get_text_config().vocab_size)
