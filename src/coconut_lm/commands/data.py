"""The `data` commands. Rooms load inside the commands, so that --help is quick."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from coconut_lm.data.example import Example

app = typer.Typer(help="Make, fetch, convert, inspect and split data.", no_args_is_help=True)
make = typer.Typer(help="Make data from a seed: the same bytes on every machine.", no_args_is_help=True)
convert = typer.Typer(help="Convert published files to examples.", no_args_is_help=True)
app.add_typer(make, name="make")
app.add_typer(convert, name="convert")

Source = Annotated[Path, typer.Argument(metavar="SRC", help="The file to convert.", show_default=False)]
File = Annotated[str, typer.Argument(metavar="FILE", help="Examples: .json, .jsonl, a folder or a hub id.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write: .json, or .jsonl for lines.")
]
Folder = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write into.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out, and list them.")]
Seed = Annotated[int, typer.Option("--seed", "-s", metavar="S", min=0, help="Seed of everything random.")]
Count = Annotated[
    int, typer.Option("--number", "-n", metavar="N", min=1, help="How many examples.", show_default=False)
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes", metavar="P", min=1, help="Processes; the examples are the same for any number."
    ),
]
Hops = Annotated[str | None, typer.Option("--hops", metavar="H", help="Path lengths: 3, or 1-3.")]
HopWeights = Annotated[
    str | None, typer.Option("--hop-weights", metavar="W,W,..", help="The odds of these lengths: 1,1,4.")
]


@make.command("prosqa", epilog="Example: coconut-lm data make prosqa -n 1000 --seed 1 --out train.json")
def make_prosqa(
    out: Out,
    count: Count,
    seed: Seed = 0,
    preset: Annotated[
        Literal["released", "depth_matched"] | None,
        typer.Option(help="Like the published files (default), or rid of their shortcuts."),
    ] = None,
    shape: Annotated[
        Literal["sized", "broom"] | None,
        typer.Option(
            help="sized: as many nodes, edges and hops as told; broom: equal chains from two roots."
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", min=1, help="Nodes of a sized graph.")] = None,
    edges: Annotated[int | None, typer.Option(metavar="N", min=1, help="Edges of a sized graph.")] = None,
    hops: Hops = None,
    hop_weights: HopWeights = None,
    branches: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Chains from each root of a broom.")
    ] = None,
    style: Annotated[
        Literal["sentences", "symbols"], typer.Option(help="English, or numbers and marks.")
    ] = "sentences",
    counterfactual: Annotated[
        bool,
        typer.Option("--counterfactual", help="After each its twin, asked of the other entity: 2n in all."),
    ] = False,
    neighbors: Annotated[
        bool, typer.Option("--neighbors", help="Add neighbor_k and bfs_neighbor_k: nodes by hop.")
    ] = False,
    processes: Processes = 1,
    force: Force = False,
) -> None:
    """Which of two concepts does an entity reach in a graph told in sentences?"""
    from coconut_lm.data import prosqa
    from coconut_lm.errors import UserError

    if preset and shape:
        raise UserError("two shapes", given=f"--preset {preset} --shape {shape}", do="keep one of them")
    examples = prosqa.make(
        count,
        seed=seed,
        style=style,
        counterfactual=counterfactual,
        neighbor_k=neighbors,
        bfs_neighbor_k=neighbors,
        processes=processes,
        # Branches alone would imply the broom; here it is to be said.
        shape=preset or shape or ("released" if branches else None),
        nodes=nodes,
        edges=edges,
        hops=hops,
        hop_weights=hop_weights,
        branches=branches,
    )
    _write_made(out, examples, count * (1 + counterfactual), force)


@make.command("prontoqa", epilog="Example: coconut-lm data make prontoqa -n 9000 --out prontoqa_train.json")
def make_prontoqa(
    out: Out,
    count: Count,
    seed: Seed = 0,
    hops: Hops = "5",
    hop_weights: HopWeights = None,
    processes: Processes = 1,
    force: Force = False,
) -> None:
    """Does a property follow from rules about made-up concepts, among distractors?"""
    from coconut_lm.data import prontoqa

    examples = prontoqa.make(count, seed=seed, hops=hops or 5, hop_weights=hop_weights, processes=processes)
    _write_made(out, examples, count, force)


def _write_made(out: Path, examples: "Iterable[Example]", total: int, force: bool) -> None:
    from coconut_lm.data.example import write_examples
    from coconut_lm.files import refuse_overwrite
    from coconut_lm.terminal import track

    refuse_overwrite(out, force)
    write_examples(out, track(examples, f"making {out.name}", total), force=force)
    _wrote({out: total})


@convert.command("gsm8k", epilog="Example: coconut-lm data convert gsm8k train.txt --out gsm_train.json")
def convert_gsm8k(
    source: Source,
    out: Out,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, envvar="TARGET_SIZE", help="Only the first so many examples."),
    ] = None,
    steps: Annotated[
        Literal["annotations", "sentences"],
        typer.Option(help="Steps of an original record: its <<...>>, or its sentences."),
    ] = "annotations",
    empty_steps: Annotated[
        Literal["keep", "drop", "none"],
        typer.Option(help="A problem without steps: one empty step, no example, or no steps."),
    ] = "keep",
    skip_bad: SkipBad = False,
    force: Force = False,
) -> None:
    """GSM8K: text lines "question||step step ... #### answer", or the original JSON lines."""
    from coconut_lm.data import gsm8k
    from coconut_lm.files import refuse_overwrite
    from coconut_lm.terminal import busy

    refuse_overwrite(out, force)
    with busy(f"converting {source}"):
        parsed = gsm8k.convert(
            source,
            out,
            steps=steps,
            empty_steps=empty_steps,
            limit=limit,
            skip_bad=skip_bad,
            force=force,
        )
    _wrote({out: len(parsed.examples)}, parsed.skipped)


@convert.command("prontoqa", epilog="Example: coconut-lm data convert prontoqa 5hop.json --out data")
def convert_prontoqa(source: Source, out: Folder, force: Force = False) -> None:
    """ProntoQA: the original generator's JSON, to DIR/prontoqa_train.json (90 %), _valid (2 %) and _test."""
    from coconut_lm.data import prontoqa, splits

    _wrote(splits.write(out, prontoqa.convert(source), prefix="prontoqa_", force=force))


