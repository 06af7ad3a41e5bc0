"""Coconut under TRL's SFTTrainer: thoughts are tokens of the prompt; prompts and completions are plain text.

python examples/trl_sft.py --steps 500
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from coconut_lm import CoconutForCausalLM, add_latent_tokens, word_tokenizer
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.tokens import END, LATENT, START

GRAPHS: dict[str, Any] = {"style": "symbols", "shape": "broom", "branches": 1, "hops": 1}
SHAPE: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}


def text(example: Example) -> str:
    return " ".join([example.question, *example.steps, example.answer])


def prompt(example: Example, stage: int) -> str:
    """A thought for each step that is no longer written."""
    return f"{example.question}\n{START}{LATENT * stage}{END}"


def completion(example: Example, stage: int) -> str:
    """TRL adds end-of-text."""
    return "".join(f"{step}\n" for step in example.steps[stage:]) + f"### {example.answer}"


def data_set(examples: Sequence[Example], stage: int) -> Dataset:
    return Dataset.from_list(
        [{"prompt": prompt(e, stage), "completion": completion(e, stage)} for e in examples]
    )


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps of each stage.")] = 500,
    out: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("runs/trl-sft"),
) -> float:
    train = list(prosqa.make(4000, seed=1, **GRAPHS))
    valid = list(prosqa.make(200, seed=2, **GRAPHS))
    tokenizer = word_tokenizer(map(text, train))
    tokens = add_latent_tokens(tokenizer)

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3", vocab_size=len(tokenizer), eos_token_id=tokens.eos, **SHAPE, **HEADS
    )
    base = AutoModelForCausalLM.from_config(config)
    model = CoconutForCausalLM.from_base(base, tokenizer, new_token_init="random")

    for stage in (0, 1):
        arguments = SFTConfig(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=32,
            learning_rate=2e-3,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=20,
            logging_steps=100,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
        )
        SFTTrainer(model, arguments, train_dataset=data_set(train, stage), processing_class=tokenizer).train()

    tokenizer.padding_side = "left"
    asked = tokenizer(
        [prompt(e, 1) for e in valid], padding=True, return_tensors="pt", return_token_type_ids=False
    )
    written = model.eval().generate(**asked, max_new_tokens=8, do_sample=False)
    outputs = tokenizer.batch_decode(written[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    right = sum(prosqa.TASK.score(o, e).correct for o, e in zip(outputs, valid, strict=True))
    print(f"{right} of {len(valid)} right with one thought and no word written before the answer")

    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return right / len(valid)


if __name__ == "__main__":
    typer.run(main)
