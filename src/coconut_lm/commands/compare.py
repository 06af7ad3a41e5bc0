"""`coconut-lm compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coconut_lm.commands.eval import Backend

if TYPE_CHECKING:
    from coconut_lm.compare import Comparison, OverSeeds

PLACE = "A checkpoint, run folder or predictions.jsonl; several seeds with commas between."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=PLACE)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, for B.")],
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Examples that checkpoints are evaluated on.")
    ] = None,
    stage_a: Annotated[int | None, typer.Option(metavar="K", min=0, help="A's stage; else its own.")] = None,
    stage_b: Annotated[int | None, typer.Option(metavar="K", min=0, help="B's stage; else its own.")] = None,
    thoughts_a: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="A's thoughts; else its stage's.")
    ] = None,
    thoughts_b: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="B's thoughts; else its stage's.")
    ] = None,
    margin: Annotated[
        float, typer.Option(metavar="POINTS", min=0, max=100, help="What B may lose and be called not worse.")
    ] = 2.0,
    examples: Annotated[int, typer.Option(metavar="N", min=0, help="Examples shown side by side.")] = 5,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first so many examples.")
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Questions at a time.")] = 32,
    backend: Backend = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where comparison.json, comparison.md and all go."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """B against A on the same examples: accuracy, tokens and time, and whether the difference is chance."""
    from coconut_lm.compare import apart, compare, over_seeds, read
    from coconut_lm.terminal import say

    places = _seeds(a, b)
    exam = {"data": data, "samples": samples, "batch_size": batch_size, "backend": backend}
    one = {"stage": stage_a, "thoughts": thoughts_a}
    other = {"stage": stage_b, "thoughts": thoughts_b}
    comparisons = []
    for seed, pair in enumerate(zip(*places, strict=True), start=1):
        file_a = _predictions(pair[0], exam | one, out and out / f"a{seed}")
        file_b = _predictions(pair[1], exam | other, out and out / f"b{seed}")
        names = _names(pair, one, other)
        asked = read(file_a, samples), read(file_b, samples)
        comparisons.append(compare(*asked, names, margin / 100, apart(file_a, file_b)))
    over = over_seeds(comparisons) if len(comparisons) > 1 else None
    if out:
        _write(out, comparisons, over, examples)
    if as_json:
        say(json.dumps(_told(comparisons, over, examples), indent=2, ensure_ascii=False))
    else:
        _print(comparisons, over, examples)


def _seeds(a: str, b: str) -> tuple[list[str], list[str]]:
    from coconut_lm.errors import UserError

    sides = a.split(","), b.split(",")
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            "seeds are compared in pairs",
            given=f"{len(sides[0])} of A, {len(sides[1])} of B",
            do="name as many of B as of A, in the same order",
        )
    return sides


def _names(places: tuple[str, str], *exams: dict[str, int | None]) -> tuple[str, str]:
    """Short, with the stages and thoughts that were asked for; these alone where the place is one."""
    from coconut_lm.compare import short_names

    one, other = (", ".join(f"{key} {n}" for key, n in exam.items() if n is not None) for exam in exams)
    if places[0] == places[1] and one != other:
        return one or "its own stage", other or "its own stage"
    names = short_names(*places)
    return f"{names[0]} ({one})" if one else names[0], f"{names[1]} ({other})" if other else names[1]


def _predictions(place: str, exam: dict[str, Any], out: Path | None) -> Path:
    """The file of them, or that of an evaluation's folder; a checkpoint is evaluated."""
    from coconut_lm.errors import UserError
    from coconut_lm.runfolder import PREDICTIONS

    path = Path(place)
    if (path / PREDICTIONS).is_file():
        path = path / PREDICTIONS
    if path.suffix != ".jsonl":
        path = _evaluated(place, exam, out) / PREDICTIONS
    elif exam["stage"] is not None or exam["thoughts"] is not None:
        raise UserError(f"{place} is written already", do="leave its --stage and --thoughts out")
    return path


def _evaluated(place: str, exam: dict[str, Any], out: Path | None) -> Path:
    """The folder of the evaluation, in the run's folder unless told otherwise; one that is there is used."""
    from coconut_lm.errors import UserError

    if exam["data"] is None:
        raise UserError(
            f"{place} is to be evaluated",
            do="name the examples (coconut-lm compare A B DATA), or a predictions.jsonl of it",
        )
    from coconut_lm.assembly import open_checkpoint
    from coconut_lm.exam import Exam, Examiner
    from coconut_lm.terminal import busy, follow

    with busy(f"loading {place}"):
        examiner = Examiner(open_checkpoint(place), Exam(**exam), place)
    folder = out or examiner.folder
    examiner(folder, watch=lambda predictions, total: follow(predictions, total, lambda _: place))
    return folder


def _told(comparisons: "list[Comparison]", over: "OverSeeds | None", examples: int) -> dict[str, Any]:
    from dataclasses import asdict

    told = [each.to_json(examples) for each in comparisons]
    return {"seeds": asdict(over), "comparisons": told} if over else told[0]


def _write(out: Path, comparisons: "list[Comparison]", over: "OverSeeds | None", examples: int) -> None:
    from coconut_lm.compareview import markdown
    from coconut_lm.files import atomic_write
    from coconut_lm.runfolder import write_json
    from coconut_lm.terminal import note

    write_json(out / "comparison.json", _told(comparisons, over, examples))
    with atomic_write(out / "comparison.md") as file:
        file.write(markdown(comparisons, over, examples))
    note(f"written: {out / 'comparison.json'}, {out / 'comparison.md'}")


def _print(comparisons: "list[Comparison]", over: "OverSeeds | None", examples: int) -> None:
    from rich.console import Console

    from coconut_lm.compareview import views

    console = Console(highlight=False)
    for view in views(comparisons, over, examples):
        console.print(view)