@convert.command("math", epilog="Example: coconut-lm data convert math MATH/train MATH/test --out data")
def convert_math(
    source: Annotated[list[str], typer.Argument(metavar="SRC...", help="Files, folders or hub ids.")],
    out: Folder,
    preset: Annotated[
        Literal["sentences", "seed001"],
        typer.Option(help="What the others default to; seed001 tells the answer in its steps."),
    ] = "sentences",
    box: Annotated[Literal["last", "first"] | None, typer.Option(help="Which box is the answer.")] = None,
    steps: Annotated[Literal["sentences", "lines"] | None, typer.Option(help="What a step is.")] = None,
    box_in_steps: Annotated[
        Literal["keep", "unbox", "drop"] | None,
        typer.Option(help="The box in the steps stays, or only its content, or neither it nor its step."),
    ] = None,
    split: Annotated[
        Literal["original", "shuffled"] | None, typer.Option(help="The records' own split, or a new one.")
    ] = None,
    valid_share: Annotated[
        float | None, typer.Option(metavar="X", min=0, max=0.5, help="Share that is taken for validation.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", min=0, help="Seed of the split.")] = None,
    skip_bad: SkipBad = False,
    force: Force = False,
) -> None:
    """MATH: records with problem and solution, to DIR/math_train.json, math_valid.json and math_test.json."""
    from dataclasses import replace

    from coconut_lm.data import math, splits
    from coconut_lm.terminal import busy

    choices: dict[str, Any] = {
        "box": box,
        "steps": steps,
        "box_in_steps": box_in_steps,
        "split": split,
        "valid_share": valid_share,
        "seed": seed,
    }
    chosen = {name: value for name, value in choices.items() if value is not None}
    with busy("converting"):
        converted = math.convert(*source, recipe=replace(math.PRESETS[preset], **chosen), skip_bad=skip_bad)
        written = splits.write(out, converted.splits, prefix="math_", force=force)
    _wrote(written, converted.skipped)


@convert.command("mmlu", epilog="Example: coconut-lm data convert mmlu test.parquet --out mmlu_test.json")
def convert_mmlu(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A file, a folder or a hub id.")],
    out: Out,
    name: Annotated[str, typer.Option(help="The part of a hub id that has several.")] = "all",
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first examples.")] = None,
    skip_bad: SkipBad = False,
    force: Force = False,
) -> None:
    """MMLU: records with question, choices and answer, to questions that end in lettered options."""
    from coconut_lm.data import mmlu
    from coconut_lm.files import refuse_overwrite
    from coconut_lm.terminal import busy

    refuse_overwrite(out, force)
    with busy(f"converting {source}"):
        parsed = mmlu.convert(
            source, out, name=name, split=split, limit=limit, skip_bad=skip_bad, force=force
        )
    _wrote({out: len(parsed.examples)}, parsed.skipped)


