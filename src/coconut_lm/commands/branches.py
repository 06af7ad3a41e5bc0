"""`coconut-lm branches`."""

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
from coconut_lm.commands.robustness import AsJson, Decay, Layer, TrainingFree, numbers

HowMany = Annotated[
    str, typer.Option(metavar="K", help="How many; 1,3,5,9 is 9, and the votes of the first 1, 3 and 5.")
]
Noise = Annotated[str, typer.Option(metavar="KIND", help="The kind of noise on the branches' thoughts.")]
Scales = Annotated[str, typer.Option(metavar="LIST", help="0,.1,1 or 0:1:.1 (from, to, by): an arm each.")]
Step = Annotated[
    int, typer.Option(metavar="S", help="The first thought with noise, from 1: branches part there.")
]
Schedule = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Noise after that thought: none, constant, linear, cosine, exponential or adaptive.",
    ),
]
Temperature = Annotated[
    float, typer.Option(metavar="T", help="0 is greedy: noise alone tells branches apart.")
]
TopP = Annotated[float, typer.Option("--top-p", metavar="P", help="The part of the probability drawn from.")]
Vote = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What is shown and abstains: majority, noise_weighted, confidence_weighted or probability_mass.",
    ),
]
Abstain = Annotated[
    float | None, typer.Option(metavar="T", help="Answer only where this part of the branches agrees.")
]
Controls = Annotated[
    bool, typer.Option(help="Ask without noise, without thoughts and without markers too, sampled alike.")
]
Seed = Annotated[int, typer.Option(metavar="S", min=0, help="Another seed is other noise and other texts.")]


def branches(
    checkpoint: Checkpoint,
    data: Data,
    branches: HowMany = "5",
    noise: Noise = "gaussian_scaled",
    scales: Scales = "0.2",
    step: Step = 1,
    schedule: Schedule = "constant",
    decay: Decay = 0.5,
    layer: Layer = -1,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.9,
    vote: Vote = "majority",
    abstain: Abstain = None,
    controls: Controls = True,
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
    """What is it worth to think in several branches, with noise of their own? Goes on if interrupted."""
    from coconut_lm.branches import Branches, Branching
    from coconut_lm.branchesview import branchings
    from coconut_lm.polls import Count
    from coconut_lm.study import Study, examine
    from coconut_lm.studyview import told, watched
    from coconut_lm.terminal import busy

    exam = exam_of(locals())
    firsts = _numbers(branches)
    asked = Branching(
        firsts[-1], noise, numbers(scales), step, schedule, decay, layer, temperature, top_p, seed, controls
    )
    count = Count(vote, abstain, firsts if len(firsts) > 1 else ())
    with busy("loading"):
        examiner = examine(checkpoint, exam, config, training_free)
        job = Branches(Study("branches", examiner, asked.asked, out=out, force=force), asked)
    summary = job(count, watched)
    told(summary, branchings(summary), job.study.folder, as_json)


def _numbers(given: str) -> list[int]:
    """From the least; the last of them is how many branches there are."""
    from coconut_lm.errors import UserError

    parts = [part.strip() for part in given.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UserError("impossible number of branches", given=given, expected="1 or more, or 1,3,5")
    return sorted({int(part) for part in parts})
