"""Tokenizers with chat templates that behave as those of known families do, over a few hundred words."""

from dataclasses import dataclass
from typing import Any

from coconut_lm.tokens import add_latent_tokens, word_tokenizer

WORDS = (
    "Question : Answer Tom has 3 eggs and buys 4 more . How many ? 7 -7 2.5 Please solve this step by step "
    "A B C D True Paris London is the capital of France user assistant system You are a helpful model Is it "
    "Certainly Today 26 Jul 2024 analysis final Work out and then write answer on last line its own number"
)


@dataclass(frozen=True)
class Family:
    """A template, its special tokens, which of them is the end of text, which ends an answer."""

    template: str
    special: tuple[str, ...]
    eos: str
    end: str


# Headers around the role, the date of today, the content stripped.
LLAMA = Family(
    "{{ bos_token }}{% set day = strftime_now('%d %b %Y') %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday : {{ day }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
    "<|end_of_text|>",
    "<|eot_id|>",
)
# A system message of its own where there is none; thinking can be switched off.
QWEN = Family(
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful model .<|im_end|>\n"
    "{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}",
    ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "<|endoftext|>",
    "<|im_end|>",
)
# The answer begins inside <think>; what an earlier answer thought is cut off.
DEEPSEEK = Family(
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|User|>{{ m['content'] }}"
    "{% else %}<|Assistant|>{{ m['content'].split('</think>') | last }}<|end_of_sentence|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}",
    ("<|begin_of_text|>", "<|User|>", "<|Assistant|>", "<|end_of_sentence|>"),
    "<|end_of_sentence|>",
    "<|end_of_sentence|>",
)
# Channels; the last answer of a conversation ends otherwise than those before it.
CHANNELS = Family(
    "<|start|>system<|message|>Today : {{ strftime_now('%d %b %Y') }}<|end|>"
    "{% for m in messages %}<|start|>{{ m['role'] }}"
    "{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
    ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|endoftext|>"),
    "<|return|>",
    "<|return|>",
)
FAMILIES = {"llama": LLAMA, "qwen": QWEN, "deepseek": DEEPSEEK, "channels": CHANNELS}


def tokenizer_of(family: Family, latent: bool = True) -> Any:
    """With the latent tokens, unless told otherwise."""
    tokenizer = word_tokenizer([WORDS])
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.special)})
    if "<|begin_of_text|>" in family.special:
        tokenizer.bos_token = "<|begin_of_text|>"
    tokenizer.eos_token = family.eos
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = family.template
    if latent:
        add_latent_tokens(tokenizer)
    return tokenizer
