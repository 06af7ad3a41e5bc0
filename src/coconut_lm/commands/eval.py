"""`coconut-lm eval`."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from coconut_lm.exam import Exam

Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, a run folder, or a model's id.")
]
Data = Annotated[str, typer.Argument(metavar="DATA", help="Examples: .json, .jsonl, a folder or a hub id.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Which split of a folder or a hub data set.")]
Stage = Annotated[
    int | None, typer.Option(metavar="K", min=0, help="Stage; the checkpoint's own unless given.")
]
Thoughts = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Thoughts in place of those the stage implies.")
]
Scoring = Annotated[
    Literal["tolerant", "reference"] | None, typer.Option(help="reference: the published rules.")
]
Task = Annotated[
    Literal["gsm8k", "prosqa", "prontoqa", "math", "mmlu", "plain"] | None,
    typer.Option(help="How answers are judged; what the run and the data say unless given."),
]
BatchSize = Annotated[int | None, typer.Option(metavar="B", min=1, help="Questions at a time.")]
Samples = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first so many examples.")]
NewTokens = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Longest output; the task's limit unless given.")
]
Swap = Annotated[bool, typer.Option("--swap", help="Ask ProsQA's questions of the other entity too.")]
Batch1 = Annotated[
    int, typer.Option("--batch-1", metavar="K", min=0, help="Time the first K examples one by one.")
]
Decode = Annotated[
    int, typer.Option(metavar="K", min=0, help="Put the thoughts of the first K examples into words.")
]
Backend = Annotated[
    Literal["auto", "torch", "mlx"] | None,
    typer.Option(help="What computes; unless given, what its run was made with, or auto."),
]
Quantize = Annotated[
    int | None, typer.Option(metavar="BITS", min=4, max=8, help="Weights in 4 or 8 bits, on MLX.")
]
RunYaml = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The run's YAML, for weights that come alone."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where the files go.")]
Force = Annotated[bool, typer.Option("--force", help="Start anew over what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the table.")]


def exam_of(given: Mapping[str, Any]) -> "Exam":
    """Of a command's arguments, which are called as its fields are."""
    from coconut_lm.exam import Exam

    names = [field.name for field in fields(Exam)]
    return Exam(**{name: given[name] for name in names if name in given})


def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    split: Split = None,
    stage: Stage = None,
    thoughts: Thoughts = None,
    scoring: Scoring = None,
    task: Task = None,
    batch_size: BatchSize = None,
    samples: Samples = None,
    max_new_tokens: NewTokens = None,
    swap: Swap = False,
    batch_1: Batch1 = 0,
    decode: Decode = 0,
    backend: Backend = None,
    quantize: Quantize = None,
    config: RunYaml = None,
    out: Out = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """How often is a checkpoint right, at what cost? Greedy, with intervals; goes on if interrupted."""
    import json

    from coconut_lm.assembly import open_checkpoint
    from coconut_lm.config import load
    from coconut_lm.dataview import show
    from coconut_lm.evalview import tables, watched
    from coconut_lm.exam import Examiner
    from coconut_lm.history import THOUGHTS
    from coconut_lm.lens import write_thoughts
    from coconut_lm.terminal import busy, note, say

    exam = exam_of(locals())
    with busy("loading"):
        own = load(config, check_files=False) if config else None
        examiner = Examiner(open_checkpoint(checkpoint, own), exam, checkpoint)  # holds all there is to hold
    folder = out or examiner.folder
    metrics = examiner(folder, watch=watched, force=force)
    if decode:
        write_thoughts(examiner.loaded, examiner.examples[:decode], examiner.setting, folder / THOUGHTS)
    if as_json:
        say(json.dumps(metrics, indent=2, ensure_ascii=False))
    else:
        show(*tables(metrics))
    note(f"files in {folder}")
