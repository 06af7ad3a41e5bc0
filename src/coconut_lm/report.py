"""Run folders as one page to look at, with its tables and plots beside it. From files alone.

report.html         needs nothing else, and no network
report/summary.md   summary.csv   loss.png   loss.svg   ...
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coconut_lm import paper, studytables, summary
from coconut_lm.data.example import read_examples
from coconut_lm.drawing import SERIES, Plot
from coconut_lm.errors import UserError
from coconut_lm.files import atomic_write, refuse_overwrite
from coconut_lm.history import STUDIES, Evaluation, History, number, read
from coconut_lm.plots import plots

EXAMPLES = 500  # to leaf through, of each run; all are in predictions.jsonl
DECODED = 4  # questions a run whose thoughts are put into words
TASKS = {"gsm8k": "GSM8K", "prosqa": "ProsQA", "prontoqa": "ProntoQA", "math": "MATH", "mmlu": "MMLU"}
SECTIONS = {
    "training": ("loss", "accuracy"),
    "answers": ("thoughts", "tokens", "lengths"),
    "battery": ("battery",),
    "robustness": ("noise_beside", "noise", "noise_log", "noise_fits", "noise_map"),
    "branches": ("branches", "risk_coverage"),
    "inside": ("norm_ratio", "cosine", "effective_rank", "gradients", "window"),
}


STUDY_TITLES = {"battery": "Is the latent used?", "robustness": "Noise", "branches": "Branches"}
STUDY_TABLES = {
    "battery": {"Interventions": studytables.battery, "The other entity asked about": studytables.swaps},
    "robustness": {"Accuracy by noise": studytables.robustness, "Fits": studytables.fits},
    "branches": {
        "Votes": studytables.votes,
        "Agreement": studytables.agreement,
        "Answers where branches agree": studytables.selection,
    },
}


def write(
    places: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> tuple[Path, Path]:
    """The page, and the folder of its pieces. `out` is X.html, its pieces in X/, or a folder for all."""
    runs = read(places)
    page, pieces = _where(runs, out)
    refuse_overwrite(page, force=True)
    drawn = plots(runs)
    named = title or " · ".join(run.name for run in runs)
    with atomic_write(page) as file:
        file.write(render(runs, drawn, named))
    with atomic_write(pieces / "summary.md") as file:
        file.write(markdown(runs, drawn, named))
    with atomic_write(pieces / "summary.csv") as file:
        file.write(summary.everything(runs).csv())
    for plot in drawn:
        plot.save(pieces)
    return page, pieces


def _where(runs: Sequence[History], out: str | os.PathLike[str] | None) -> tuple[Path, Path]:
    """The page, and the folder of its pieces."""
    if out is None:
        out = (runs[0].path if len(runs) == 1 else Path()) / "report.html"
    path = Path(out)
    if path.suffix.lower() in (".html", ".htm"):
        return path, path.with_suffix("")
    return path / "report.html", path


def render(runs: Sequence[History], drawn: Sequence[Plot], title: str) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from coconut_lm import __version__

    environment = Environment(
        loader=PackageLoader("coconut_lm"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    differing, whole = summary.configurations(runs)
    floors, sides = summary.floors(runs)
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=_subtitle(runs),
        version=__version__,
        runs=[_card(run, place) for place, run in enumerate(runs)],
        colours={run.name: place % len(SERIES) for place, run in enumerate(runs)},
        plots={name: _of_section(members, drawn) for name, members in SECTIONS.items()},
        studies=_studies(runs),
        study_titles=STUDY_TITLES,
        results=summary.results(runs),
        paired=summary.paired(runs),
        beside_paper={TASKS[task]: table for task, table in summary.beside_paper(runs).items()},
        paper=paper,
        floors=floors,
        sides=sides,
        swaps=summary.swaps(runs),
        groups=summary.groups(runs),
        evaluations=summary.evaluations(runs),
        differing=differing,
        configuration=whole,
        environments=summary.environments(runs),
        decoded=[(run.name, decoded) for run in runs if (decoded := _decoded(run))],
        examples=within_script(examples(runs)),
        limit=EXAMPLES,
    )


def _of_section(members: Sequence[str], drawn: Sequence[Plot]) -> list[Plot]:
    """In the order of the members; a study beside others has a number behind its plots' names."""
    return [plot for each in members for plot in drawn if re.sub(r"-\d+$", "", plot.name) == each]


def _studies(runs: Sequence[History]) -> dict[str, dict[str, Any]]:
    """By kind, what was looked at, and its tables by their headings; nothing of a kind that is not there."""
    found = {kind: studytables.named(runs, kind) for kind in STUDIES}
    return {
        kind: {
            "about": [studytables.about(it) for it in them],
            "commands": [str(command) for it in them if (command := it.study.get("command"))],
            "verdicts": studytables.verdicts(them),
            "tables": {title: table for title, make in STUDY_TABLES[kind].items() if (table := make(them))},
        }
        for kind, them in found.items()
        if them
    }


def _subtitle(runs: Sequence[History]) -> str:
    tasks = sorted({TASKS.get(run.task, run.task) for run in runs if run.task})
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return " · ".join([count, *tasks])


