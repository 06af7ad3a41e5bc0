"""What `data stats` and `data show` look like."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from coconut_lm import terminal
from coconut_lm.data.example import Example
from coconut_lm.methods import METHODS, Curriculum, Row, Rows
from coconut_lm.tokens import add_latent_tokens, encode, latent_tokens, load_tokenizer, word_tokenizer

MASKED, LEARNED, THOUGHT = "bright_black", "green", "bold magenta"
KEPT = 12  # tokens shown at either end of a long question
BAR = 40
TOLD = ("examples", "distinct_questions", "question_words", "steps", "steps_shares")  # of every file


def show(*things: RenderableType) -> None:
    console = Console(highlight=False)
    for thing in things:
        console.print(thing)


# -- statistics --


def survey_tables(source: str, survey: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text.assemble((source, "bold"), f"  {survey['examples']:,} examples, task {survey['task']}\n")
    yield _lengths(survey["words"])
    yield _histogram("steps", survey["steps"])
    if survey["statistics"]:
        yield _figures(survey["statistics"])
    if survey["floors"]:
        yield _floors(survey["floors"])
    yield _oddities(survey["oddities"])


def _lengths(words: Mapping[str, Mapping[str, float]]) -> Group:
    table = terminal.table("words", *words["question"])
    for name, summary in words.items():
        table.add_row(name, *(f"{value:,.4g}" for value in summary.values()))
    return Group(table, "")


def _histogram(name: str, counts: Mapping[str, int]) -> Group:
    table = terminal.table(name, "examples", "share")
    table.add_column()
    binned: Counter[str] = Counter()
    for value, count in counts.items():
        binned[_bin(int(value))] += count
    for label, count in binned.items():
        share, bar = count / binned.total(), count / max(binned.values())
        table.add_row(label, f"{count:,}", f"{share:.1%}", Text("█" * round(BAR * bar), "cyan"))
    return Group(table, "")


def _bin(value: int) -> str:
    """Ten values by themselves, then tens."""
    ten = (value - 1) // 10 * 10
    return str(value) if value <= 10 else f"{ten + 1}-{ten + 10}"


def _figures(statistics: Mapping[str, Any]) -> Group:
    table = terminal.table("of the task")
    table.add_column()
    for name, value in statistics.items():
        if name not in TOLD:
            table.add_row(_words(name.removesuffix("_shares")), _value(value, name.endswith("_shares")))
    return Group(table, "")


def _value(value: Any, percent: bool) -> str:
    if not isinstance(value, Mapping):
        return _number(value)
    return "   ".join(
        f"{_words(name)}: {each:.1%}" if percent else f"{_words(name)} {_number(each)}"
        for name, each in value.items()
    )


def _floors(floors: Mapping[str, Mapping[str, float]]) -> Group:
    table = terminal.table("shortcut floor", "right", "95 % interval", "n")
    for rule, floor in floors.items():
        interval = f"{floor['low']:.1%} to {floor['high']:.1%}" if floor["low"] < floor["high"] else "exact"
        table.add_row(_words(rule), f"{floor['rate']:.1%}", interval, f"{floor['n']:,}")
    return Group(table, "")


def _oddities(counts: Mapping[str, int]) -> Text:
    found = [f"{count:,} {_words(name)}" for name, count in counts.items() if count]
    return Text(f"odd: {', '.join(found)}", "yellow") if found else Text("nothing odd", "green")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")


# -- rows --


def rows_of(examples: Sequence[Example], count: int, run: Any, source: str | None) -> tuple[Rows, Any]:
    """The rows of the first examples under a run's method and curriculum, and their tokenizer."""
    pause = METHODS[run.method].filler == "pause"
    source = source or run.tokenizer or run.model_id or run.model_config_path
    if source == "word":
        tokenizer = word_tokenizer(text for e in examples for text in (e.question, *e.steps, e.answer))
        tokens = add_latent_tokens(tokenizer, pause)
    else:
        tokenizer = load_tokenizer(source, pause)
        tokens = latent_tokens(tokenizer)
    encoded = encode(examples[:count], tokenizer)
    return Rows(encoded, tokens, run.method, Curriculum.of(run), seed=run.seed), tokenizer


def legend() -> Text:
    return Text.assemble(
        ("read", MASKED),
        ", ",
        ("learned", LEARNED),
        ", ",
        ("thoughts and their markers", THOUGHT),
        "; · parts tokens, ⏎ is a new line",
    )


def example_view(example: Example, rows: Rows, tokenizer: Any, index: int, stages: Sequence[int]) -> Group:
    """The example as it stands, its training rows at these stages, and the prompt at the last of them."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("question", "", Text(example.question))
    for number, step in enumerate(example.steps, start=1):
        table.add_row("steps" if number == 1 else "", str(number), Text(step))
    table.add_row("answer", "", Text(example.answer))
    for stage in dict.fromkeys(stages):
        row = rows.row(index, stage)
        table.add_row("")
        table.add_row(f"stage {stage}", "reads", _pieces(row, rows, tokenizer, learned=False))
        table.add_row(_counted(row), "learns", _pieces(row, rows, tokenizer, learned=True))
    prompt = rows.prompt(index, stages[-1])
    table.add_row("")
    table.add_row("prompt", "reads", _pieces(prompt, rows, tokenizer, learned=False))
    return Group(table, Text())


def _counted(row: Row) -> Text:
    counts = f"{row.supervised_from} + {len(row.input_ids) - row.supervised_from} tokens"
    return Text(f"{counts}\n{row.thoughts} thoughts" if row.thoughts else counts, "dim")


def _pieces(row: Row, rows: Rows, tokenizer: Any, learned: bool) -> Text:
    """One side of a row, token by token; the middle of a long question is left out."""
    tokens = rows.tokens
    special = {tokens.start, tokens.end, tokens.latent, tokens.pause}
    ids = row.input_ids[row.supervised_from :] if learned else row.input_ids[: row.supervised_from]
    question = 0 if learned else len(rows.examples[row.index].question)
    skipped = range(KEPT, question - KEPT) if question > 3 * KEPT else range(0)
    text = Text()
    for at, token in enumerate(ids.tolist()):
        if at == skipped.start and skipped:
            text.append(f" ... {len(skipped)} more ... ", "dim italic")
        if at in skipped:
            continue
        if text and not text.plain.endswith("\n"):
            text.append("·", "dim")
        written = tokenizer.decode([token]).replace("\n", "⏎\n")
        text.append(written, THOUGHT if token in special else LEARNED if learned else MASKED)
    return text
