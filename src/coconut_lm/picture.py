"""The passes over one batch, drawn in text: which pass reads which columns, and what a thought is made of."""

from collections.abc import Iterator
from itertools import pairwise

from coconut_lm.collate import Batch
from coconut_lm.methods import IGNORED
from coconut_lm.tokens import LatentTokens

BEFORE, AFTER = 16, 40  # columns drawn before the first thought and after the last
LEGEND = "· padding   q question   < > markers   T thought   P pause   a learned"


def passes(batch: Batch, tokens: LatentTokens) -> list[str]:
    """Rows with a bar where a pass ends, and each pass in words."""
    return [*_drawn(batch, tokens), LEGEND, *_told(batch)]


def _drawn(batch: Batch, tokens: LatentTokens) -> Iterator[str]:
    width = batch.input_ids.shape[1]
    # Without a thought nothing divides the columns: those around the first that is learned are drawn.
    learned = int((batch.labels != IGNORED).any(0).argmax())
    around = batch.columns or range(learned, learned)
    low, high = max(0, around.start - BEFORE), min(width, around.stop + AFTER)
    bounds = list(pairwise([low, *batch.columns, high]))
    before, after = "…" if low else " ", "…" if high < width else ""
    heads = [str(number).ljust(stop - start) for number, (start, stop) in enumerate(bounds)]
    yield f"pass    {before}{'|'.join(heads)}".rstrip()
    for row in range(len(batch.input_ids)):
        cells = [
            "".join(_letter(batch, tokens, row, at) for at in range(*bound)).ljust(len(head))
            for bound, head in zip(bounds, heads, strict=True)
        ]
        yield f"row {row + 1:<4}{before}{'|'.join(cells)}{after}".rstrip()


def _letter(batch: Batch, tokens: LatentTokens, row: int, at: int) -> str:
    if not batch.attention_mask[row, at]:
        return "·"
    if batch.labels[row, at] != IGNORED:
        return "a"
    letters = {tokens.start: "<", tokens.end: ">", tokens.latent: "T", tokens.pause: "P"}
    return letters.get(int(batch.input_ids[row, at]), "q")


def _told(batch: Batch) -> Iterator[str]:
    bounds = list(pairwise([0, *batch.columns, batch.input_ids.shape[1]]))
    for number, (start, stop) in enumerate(bounds):
        span = f"column {start}" if stop == start + 1 else f"columns {start} to {stop - 1}"
        made = f"; column {start} is thought {number}, the state of column {start - 1}" if number else ""
        use = "; the loss is taken here" if stop == bounds[-1][1] else ""
        yield f"pass {number} reads {span}{made}{use}"
