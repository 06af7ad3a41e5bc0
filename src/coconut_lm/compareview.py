"""What a comparison looks like: its table, its sentences, examples side by side, Markdown."""

import re
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coconut_lm.compare import Comparison, Gain, OverSeeds, tokens
from coconut_lm.evaluate import Prediction
from coconut_lm.statistics import Seeds


def table(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """What is measured, A's, B's, and how B differs."""
    a, b, (low, high) = comparison.a, comparison.b, comparison.interval
    return [
        *((name, one, other, "") for name, one, other in comparison.apart),
        ("accuracy", f"{a.rate:.2%}", f"{b.rate:.2%}", f"{_points(comparison.difference)} points"),
        (
            "95 % interval",
            f"{a.low:.1%} to {a.high:.1%}",
            f"{b.low:.1%} to {b.high:.1%}",
            f"{_points(low)} to {_points(high)}",
        ),
        ("right", f"{a.right}", f"{b.right}", f"{b.right - a.right:+}"),
        ("average tokens", f"{a.tokens:.1f}", f"{b.tokens:.1f}", _percent(a.tokens, b.tokens)),
        ("of these thoughts", f"{a.thoughts:.1f}", f"{b.thoughts:.1f}", _percent(a.thoughts, b.thoughts)),
        ("forward passes", f"{a.passes:.1f}", f"{b.passes:.1f}", _percent(a.passes, b.passes)),
        ("seconds per example", f"{a.seconds:.4f}", f"{b.seconds:.4f}", _percent(a.seconds, b.seconds)),
    ]


def findings(comparison: Comparison) -> list[str]:
    """What the table comes to, in sentences."""
    a, b, pairs, sure = comparison.a.name, comparison.b.name, comparison.pairs, comparison.non_inferiority
    low, high = comparison.interval
    kept = f", {comparison.kept:.1%} of {a}'s accuracy" if comparison.kept is not None else ""
    margin = f"{100 * sure.margin:g} points worse than {a}"
    verdicts = {
        "not worse": f"{b} is at most {margin}",
        "worse": f"{b} is more than {margin}",
        "undecided": f"too few examples to say whether {b} is at most {margin}",
    }
    return [
        f"Efficiency gain: {_gain(comparison.gain)}",
        f"Quality: {_points(comparison.difference)}% accuracy change"
        f" (points, 95 % interval {_points(low)} to {_points(high)}){kept}",
        f"Non-inferiority: {verdicts[sure.verdict]}",
        f"McNemar: {_p(comparison.p)}; {pairs.both} both right, {pairs.only_a} only {a},"
        f" {pairs.only_b} only {b}, {pairs.neither} both wrong",
    ]


def seeds_told(over: OverSeeds) -> list[str]:
    """What several seeds come to."""
    difference, n = over.difference, over.difference.n
    return [
        f"Over {n} seeds (mean, standard deviation): {_spread(over.a)} and {_spread(over.b)}",
        f"Quality: {_points(difference.mean)}% accuracy change (points, 95 % interval over seeds"
        f" {_points(difference.low or 0)} to {_points(difference.high or 0)})",
        f"Average tokens: {over.tokens_a.mean:.1f} and {over.tokens_b.mean:.1f}",
    ]


def markdown(comparisons: Sequence[Comparison], over: OverSeeds | None, examples: int) -> str:
    parts = [f"- {line}" for line in seeds_told(over)] if over else []
    return "\n\n".join(["\n".join(parts)] * bool(parts) + [_markdown(each, examples) for each in comparisons])


def _markdown(comparison: Comparison, examples: int) -> str:
    a, b = comparison.a.name, comparison.b.name
    rows = [("", a, b, "change"), ("---",) * 4, *table(comparison)]
    parts = ["\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)]
    parts.append("\n".join(f"- {line}" for line in findings(comparison)))
    for one, other in comparison.differing(examples):
        texts = [("question", one.question), ("truth", one.gold)]
        texts += [(f"{name}, {verdict(each)}", each.output) for name, each in ((a, one), (b, other))]
        parts += [f"## Example {one.index}", *(f"{what}:\n\n{_fenced(text)}" for what, text in texts)]
    return "\n\n".join([f"# {b} against {a}, {comparison.n} examples", *parts]) + "\n"


def views(
    comparisons: Sequence[Comparison], over: OverSeeds | None, examples: int
) -> Iterator[RenderableType]:
    """For a terminal: what seeds come to, then each pair; examples of the first pair."""
    if over:
        yield from map(Text, seeds_told(over))
    for number, comparison in enumerate(comparisons):
        yield from _views(comparison, 0 if number else examples)


def _views(comparison: Comparison, examples: int) -> Iterator[RenderableType]:
    """The table, the sentences, then examples that differ."""
    a, b = comparison.a.name, comparison.b.name
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in ("", a, b, "change"):
        shown.add_column(Text(header), justify="right" if header else "left")
    for row in table(comparison):
        shown.add_row(*map(Text, row))
    yield Text(f"\n{comparison.n:,} examples\n", "bold")
    yield shown
    yield ""
    yield from map(Text, findings(comparison))
    for pair in comparison.differing(examples):
        yield ""
        yield _side_by_side(comparison, *pair)


def _side_by_side(comparison: Comparison, one: Prediction, other: Prediction) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", overflow="fold", max_width=32)
    grid.add_column(overflow="fold")
    grid.add_row(f"example {one.index}", Text(one.question))
    grid.add_row("truth", Text(one.gold))
    for name, each in ((comparison.a.name, one), (comparison.b.name, other)):
        style = "green" if each.correct else "red"
        grid.add_row(Text(name), Text.assemble(each.output.strip(), (f"  ({verdict(each)})", style)))
    return grid


def verdict(prediction: Prediction) -> str:
    return f"{'right' if prediction.correct else 'wrong'}, {tokens(prediction)} tokens"


def _fenced(text: str) -> str:
    """Fenced, so that a text is no markup; the fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _percent(a: float, b: float) -> str:
    return f"{b / a - 1:+.1%}" if a else ""


def _gain(gain: Gain) -> str:
    if gain.share is None:
        return f"none, {gain.tokens.difference:.1f} more tokens where there were none"
    sign = 1 if gain.share >= 0 else -1
    ends = sorted(sign * end for end in (gain.low, gain.high) if end is not None)
    interval = f" (95 % interval {ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
    return f"{abs(gain.share):.1%} {'fewer' if sign > 0 else 'more'} tokens{interval}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def _spread(rates: Seeds) -> str:
    return f"{rates.mean:.2%} ± {rates.sd or 0:.2%}"
