"""`coconut-lm battery`."""

from typing import Annotated

import typer

from coconut_lm.commands.eval import (
    Backend,
    BatchSize,
    Checkpoint,
    Data,
    Force,
    NewTokens,
    Out,
    RunYaml,
    Samples,
    Split,
    Stage,
    Task,
    Thoughts,
    exam_of,
)
from coconut_lm.commands.robustness import AsJson, TrainingFree

Seed = Annotated[int, typer.Option(metavar="S", min=0, help="Another seed is other noise, order and donors.")]
Only = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Only these, with commas between: zero, swap, ..., or groups: dropped, number, replaced, moved, "
        "interchanged, asked.",
    ),
]


def battery(
    checkpoint: Checkpoint,
    data: Data,
    only: Only = None,
    seed: Seed = 0,
    training_free: TrainingFree = None,
    split: Split = None,
    stage: Stage = None,
    thoughts: Thoughts = None,
    task: Task = None,
    batch_size: BatchSize = None,
    samples: Samples = None,
    max_new_tokens: NewTokens = None,
    backend: Backend = None,
    config: RunYaml = None,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Is the latent used? Thoughts are dropped, replaced, moved and interchanged; goes on if interrupted."""
    from coconut_lm.battery import Battery, Choice
    from coconut_lm.batteryview import tables
    from coconut_lm.study import Study, examine
    from coconut_lm.studyview import told, watched
    from coconut_lm.terminal import busy

    exam = exam_of(locals())
    names = () if only is None else tuple(name.strip() for name in only.split(","))
    choice = Choice(names, seed)
    with busy("loading"):
        examiner = examine(checkpoint, exam, config, training_free)
        job = Battery(Study("battery", examiner, choice.asked, out=out, force=force), choice)
    summary = job(watched)
    told(summary, tables(summary), job.study.folder, as_json)
