"""Model cards: the README.md of a checkpoint, for people and, above its text, for the hub."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coconut_lm.config import Config
from coconut_lm.files import atomic_write
from coconut_lm.methods import ALL, METHODS, Curriculum
from coconut_lm.runfolder import Progress
from coconut_lm.tokens import END, LATENT, PAUSE, START

NAME = "README.md"
PAPER = "arXiv [2412.06769](https://arxiv.org/abs/2412.06769)"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def write(
    folder: str | os.PathLike[str],
    config: Config,
    progress: Progress,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """The card of a run's checkpoint; `metrics` is the record of its last epoch."""
    _write(folder, _data(config, metrics), _sections(config, progress, metrics))


def introduce(folder: str | os.PathLike[str], base: str, thinks: bool) -> None:
    """A short card of a model by itself, where there is none."""
    if (Path(folder) / NAME).exists():
        return
    kind = "that can feed its last hidden state back to itself as a thought" if thinks else "of coconut-lm"
    lines = ["# A latent-reasoning model", "", f"A {_plain(base)} model {kind} ({PAPER}).", ""]
    _write(folder, _head(), [*lines, *_use(1 if thinks else 0, "latent" if thinks else None, thinks, False)])


def slots(config: Config, stage: int) -> int:
    """The most slots that a prompt of this stage has: thoughts, or pauses in their place."""
    return METHODS[config.method].slots(Curriculum.of(config), ALL, stage, True)


def _write(folder: str | os.PathLike[str], data: Any, lines: list[str]) -> None:
    with atomic_write(Path(folder) / NAME) as file:
        file.write("\n".join(["---", data.to_yaml().strip(), "---", "", *lines]) + "\n")


# -- for the hub --


def _head(*tags: str | None, **more: Any) -> Any:
    from huggingface_hub import ModelCardData

    marks = ["coconut-lm", "latent-reasoning", *(tag for tag in tags if tag)]
    more.setdefault("library_name", "transformers")
    return ModelCardData(pipeline_tag="text-generation", tags=marks, **more)


def _data(config: Config, metrics: Mapping[str, Any] | None) -> Any:
    from huggingface_hub import EvalResult

    more: dict[str, Any] = {"library_name": "peft" if config.lora else "transformers"}
    if _on_hub(config.model_id):
        more["base_model"] = config.model_id
    if metrics:
        found = EvalResult(
            task_type="text-generation",
            dataset_type=config.task or "plain",
            dataset_name=Path(config.val_path or "validation").name,
            metric_type="accuracy",
            metric_value=metrics["val_accuracy"],
        )
        more |= {"model_name": config.name, "eval_results": [found]}
    return _head(config.method, config.task, **more)


def _on_hub(place: str | None) -> bool:
    """Whether it is an id and no path: the hub refuses a card whose base it cannot name."""
    return bool(place and re.fullmatch(r"[\w.-]+/[\w.-]+(?<!\.json)", place) and not Path(place).exists())


# -- for people --


def _sections(config: Config, progress: Progress, metrics: Mapping[str, Any] | None) -> list[str]:
    method = METHODS[config.method]
    count = slots(config, progress.stage)
    return [
        f"# {_plain(config.name)}",
        "",
        "A language model that reasons in a continuous latent space"
        if method.filler == "latent"
        else "A language model to compare with those that reason in a continuous latent space",
        f"({PAPER}), trained with coconut-lm.",
        "",
        *_table(_facts(config, progress, count)),
        "",
        *(_measured(config, metrics) if metrics else ()),
        *_use(count, method.filler, method.markers, config.lora is not None),
    ]


def _facts(config: Config, progress: Progress, count: int) -> Iterator[tuple[str, str]]:
    from coconut_lm import __version__

    filler = METHODS[config.method].filler
    yield "", ""
    yield "method", config.method
    if last := METHODS[config.method].schedule(Curriculum.of(config), ALL):
        numbers = [str(stage) if stage < ALL else "all" for stage in (progress.stage, last)]
        yield "stage", f"{numbers[0]} (the last is {numbers[1]})"
    if filler:
        most = "" if config.pad_latent_to_max or config.method == "pause" else ", or fewer for short chains"
        yield "thoughts" if filler == "latent" else "pause tokens", f"{count}{most}"
    if config.latent_variant != "coconut":
        yield "what is fed back", config.latent_variant
    yield "base", str(config.model_id or config.model_config_path or config.load_model_path or "not told")
    if config.lora:
        yield "adapters", f"LoRA of rank {config.lora.r}"
    yield "trained for", f"{progress.epoch} epochs, {progress.step:,} optimizer steps"
    yield "on", str(config.train_path)
    if progress.data:
        yield "fingerprint of the training data", progress.data
    yield "seed", str(config.seed)
    yield "coconut-lm", __version__


def _measured(config: Config, metrics: Mapping[str, Any]) -> list[str]:
    n, right = metrics["val_n"], metrics["val_right"]
    interval = f"{metrics['val_low']:.1%} to {metrics['val_high']:.1%}"
    rows = [
        ("", f"{n:,} examples"),
        ("accuracy", f"{metrics['val_accuracy']:.1%} ({right:,} right; 95 % interval {interval})"),
    ]
    if metrics.get("val_cot_match") is not None:
        rows.append(("steps as in the data", f"{metrics['val_cot_match']:.1%}"))
    if metrics.get("val_tokens") is not None:
        rows.append(("tokens, thoughts included", f"{metrics['val_tokens']:.1f} on average"))
    where = f"{_plain(str(config.val_path))}, stage {metrics['stage']}, greedy, {config.scoring} scoring:"
    return ["## Measured", "", f"On {where}", "", *_table(rows), ""]


def _table(rows: Any) -> list[str]:
    head, *body = [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows]
    return [head, "|---|---|", *body]


def _use(count: int, filler: str | None, markers: bool, adapters: bool) -> list[str]:
    """Five lines to type, in the folder of the card or with its id on the hub in place of the dot."""
    slot = {"latent": LATENT, "pause": PAUSE}.get(filler or "", "")
    middle = f'"{slot}" * {count}' if count else '""'
    around = f'"{START}" + {middle} + "{END}"' if markers else middle
    load = [
        "import coconut_lm  # tells transformers of this kind of model",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'tokenizer, model = (Auto.from_pretrained(".") for Auto in (AutoTokenizer, AutoModelForCausalLM))',
    ]
    if adapters:
        load = [
            "from coconut_lm.assembly import open_checkpoint",
            'loaded = open_checkpoint(".")',
            "tokenizer, model = loaded.tokenizer, loaded.model",
        ]
    thoughts = f" --thoughts {count}" if count else ""
    return [
        "## Use",
        "",
        "```python",
        *load,
        f'prompt = tokenizer("Your question?\\n" + {around}, return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64, do_sample=False)[0]))",
        "```",
        "",
        f'Or ask it in a terminal: `coconut-lm ask . "Your question?"{thoughts}`',
    ]


def _plain(text: str) -> str:
    """Text that Markdown takes as it stands: marks are escaped, lines joined."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
