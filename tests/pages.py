"""The commands that a page of docs shows, and tiny places in which they run as they stand."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from tiny import base_model
from typer.testing import CliRunner

from coconut_lm import CoconutForCausalLM, load_tokenizer, word_tokenizer, yamlfile
from coconut_lm.cli import app
from coconut_lm.data import download, prontoqa, prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.runfolder import RunFolder

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
OURS = re.compile(r"(?:([A-Z_]+)=(\S+) )?(?:torchrun .*-m coconut_lm|coconut-lm) (.+)")
WIDE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
SHAPES: Mapping[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 1024},
    "llama": WIDE | {"max_position_embeddings": 1024},
    "qwen3": WIDE | {"max_position_embeddings": 1024},
}
PREFIXES = {"gsm8k": "gsm", "prosqa": "prosqa", "prontoqa": "prontoqa", "math": "math"}


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def spans(text: str) -> list[str]:
    """What stands between backticks in a line."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def commands(text: str) -> list[str]:
    """Ours, of code blocks and of lines, each once; CONFIG and the like are not commands."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.S | re.M)
    blocks = "".join(block for kind, block in fences if not kind).splitlines()
    found = [line for line in [*blocks, *spans(text)] if OURS.fullmatch(line) and "CONFIG" not in line]
    return list(dict.fromkeys(found))


def small(line: str) -> str:
    """The same with numbers of examples that a test has time for."""
    return re.sub(r"(?<= )\d{3,}(?= |$)", lambda number: str(max(8, int(number[0]) // 50)), line)


def typed(line: str, monkeypatch: pytest.MonkeyPatch, few: int | None = 4) -> str:
    """What the command prints; checkpoint_N is the last that is there, and few examples are made."""
    matched = OURS.fullmatch(line)
    assert matched, line
    if matched[1]:
        monkeypatch.setenv(matched[1], matched[2])
    words = shlex.split(re.sub(r"\S+/checkpoints/checkpoint_N", _last, matched[3]))
    words = ["gpt2" if word == "openai-community/gpt2" else word for word in words]
    if line.startswith("torchrun"):  # one rank has another global batch: not the run of the other lines
        words.append("name=" + words[1].replace("/", "-"))
    if "-n" in words and few is not None:
        words[words.index("-n") + 1] = str(few)
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    if matched[1]:
        monkeypatch.delenv(matched[1])
    return done.stdout


def _last(matched: re.Match[str]) -> str:
    key, _, run = matched[0].removesuffix("/checkpoints/checkpoint_N").rpartition("=")
    return f"{key}={RunFolder(Path(run)).checkpoints()[-1]}".lstrip("=")


def examples(task: str) -> list[Example]:
    sums = [((f"<<{n}+2={n + 2}>>", f"<<{n + 2}*3={n * 3 + 6}>>"), f"{n * 3 + 6}") for n in range(7)]
    if task == "gsm8k":
        return [Example(f"Has {n} , gets 2 , thrice ?", *sums[n]) for n in range(7)]
    if task == "math":
        return [Example(f"What is ${n}/2$ ?", (f"It is {n}/2 .",), rf"\frac{{{n}}}{{2}}") for n in range(7)]
    return list((prosqa if task == "prosqa" else prontoqa).make(7, seed=1))


def fetched(name: str, folder: Path, **how: Any) -> download.Got:
    """Stands in for what fetches: seven examples of the task, four of them to train on."""
    made, cuts = examples(name), {"train": slice(0, 4), "valid": slice(4, 6), "test": slice(5, 7)}
    paths = {split: Path(folder) / f"{PREFIXES[name]}_{split}.json" for split in cuts}
    for split, cut in cuts.items():
        paths[split].parent.mkdir(parents=True, exist_ok=True)
        write_examples(paths[split], made[cut], force=True)
    return download.Got(paths, dict.fromkeys(paths, 2), {}, ())


def furnish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here: tiny models, and all of configs/ with these in the place of theirs; nothing is fetched."""
    monkeypatch.setattr(download, "get", fetched)
    words = [" ".join([e.question, *e.steps, e.answer]) for task in PREFIXES for e in examples(task)]
    for family, shape in SHAPES.items():
        tokenizer = word_tokenizer(words)
        tokenizer.save_pretrained(family)
        base = base_model(family, torch.float32, vocab_size=len(tokenizer), **shape)
        base.save_pretrained(family)
    for source in CONFIGS.rglob("*.yaml"):
        put_in_place(source, Path("configs") / source.relative_to(CONFIGS))


def put_in_place(source: Path, target: Path) -> None:
    """A shipped YAML under `target`, with a model and a number of steps that a test has time for."""
    values = yamlfile.read(source)
    if "model_config_path" in values:
        values |= {"model_config_path": "gpt2/config.json", "tokenizer": "gpt2"}
    else:
        wanted = str(values["model_id"])
        values["model_id"] = next((f for f in SHAPES if f in wanted.lower()), "gpt2")
        values.pop("tokenizer", None)
    values |= {"eval_samples": 2, "max_new_tokens": 4, "max_steps": 3}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yamlfile.write(values), encoding="utf-8")


def published(name: str, write: Any = foreign.published_file) -> None:
    """A checkpoint of another system, of the tiny GPT-2."""
    tokenizer = load_tokenizer("gpt2")
    model = CoconutForCausalLM.from_base("gpt2", tokenizer)
    write(model, Path(name))


def generators_json(count: int) -> str:
    """What ProntoQA's generator writes."""
    return json.dumps({f"example{n}": raw for n, raw in enumerate(_raw(count), start=1)})


def _raw(count: int) -> Iterator[dict[str, Any]]:
    for example in prontoqa.make(count, seed=3):
        question, _, query = example.question.rpartition(" True or false: ")
        chain = [f"{part}." for step in example.steps for part in step.rstrip(".").split(". ")]
        given = {"question": question, "query": f"True or false: {query}"}
        yield {"test_example": given | {"chain_of_thought": chain, "answer": example.answer}}
