"""No row of any stage is longer than what a run allows, and nothing that is learned is cut."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from coconut_lm.errors import UserError
from coconut_lm.lengths import fit, longest, opening_of
from coconut_lm.methods import METHODS, Curriculum, Rows
from coconut_lm.tokens import EncodedSet, LatentTokens, word_tokenizer

TOKENS = LatentTokens(start=900, end=901, latent=902, pause=903, eos=904, pad=904)
Sizes = list[tuple[int, list[int], int]]


def encoded(sizes: Sizes) -> EncodedSet:
    """Examples of so many tokens: question, steps, answer; every token another number."""
    pieces = [size for question, steps, answer in sizes for size in (question, *steps, answer)]
    counts = [len(steps) + 2 for _, steps, _ in sizes]
    bounds = [np.concatenate([[0], np.cumsum(each)]).astype(np.int64) for each in (pieces, counts)]
    return EncodedSet(np.arange(sum(pieces), dtype=np.int32), *bounds)


def rows_of(sizes: Sizes, method: str = "coconut", **curriculum: Any) -> Rows:
    return Rows(encoded(sizes), TOKENS, method, Curriculum(**curriculum))


SIZES = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(1, 9), max_size=5), st.integers(2, 6)),
    min_size=1,
    max_size=6,
)
CURRICULA = st.builds(
    Curriculum,
    c_thought=st.integers(0, 4),
    epochs_per_stage=st.integers(1, 2),
    max_latent_stage=st.integers(0, 4),
    pad_latent_to_max=st.booleans(),
    uniform_prob=st.sampled_from([0.0, 0.5]),
    after_last_stage=st.sampled_from(["remove_all", "hold"]),
    first_epoch=st.integers(0, 1),
)


def all_train_rows(rows: Rows) -> list[Any]:
    return [rows.train_row(index, epoch) for index in range(len(rows)) for epoch in range(12)]


@settings(deadline=None, max_examples=60)
@given(SIZES, CURRICULA, st.sampled_from(sorted(METHODS)), st.integers(5, 60), st.integers(0, 2))
def test_no_row_of_any_stage_exceeds_the_limit(
    sizes: Sizes, curriculum: Curriculum, method: str, limit: int, opening: int
) -> None:
    rows = Rows(encoded(sizes), TOKENS, method, curriculum)
    for overlong in ("drop", "truncate"):
        try:
            fitted = fit(rows, limit, overlong, opening=opening)  # type: ignore[arg-type]
        except UserError:
            assert all(each > limit for each in longest(rows))
            continue
        left = Rows(fitted.examples, TOKENS, method, curriculum)
        assert len(left) == len(fitted.kept) > 0
        assert all(len(row.input_ids) <= limit for row in all_train_rows(left))
        assert bool(fitted.account) == (fitted.examples is not rows.examples)
        for place, example in zip(fitted.kept.tolist(), fitted.examples, strict=True):
            before = rows.examples[place]
            question, short = before.question.tolist(), example.question.tolist()
            assert [s.tolist() for s in example.steps] == [s.tolist() for s in before.steps]
            assert example.answer.tolist() == before.answer.tolist()
            gone = len(question) - len(short)
            assert short == (question[:opening] + question[opening + gone :] if gone else question)
            assert short and not (gone and overlong == "drop")


@settings(deadline=None, max_examples=40)
@given(SIZES, CURRICULA, st.sampled_from(sorted(METHODS)))
def test_the_longest_row_is_one_that_can_be_drawn_and_none_is_longer(
    sizes: Sizes, curriculum: Curriculum, method: str
) -> None:
    rows = Rows(encoded(sizes), TOKENS, method, curriculum)
    found = longest(rows)
    for row in all_train_rows(rows):
        assert len(row.input_ids) <= found[row.index]


def test_more_is_not_dropped_than_need_be() -> None:
    rows = rows_of([(5, [4], 3), (6, [4], 3), (7, [], 3)], "cot")
    fitted = fit(rows, 12)
    assert fitted.kept.tolist() == [0, 2]
    assert fitted.account == "dropped 1 of 3 examples, whose rows are longer than 12 tokens"
    assert [len(each) for each in (fitted.examples[1].question, fitted.examples[1].answer)] == [7, 3]


def test_thoughts_count_and_a_final_stage_alone_is_its_own() -> None:
    sizes: Sizes = [(5, [4, 4], 3)]  # with all steps 16 + 2 markers, in the end 8 + 2 + 6 thoughts
    staged = rows_of(sizes, c_thought=2, max_latent_stage=3)
    assert longest(staged).tolist() == [18]
    alone = rows_of(sizes, "no_curriculum", c_thought=2, max_latent_stage=3)
    assert longest(alone).tolist() == [16]
    assert longest(rows_of(sizes, c_thought=5, max_latent_stage=2)).tolist() == [20]


def test_a_models_positions_are_a_limit_too() -> None:
    rows = rows_of([(5, [4], 3), (9, [4], 3)], "cot")
    assert fit(rows, None).examples is rows.examples
    assert fit(rows, None, positions=12).kept.tolist() == [0]
    assert fit(rows, 20, positions=12).kept.tolist() == [0]
    assert fit(rows, 12, positions=20).kept.tolist() == [0]


def test_truncating_keeps_the_end_of_a_question_and_drops_what_it_cannot_help() -> None:
    rows = rows_of([(9, [4], 3), (2, [9], 9)], "cot")
    fitted = fit(rows, 13, "truncate", opening=1)
    assert fitted.examples[0].question.tolist() == [0, *range(4, 9)]
    assert fitted.account == (
        "shortened the questions of 1 and dropped 1 of 2 examples, whose rows are longer than 13 tokens"
    )


def test_errors_name_the_worst_example() -> None:
    rows = rows_of([(9, [4], 3), (2, [9], 9)], "cot")
    with pytest.raises(UserError, match=r"2 of 2 examples(.|\n)*20 tokens in example 2(.|\n)*at most 15"):
        fit(rows, 15, "error")
    with pytest.raises(UserError, match="rows that are too long"):
        fit(rows, 5, "drop")
    assert fit(rows, 20, "error").account == ""


def test_the_opening_of_a_tokenizer() -> None:
    tokenizer = word_tokenizer(["a b c"])
    assert opening_of(tokenizer) == 0
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A <eos>", special_tokens=[("<eos>", 0)]
    )
    assert opening_of(tokenizer) == 1
