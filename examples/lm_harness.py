"""Coconut under EleutherAI's lm-evaluation-harness: its HFLM around our model, its task around our file.

The same questions are asked twice: the answer is written, and of two options the likelier is taken.

    python examples/transformers_trainer.py
    python examples/lm_harness.py runs/transformers-trainer --thoughts 1
"""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from coconut_lm import CoconutForCausalLM
from coconut_lm.data import prosqa
from coconut_lm.tokens import END, LATENT, START

GRAPHS: dict[str, Any] = {"style": "symbols", "shape": "broom", "branches": 1, "hops": 1}


def tasks(data: Path, thoughts: int) -> list[dict[str, Any]]:
    """Thoughts are tokens of the prompt. The harness makes a data set of the file; no network is asked."""
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": f"{{{{question}}}}\n{START}{LATENT * thoughts}{END}",
        "target_delimiter": "",
    }
    after_marks = {"function": "regex", "regex_pattern": r"### (\S+)"}
    written = {
        "task": "written",
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["<eos>"], "max_gen_toks": 8, "do_sample": False},
        "filter_list": [{"name": "answer", "filter": [after_marks, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    chosen = {
        "task": "chosen",
        "output_type": "multiple_choice",
        "doc_to_target": "{{options.index(answer)}}",
        "doc_to_choice": "{{['### ' ~ options[0], '### ' ~ options[1]]}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    return [common | written, common | chosen]


def write(path: Path, count: int) -> None:
    """One question a line, with its two options."""
    with path.open("w") as file:
        for example in prosqa.make(count, seed=2, **GRAPHS):
            (options,) = re.findall(r"\[Q\] (\d+) (\d+)", example.question)
            file.write(json.dumps({**example.to_json(), "options": options}) + "\n")


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A folder that save_pretrained wrote.")],
    thoughts: Annotated[int, typer.Option(help="Thoughts before the answer.")] = 1,
    questions: Annotated[int, typer.Option(help="How many are asked.")] = 100,
) -> None:
    model = CoconutForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=16, device="cpu")
    with TemporaryDirectory() as folder:
        data = Path(folder, "prosqa.jsonl")
        write(data, questions)
        found = simple_evaluate(lm, tasks=tasks(data, thoughts), bootstrap_iters=0)
    results = found["results"]
    print(f"written: {results['written']['exact_match,answer']:.0%} of {questions} right")
    print(f"chosen:  {results['chosen']['acc,none']:.0%} of {questions} right")


if __name__ == "__main__":
    typer.run(main)
