"""A small checkpoint that stands in a run's folder: random weights, four epochs said to be done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny import base_model

from coconut_lm import CoconutForCausalLM, add_latent_tokens, word_tokenizer
from coconut_lm.config import Config, dump
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.runfolder import Progress

EXAMPLES = list(prosqa.make(12, seed=1, nodes=8, edges=6, hops=3, shape="sized"))
RUN = "runs/a"
CHECKPOINT = f"{RUN}/checkpoints/checkpoint_4"


def texts(examples: Sequence[Example]) -> list[str]:
    return [" ".join([e.question, *e.steps, e.answer]) for e in examples]


def save(place: str, method: str = "coconut", **run: Any) -> None:
    """A checkpoint with its run.yaml: the last epoch was at stage 2. The examples are in prosqa.json."""
    write_examples("prosqa.json", EXAMPLES, force=True)
    tokenizer = word_tokenizer(texts(EXAMPLES))
    size = len(tokenizer)
    add_latent_tokens(tokenizer)
    base = base_model("gpt2", vocab_size=size, bos_token_id=0, eos_token_id=0)
    thinks = "random" if method == "coconut" else None
    CoconutForCausalLM.from_base(base, tokenizer, new_token_init=thinks).save_pretrained(place)
    tokenizer.save_pretrained(place)
    paths = {"train_path": "prosqa.json", "val_path": "prosqa.json"}
    run = {"model_id": place, "c_thought": 1, "max_latent_stage": 3, "eval_batch_size": 5} | paths | run
    dump(Config(method=method, **run), Path(place) / "run.yaml")
    Progress(epoch=4, step=40, stage=2 if method == "coconut" else 0).write(Path(place))
