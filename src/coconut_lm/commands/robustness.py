"""`coconut-lm robustness`."""

from typing import Annotated, Literal

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

MOST = 1000  # scales
Seed = Annotated[int, typer.Option(metavar="S", min=0, help="Another seed is other noise.")]
Layer = Annotated[
    int, typer.Option(metavar="L", help="Make thoughts of this layer's states; -1 is what the head reads.")
]
Schedule = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="none, constant, linear, cosine, exponential or adaptive: from thought to thought.",
    ),
]
Decay = Annotated[
    float, typer.Option(metavar="X", min=0, help="How fast exponential and adaptive ones fade.")
]
TrainingFree = Annotated[
    str | None,
    typer.Option(
        metavar="BENCHMARK[:STYLE]",
        help="CHECKPOINT is an instruct model: asked gsm8k, gsm-symbolic, mmlu or math in its chat template, "
        "with thoughts in it. Styles: form, published, raw.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary instead of the table.")]


Noise = Annotated[str, typer.Option(metavar="KINDS", help="Kinds of noise, with commas between, or all.")]
Scales = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="0,.1,1 or 0:1:.1 (from, to, by); else those that suit the kind."),
]
Where = Annotated[str, typer.Option(metavar="W", help="all, first, or the number of a thought, from 1.")]
Direction = Annotated[Literal["same", "opposite", "both"], typer.Option(help="Of the kind `targeted`.")]


def robustness(
    checkpoint: Checkpoint,
    data: Data,
    noise: Noise = "gaussian_scaled",
    scales: Scales = None,
    where: Where = "all",
    direction: Direction = "both",
    layer: Layer = -1,
    schedule: Schedule = "constant",
    decay: Decay = 0.5,
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
    """How much noise on its thoughts does a checkpoint bear? Goes on if interrupted."""
    from coconut_lm.robustness import Robustness, Sweep
    from coconut_lm.study import Study, examine
    from coconut_lm.studyview import sweep, told, watched
    from coconut_lm.terminal import busy

    exam = exam_of(locals())
    asked = Sweep(_curves(noise, scales, direction), _where(where), layer, schedule, decay, seed)
    with busy("loading"):
        examiner = examine(checkpoint, exam, config, training_free)
        job = Robustness(Study("robustness", examiner, asked.asked, out=out, force=force), asked)
    summary = job(watched)
    told(summary, sweep(summary), job.study.folder, as_json)


def _where(given: str) -> str | int:
    from coconut_lm.errors import UserError

    if given in ("all", "first"):
        return given
    if not given.isdecimal() or int(given) == 0:
        raise UserError("no such place for noise", given=given, expected="all, first, or a number from 1")
    return int(given)


def _curves(kinds: str, scales: str | None, direction: str) -> dict[str, tuple[float, ...]]:
    """The scales of each kind, in the order given."""
    from coconut_lm.errors import require_known
    from coconut_lm.noise import KINDS
    from coconut_lm.robustness import RECOMMENDED

    directed = ["targeted_same", "targeted_opposite"] if direction == "both" else [f"targeted_{direction}"]
    named = list(KINDS) if kinds == "all" else [kind.strip() for kind in kinds.split(",")]
    for kind in named:
        require_known("noise type", kind, [*KINDS, "targeted", "all"])
    known = [each for kind in named for each in (directed if kind == "targeted" else [kind])]
    return {kind: RECOMMENDED[kind] if scales is None else numbers(scales) for kind in known}


def numbers(given: str) -> tuple[float, ...]:
    """0,.1,1 or 0:1:.1, each once. Steps are counted in decimals, so that three of .1 are .3."""
    from decimal import Decimal, InvalidOperation

    from coconut_lm.errors import UserError

    try:
        if ":" not in given:
            return tuple(dict.fromkeys(float(each) for each in given.split(",")))
        first, last, step = map(Decimal, given.split(":"))
        if not (step > 0 and first <= last and (last - first) / step < MOST):
            raise ValueError
        return tuple(float(first + count * step) for count in range(int((last - first) / step) + 1))
    except (ValueError, InvalidOperation):
        raise UserError(
            "these are no numbers", given=given, expected="0,.1,1 or from:to:by, such as 0:1:.1"
        ) from None