def _card(run: History, place: int) -> dict[str, Any]:
    found = summary.outcome(run)
    epochs = len(run.epochs)
    known = [paper.NAMES.get(run.method, run.method)]
    known += [f"{epochs} epoch{'' if epochs == 1 else 's'}"] if run.config else []
    known += [str(run.config["model_id"])] if run.config.get("model_id") else []
    return {
        "name": run.name,
        "colour": place % len(SERIES),
        "about": " · ".join(known),
        "missing": run.missing,
        "accuracy": summary.percent(found.accuracy.get("rate")) if found else None,
        "sure": summary.sureness(found.accuracy) if found else "not evaluated yet",
        "where": found.where if found else "",
        "tokens": summary.figure(found.tokens, ".1f") if found and found.tokens is not None else None,
    }


# -- examples to leaf through --


def examples(runs: Sequence[History]) -> dict[str, Any]:
    """Every question with each run's answer to it; short keys, since the page carries them all."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place, run in enumerate(runs):
        steps = _steps(run.chief)
        rows = run.predictions[:EXAMPLES]
        for key, row in zip(summary.keys(rows), rows, strict=True):
            question = str(row.get("question", ""))
            new: dict[str, Any] = {
                "q": question,
                "gold": str(row.get("gold", "")),
                "steps": steps.get(question),
                "answers": [],
            }
            found.setdefault(key, new)["answers"].append(_answer(place, row))
    return {"runs": [run.name for run in runs], "examples": list(found.values())}


def _answer(place: int, row: Mapping[str, Any]) -> dict[str, Any]:
    counts = {
        name: row[key] for name, key in (("t", "thoughts"), ("w", "written")) if isinstance(row.get(key), int)
    }
    return {
        "r": place,
        "ok": bool(row.get("correct")),
        "out": str(row.get("output", "")),
        "got": str(row.get("extracted", "")),
        "ended": row.get("ended") is not False,
        **counts,
    }


def _steps(evaluation: Evaluation | None) -> dict[str, int]:
    """How many steps each question takes, where the data file is still at hand."""
    data = Path(str(evaluation.get("data") if evaluation else ""))
    if data.suffix not in (".json", ".jsonl") or not data.is_file():
        return {}
    try:
        return {example.question: len(example.steps) for example in read_examples(data)}
    except UserError:  # the file became another: the page does without
        return {}


def within_script(content: Any) -> str:
    """JSON that no text within it can end the script by."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _decoded(run: History) -> list[Mapping[str, Any]]:
    return [_in_words(each) for each in run.thoughts[:DECODED]]


def _in_words(decoded: Mapping[str, Any]) -> dict[str, Any]:
    question = str(decoded.get("question", ""))
    thoughts = [each for each in decoded.get("thoughts") or () if isinstance(each, Mapping)]
    return {
        "asked": re.split(r"(?<=[.!?])\s+", question.strip())[-1],
        "question": question,
        "output": str(decoded.get("output", "")),
        "correct": decoded.get("correct"),
        "thoughts": [
            {
                "tokens": [(_visible(str(word)), number(p) or 0.0) for word, p in each.get("tokens") or ()],
                "norm_ratio": summary.figure(each.get("norm_ratio"), ".1f"),
                "entropy": summary.figure(each.get("entropy"), ".2f"),
            }
            for each in thoughts
        ],
    }


def _visible(token: str) -> str:
    """A token whose blanks can be seen."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "(nothing)"


# -- beside the page --


def markdown(runs: Sequence[History], drawn: Sequence[Plot], title: str) -> str:
    """The tables of the page as GitHub shows them, with the plots from files beside."""
    floors, sides = summary.floors(runs)
    differing, _ = summary.configurations(runs)
    parts = {"": summary.results(runs), "Run against run": summary.paired(runs)}
    for task, table in summary.beside_paper(runs).items():
        parts[f"{TASKS[task]}, beside the paper ({paper.CITATION}: {paper.SETTING})"] = table
    parts |= {
        "Rules that skip the reasoning, or part of it": floors,
        "The other entity asked about": summary.swaps(runs),
    }
    parts |= {"By group": summary.groups(runs), "What sets the runs apart": differing}
    text = f"# {' '.join(title.split())}\n\n{_subtitle(runs)}\n"
    for heading, table in parts.items():
        text += (f"\n## {heading}\n" if heading else "") + f"\n{table.markdown()}" if table else ""
        text += "".join(f"\n- {line}" for line in sides) + "\n" if table is floors and sides else ""
    text += _studies_markdown(runs)
    gone = [f"- {run.name}: {what}\n" for run in runs for what in run.missing]
    text += "\n## Missing\n\n" + "".join(gone) if gone else ""
    shown = [f"\n![{plot.title}]({plot.name}.png)\n\n{plot.shows}\n" for plot in drawn]
    return text + ("\n## Plots\n" + "".join(shown) if shown else "")


def _studies_markdown(runs: Sequence[History]) -> str:
    text = ""
    for kind, found in _studies(runs).items():
        text += f"\n## {STUDY_TITLES[kind]}\n\n" + "".join(f"- {about}\n" for about in found["about"])
        for name, used, reasons in found["verdicts"]:
            text += f"\n**{name + ': ' if name else ''}{used}** {' '.join(reasons)}\n"
        for heading, table in found["tables"].items():
            text += f"\n### {heading}\n\n{table.markdown()}"
    return text
