"""The curriculum and the eight methods."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.errors import UserError
from coconut_lm.methods import METHODS, Curriculum, Icot, Row, Rows
from coconut_lm.tokens import EncodedSet, LatentTokens

S, E, T, P, EOS = 90, 91, 92, 93, 99  # start, end, thought, pause, end of text
TOKENS = LatentTokens(S, E, T, P, EOS, EOS)


def encoded(*examples: list[list[int]]) -> EncodedSet:
    """Each example: question, steps, answer."""
    pieces = [piece for example in examples for piece in example]
    return EncodedSet(
        np.array([token for piece in pieces for token in piece], np.int32),
        np.cumsum([0, *map(len, pieces)]),
        np.cumsum([0, *map(len, examples)]),
    )


Q, STEPS, A = [1, 2], [[10], [20, 21], [30]], [50, EOS]
SET = encoded([Q, *STEPS, A], [[3], [40], [51, EOS]], [[4, 4, 4], [52, EOS]])


def rows(method: str = "coconut", examples: EncodedSet = SET, seed: int = 0, **curriculum: Any) -> Rows:
    return Rows(examples, TOKENS, method, Curriculum(**curriculum), seed=seed)


def ids(row: Row) -> list[int]:
    return row.input_ids.tolist()


COCONUT = {
    0: [*Q, S, E, 10, 20, 21, 30, *A],
    1: [*Q, S, T, T, E, 20, 21, 30, *A],
    2: [*Q, S, T, T, T, T, E, 30, *A],
    3: [*Q, S, T, T, T, T, E, *A],
}


@pytest.mark.parametrize("stage", COCONUT)
def test_the_rows_of_every_method(stage: int) -> None:
    """Two latent stages, two thoughts a step, three steps."""
    got = {name: rows(name, c_thought=2, max_latent_stage=2).row(0, stage) for name in METHODS}
    left = COCONUT[stage][COCONUT[stage].index(E) + 1 :]
    expected = {
        "cot": [*Q, 10, 20, 21, 30, *A],
        "no_cot": [*Q, *A],
        "no_thoughts": [*Q, *left],
        "coconut": COCONUT[stage],
        "no_curriculum": COCONUT[stage],
        "pause_as_thought": [P if token == T else token for token in COCONUT[stage]],
        "pause": [*Q, P, P, P, P, *A],
        "icot": [*Q, *[10, 20, 21, 30][stage:], *A],
    }
    assert {name: ids(row) for name, row in got.items()} == expected
    for name, row in got.items():
        thoughts = COCONUT[stage].count(T) if name in ("coconut", "no_curriculum") else 0
        assert (row.thoughts, row.first) == (thoughts, len(Q) + 1 if thoughts else -1), name
        learned = ids(row)[row.supervised_from :]
        assert learned == [t for t in expected[name] if t not in (*Q, S, E, T, P)], name
        assert row.labels.tolist() == [-100] * row.supervised_from + learned, name


def test_prompts_end_where_learning_starts() -> None:
    for name in METHODS:
        made = rows(name, c_thought=2, max_latent_stage=2)
        for stage in range(4):
            row, prompt = made.row(0, stage), made.prompt(0, stage)
            assert ids(prompt) == ids(row)[: row.supervised_from]
            assert (prompt.thoughts, prompt.first, prompt.index) == (row.thoughts, row.first, 0)
            assert set(prompt.labels.tolist()) == {-100}


def test_a_short_example_without_padding_to_the_maximum() -> None:
    """Training counts steps it lacks while stages are latent; prompts never do."""
    padded = rows(max_latent_stage=3)
    exact = rows(max_latent_stage=3, pad_latent_to_max=False)
    assert [padded.row(1, stage).thoughts for stage in range(5)] == [0, 1, 2, 3, 3]
    assert [exact.row(1, stage).thoughts for stage in range(5)] == [0, 1, 2, 3, 1]
    assert [padded.prompt(1, stage).thoughts for stage in range(5)] == [0, 1, 2, 3, 3]
    assert [exact.prompt(1, stage).thoughts for stage in range(5)] == [0, 1, 1, 1, 1]
    assert ids(exact.row(2, 4)) == [4, 4, 4, S, E, 52, EOS]


def test_thoughts_can_be_overridden() -> None:
    made = rows(max_latent_stage=2, c_thought=2)
    assert [made.prompt(0, 9, thoughts=n).thoughts for n in (0, 1, 7)] == [0, 1, 7]
    assert made.prompt(0, 9, thoughts=0).first == -1
    assert ids(rows("pause").prompt(0, 0, thoughts=2)) == [*Q, P, P]
    assert ids(rows("cot").prompt(0, 0, thoughts=0)) == Q
    for method, thoughts in (("cot", 1), ("coconut", -1)):
        with pytest.raises(UserError, match="impossible thoughts"):
            rows(method).prompt(0, 0, thoughts=thoughts)


def test_pause_tokens_can_be_given() -> None:
    assert ids(rows("pause", pause_tokens=3, max_latent_stage=1).row(0, 0)) == [*Q, P, P, P, *A]
    assert ids(rows("pause", pause_tokens=0, max_latent_stage=1).row(0, 0)) == [*Q, *A]


def test_what_is_missing_or_unknown_is_named() -> None:
    without = LatentTokens(S, E, T, None, EOS, EOS)
    for method in ("pause", "pause_as_thought"):
        with pytest.raises(UserError, match="pause"):
            Rows(SET, without, method)
    with pytest.raises(UserError, match="no_curriculum"):
        Rows(SET, without, "coconuts")


@pytest.mark.parametrize(
    ("curriculum", "stages"),
    [
        ({"epochs_per_stage": 3, "max_latent_stage": 3}, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]),
        ({"max_latent_stage": 1, "after_last_stage": "hold"}, [0, 1, 1, 1]),
        # Epochs counted from one: one epoch of stage 0, then two of each, and the last stage held.
        (
            {"epochs_per_stage": 2, "max_latent_stage": 3, "first_epoch": 1, "after_last_stage": "hold"},
            [0, 1, 1, 2, 2, 3, 3, 3],
        ),
    ],
)
def test_the_stages_of_epochs(curriculum: dict[str, Any], stages: list[int]) -> None:
    made = rows(**curriculum)
    assert [made.stage(epoch) for epoch in range(len(stages))] == stages
    assert [made.stage(epoch + 0.99) for epoch in range(len(stages))] == stages
    assert {rows("cot", **curriculum).stage(epoch) for epoch in range(9)} == {0}
    assert {rows("no_curriculum", **curriculum).stage(epoch) for epoch in range(9)} == {stages[-1]}


def test_holding_keeps_the_steps_that_are_left() -> None:
    hold = rows(max_latent_stage=2, after_last_stage="hold")
    assert ids(hold.row(0, 7)) == ids(hold.row(0, 2)) == [*Q, S, T, T, E, 30, *A]
    assert ids(hold.row(0, hold.stage(7))) == ids(hold.row(0, 2))
    exact = rows(max_latent_stage=2, after_last_stage="hold", pad_latent_to_max=False)
    assert ids(exact.row(1, 7)) == ids(exact.row(1, 2)) == [3, S, T, T, E, 51, EOS]


def test_icot_removes_tokens_as_the_epoch_goes_on() -> None:
    made = rows("icot", icot=Icot(remove_per_epoch=2, smoothing=50.0, remove_all_after=4))
    left = [len(made.train_row(0, epoch).input_ids) - len(Q) - len(A) for epoch in (0, 0.49, 0.5, 1, 1.5, 2)]
    assert left == [4, 4, 3, 2, 1, 0]
    many = encoded([Q, list(range(200)), A])
    late = rows("icot", many, icot=Icot(remove_per_epoch=8, remove_all_after=40))
    assert len(late.train_row(0, 4.8).input_ids) > len(Q) + len(A) + 100
    assert ids(late.train_row(0, 5)) == [*Q, *A]


def test_icot_is_not_a_token_late_for_a_rounding_error() -> None:
    assert 0.29 * 100 < 29
    assert rows("icot", icot=Icot(remove_per_epoch=100)).stage(0.29) == 29


def drawn(made: Rows, epoch: float, n: int = 4000) -> Counter[int]:
    """How many reasoning tokens (of 3, each a step) were removed, over many examples."""
    return Counter(
        3 - len(ids(made.train_row(i, epoch))[made.train_row(i, epoch).supervised_from :]) + len(A)
        for i in range(n)
    )


MANY = encoded(*[[Q, [10], [20], [30], A]] * 4000)


def near(count: int, expected: float, n: int = 4000) -> bool:
    """Within five standard deviations."""
    return abs(count - n * expected) < 5 * np.sqrt(n * expected * (1 - expected))


def test_uniform_prob_draws_any_number_of_steps() -> None:
    counts = drawn(rows("coconut", MANY, max_latent_stage=3, uniform_prob=0.4), epoch=1)
    for stage in range(4):
        assert near(counts[stage], 0.1 + 0.6 * (stage == 1))


def test_uniform_prob_counts_the_steps_of_each_example() -> None:
    made = rows(max_latent_stage=3, uniform_prob=1.0)
    for index, most in ((0, 3), (1, 1), (2, 0)):
        thoughts = {made.train_row(index, epoch).thoughts for epoch in range(60)}
        assert thoughts == set(range(most + 1))


def test_proportional_draws_earlier_stages_less() -> None:
    made = rows("no_thoughts", MANY, max_latent_stage=3, stage_mix="proportional", uniform_prob=0.9)
    counts = drawn(made, epoch=2)
    for stage in range(3):
        assert near(counts[stage], (stage + 1) / 6)
    assert counts[3] == 0


def test_icot_smoothing_is_geometric() -> None:
    counts = drawn(rows("icot", MANY, icot=Icot(smoothing=1.0)), epoch=0)
    for extra in range(3):
        assert near(counts[extra], (1 - np.exp(-1)) * np.exp(-extra))


def test_without_draws_training_rows_are_the_scheduled_ones() -> None:
    for method in set(METHODS) - {"icot"}:
        made = rows(method, max_latent_stage=2)
        for epoch in range(4):
            assert ids(made.train_row(0, epoch)) == ids(made.row(0, made.stage(epoch)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.integers(0, 9), st.permutations(range(40)))
def test_draws_depend_on_seed_epoch_and_example_alone(seed: int, epoch: int, order: list[int]) -> None:
    settings_ = {"max_latent_stage": 9, "uniform_prob": 1.0}
    made, again = rows("coconut", MANY, seed, **settings_), rows("coconut", MANY, seed, **settings_)
    forwards = {i: made.train_row(i, epoch).thoughts for i in range(40)}
    assert {i: again.train_row(i, epoch).thoughts for i in order} == forwards
    assert {i: made.train_row(i, epoch + 1).thoughts for i in order} != forwards
    other = rows("coconut", MANY, seed + 1, **settings_)
    assert {i: other.train_row(i, epoch).thoughts for i in order} != forwards


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(METHODS)),
    st.lists(st.integers(0, 4), max_size=5),
    st.builds(
        Curriculum,
        c_thought=st.integers(0, 3),
        epochs_per_stage=st.integers(1, 3),
        max_latent_stage=st.integers(0, 4),
        pad_latent_to_max=st.booleans(),
        uniform_prob=st.floats(0, 1),
        stage_mix=st.sampled_from(["uniform", "proportional"]),
        after_last_stage=st.sampled_from(["remove_all", "hold"]),
    ),
    st.floats(0, 12),
)
def test_any_row_is_question_slots_rest_of_reasoning_answer(
    method: str, lengths: list[int], curriculum: Curriculum, epoch: float
) -> None:
    reasoning = [list(range(10 * n, 10 * n + length)) for n, length in enumerate(lengths, start=1)]
    made = Rows(encoded([Q, *reasoning, A]), TOKENS, method, curriculum)
    row = made.train_row(0, epoch)
    head, rest = ids(row)[: row.supervised_from], ids(row)[row.supervised_from :]
    assert head[:2] == Q and rest[-2:] == A and row.input_ids.dtype == np.int32
    whole = sum(reasoning, [])
    assert rest[:-2] == whole[len(whole) - len(rest) + 2 :]
    assert head.count(T) == row.thoughts and (head[row.first] == T if row.thoughts else row.first == -1)
    assert set(head[2:]) <= {S, E, T, P} and not set(rest) & {S, E, T, P}
    assert len(made.train_row(0, epoch + 50).input_ids) <= len(Q) + 14 + len(whole) + len(A)


def test_a_curriculum_is_read_off_a_configuration() -> None:
    config = SimpleNamespace(**{**vars(Curriculum(c_thought=2, max_latent_stage=3)), "lr": 1e-4})
    assert Curriculum.of(config) == Curriculum(c_thought=2, max_latent_stage=3)