@app.command("get", epilog="Example: coconut-lm data get gsm8k --out data")
def get(
    name: Annotated[Literal["gsm8k", "prosqa", "prontoqa", "math"], typer.Argument(help="The data set.")],
    out: Folder,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Another place with the same files (https or file).")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, envvar="TARGET_SIZE", help="Only the first so many of train."),
    ] = None,
    force: Force = False,
) -> None:
    """Fetch a public data set, check it, and write DIR/NAME_train.json, _valid and _test."""
    from coconut_lm.data import download
    from coconut_lm.terminal import downloads, note

    with downloads() as progress:
        got = download.get(name, out, url=url, limit=limit, force=force, progress=progress)
    _wrote({path: got.examples[split] for split, path in got.paths.items()})
    for file in got.unpinned:
        note(f"{file} has no published checksum; what came has sha256 {got.sha256[file]}")


@app.command("stats", epilog="Example: coconut-lm data stats data/prosqa_valid.json")
def stats(
    file: File,
    task: Annotated[
        Literal["prosqa", "prontoqa", "gsm8k", "math", "mmlu", "plain"] | None,
        typer.Option(help="Whose figures; told from the examples if not given."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of a folder or hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Count, measure, and say how far shortcuts get that skip the reasoning."""
    import json

    from coconut_lm.data.example import read_examples
    from coconut_lm.data.survey import survey
    from coconut_lm.dataview import show, survey_tables
    from coconut_lm.terminal import busy

    with busy(f"reading {file}"):
        found = survey(read_examples(file, split=split), task)
    if as_json:
        print(json.dumps({"file": file, **found}, indent=1, ensure_ascii=False))
    else:
        show(*survey_tables(file, found))


@app.command("show", epilog="Example: coconut-lm data show data/prosqa_valid.json run.yaml --stage 2")
def show_rows(
    file: File,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The run whose rows are shown.")],
    stage: Annotated[
        int, typer.Option("--stage", "-k", metavar="K", min=0, help="The stage beside stage 0.")
    ] = 1,
    count: Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="How many examples.")] = 3,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Hub id or folder, or word: made from FILE. CONFIG's if not given."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of a folder or hub id.")] = None,
) -> None:
    """Show what a model reads, what it learns, and where thoughts stand."""
    from coconut_lm import dataview
    from coconut_lm.config import load
    from coconut_lm.data.example import read_examples
    from coconut_lm.terminal import busy

    run = load(config, check_files=False)
    with busy(f"reading {file}"):
        examples = read_examples(file, split=split)
        rows, encoder = dataview.rows_of(examples, count, run, tokenizer)
    stages = (0, stage)
    views = [
        dataview.example_view(each, rows, encoder, at, stages) for at, each in enumerate(examples[:count])
    ]
    dataview.show(*views, dataview.legend())


@app.command("split", epilog="Example: coconut-lm data split all.json --out data --valid 200 --test 10%")
def split_file(
    file: File,
    out: Folder,
    valid: Annotated[str, typer.Option(metavar="N|SHARE", help="Examples to validate: 200, 0.1 or 10%.")],
    test: Annotated[str, typer.Option(metavar="N|SHARE", help="Examples to test.")],
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Shuffle into DIR/train, valid and test. Twins and repeated questions never part."""
    from coconut_lm.data import splits
    from coconut_lm.data.example import read_examples

    examples = read_examples(file)
    sizes = {"valid": splits.size(valid, len(examples)), "test": splits.size(test, len(examples))}
    parts = splits.split(examples, **sizes, seed=seed)
    suffix = ".jsonl" if Path(file).suffix == ".jsonl" else ".json"
    _wrote(splits.write(out, parts, suffix=suffix, force=force))


def _wrote(files: Mapping[Path, int], skipped: list[str] | None = None) -> None:
    from coconut_lm.terminal import note, say

    for path, count in files.items():
        say(f"wrote {path}: {count:,} example{'s' if count != 1 else ''}")
    for line in [f"skipped {len(skipped)}:", *skipped[:10]] if skipped else []:
        note(line)
