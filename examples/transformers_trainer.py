"""Coconut under transformers' own Trainer: the model is an ordinary one, the collator the only thing of ours.

A small model learns from scratch, on a CPU, to say which of two nodes a root reaches: first with the step
written, then with a thought in its place. A toy: of graphs as small as these there are few, and it sees most.

    python examples/transformers_trainer.py --steps 500
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from coconut_lm import CoconutForCausalLM, Curriculum, Rows, add_latent_tokens, encode, word_tokenizer
from coconut_lm.answer import Answerer
from coconut_lm.collate import collate
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.methods import Row

GRAPHS: dict[str, Any] = {"style": "symbols", "shape": "broom", "branches": 1, "hops": 1}
SHAPE: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}


def text(example: Example) -> str:
    return " ".join([example.question, *example.steps, example.answer])


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps of each stage.")] = 500,
    out: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("runs/transformers-trainer"),
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
    rows = Rows(encode(train, tokenizer), tokens, "coconut", Curriculum(max_latent_stage=1))

    def collator(batch: Sequence[Row]) -> dict[str, Any]:
        made = collate(batch, tokens)
        tensors = {
            name: torch.from_numpy(getattr(made, name)) for name in ("input_ids", "attention_mask", "labels")
        }
        return {**tensors, "columns": made.columns}  # without them the model looks for thoughts itself

    for stage in (0, 1):
        arguments = TrainingArguments(
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
            remove_unused_columns=False,
        )
        stage_rows: Any = [rows.row(index, stage) for index in range(len(rows))]
        Trainer(model, arguments, data_collator=collator, train_dataset=stage_rows).train()

    model.save_pretrained(out)
    tokenizer.save_pretrained(out)

    asked = Rows(encode(valid, tokenizer), tokens, "coconut", Curriculum(max_latent_stage=1))
    replies = Answerer(model, tokens, max_new_tokens=8)([asked.prompt(i, stage=1) for i in range(len(valid))])
    outputs = tokenizer.batch_decode([[*reply.ids] for reply in replies])
    right = sum(prosqa.TASK.score(o, e).correct for o, e in zip(outputs, valid, strict=True))
    print(f"{right} of {len(valid)} right with one thought and no word written before the answer")
    return right / len(valid)


if __name__ == "__main__":
    typer.run(main)
