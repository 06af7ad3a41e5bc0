"""The picture shows what the batch is: no column is left out between the thoughts, every pass is told."""

import numpy as np

from coconut_lm import picture
from coconut_lm.collate import Batch, collate
from coconut_lm.methods import Row
from coconut_lm.tokens import LatentTokens

TOKENS = LatentTokens(start=90, end=91, latent=92, pause=93, eos=94, pad=94)


def row(question: int, thoughts: int, learned: int, markers: bool = True) -> Row:
    middle = [90, *[92] * thoughts, 91] if markers else []
    ids = np.array([*range(question), *middle, *range(learned)], np.int32)
    return Row(ids, question + len(middle), thoughts, question + 1 if thoughts else -1, 0)


def test_the_sketch_of_the_design() -> None:
    batch = collate([row(3, 2, 3), row(5, 2, 2)], TOKENS)
    assert picture.passes(batch, TOKENS) == [
        "pass     0     |1|2",
        "row 1    ··qqq<|T|T>aaa",
        "row 2    qqqqq<|T|T>aa·",
        picture.LEGEND,
        "pass 0 reads columns 0 to 5",
        "pass 1 reads column 6; column 6 is thought 1, the state of column 5",
        "pass 2 reads columns 7 to 11; column 7 is thought 2, the state of column 6; the loss is taken here",
    ]


def test_a_row_with_fewer_thoughts_stands_aside() -> None:
    drawn = picture.passes(collate([row(4, 3, 2), row(4, 1, 2)], TOKENS), TOKENS)
    assert drawn[1:3] == ["row 1    qqqq<|T|T|T>aa", "row 2    qqqq<|T|>|aa··"]


def test_one_pass_has_no_bar() -> None:
    drawn = picture.passes(collate([row(40, 0, 3, markers=False)], TOKENS), TOKENS)
    assert drawn[:2] == ["pass    …0", f"row 1   …{'q' * picture.BEFORE}aaa"]
    assert drawn[-1] == "pass 0 reads columns 0 to 42; the loss is taken here"


def test_long_rows_are_cut_and_say_so() -> None:
    batch: Batch = collate([row(60, 1, 60)], TOKENS)
    _, drawn, *_ = picture.passes(batch, TOKENS)
    assert drawn == f"row 1   …{'q' * (picture.BEFORE - 1)}<|T>{'a' * (picture.AFTER - 1)}…"


def test_pauses_are_drawn() -> None:
    paused = Row(np.array([1, 90, 93, 93, 91, 5], np.int32), 5, 0, -1, 0)
    assert picture.passes(collate([paused], TOKENS), TOKENS)[1] == "row 1    q<PP>a"
