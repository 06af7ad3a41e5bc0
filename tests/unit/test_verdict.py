"""What rows say, and what they do not."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.tally import rate
from coconut_lm.verdict import Voices, compared, holm, verdict

N = 200
GOLD = [f"gold {i}" for i in range(N)]
OTHER = [f"gold {(i + 1) % N}" for i in range(N)]
THEIRS = Voices(dict(enumerate(OTHER)), dict(enumerate(GOLD)))


def rows(said: Sequence[str | None], gold: Sequence[str] = GOLD) -> list[dict[str, Any]]:
    """Answers as a trial keeps them; None is a failure."""
    return [
        {"index": i, "success": each is not None, "extracted": each, "correct": each == gold[i]}
        for i, each in enumerate(said)
    ]


def mixed(share: float, others: Sequence[str] = ["wrong"] * N) -> list[str]:
    """Right in so many of the cases."""
    return [GOLD[i] if i < share * N else others[i] for i in range(N)]


CLEAN = rows(mixed(0.95))


def row(name: str, said: Sequence[str | None], **more: Any) -> dict[str, Any]:
    return {"name": name, "group": "replaced", "title": name} | compared(rows(said), CLEAN, **more)


def judged(*found: dict[str, Any], floors: Mapping[str, Any] | None = None) -> tuple[str, str]:
    told = verdict(found, rate(each["correct"] for each in CLEAN), floors or {})
    return told["used"], " ".join(told["sentences"])


# -- rows --


def test_a_row_has_the_figures_of_the_examples_that_both_answered() -> None:
    clean, after = rows(["gold 0", "gold 1", "x", "gold 3"]), rows(["gold 0", "y", None, "y"])
    found = compared(after, clean)
    assert found["accuracy"]["n"] == 3 and found["accuracy"]["right"] == 1
    assert found["difference"]["difference"] == pytest.approx(-2 / 3)
    assert found["changed"]["right"] == 2 and found["changed"]["n"] == 3
    assert found["follows"] is None and found["follows_by_chance"] is None


def test_a_row_of_failures_alone_has_no_difference() -> None:
    found = compared(rows([None, None]), rows(["gold 0", "gold 1"]))
    assert found["difference"] is None and found["accuracy"]["rate"] is None
    assert judged({"name": "zero", "title": "zero", **found})[0] == "unclear"


def test_whom_an_answer_follows_is_seen_where_both_would_say_something_else() -> None:
    clean = rows(["a", "b", "c", "d"])
    voices = Voices({0: "b", 1: "b", 2: "", 3: "e"}, {0: "a", 1: "b", 2: "c", 3: "d"})
    assert voices.at_odds == [0, 3]
    found = compared(rows(["b", "b", "", "d"]), clean, voices, rows(["b", "b", "b", "e"]))
    assert (found["follows"]["right"], found["follows"]["n"]) == (1, 2)
    assert (found["follows_by_chance"]["right"], found["follows_by_chance"]["n"]) == (2, 2)
    assert compared(clean, clean, Voices({}, {}))["follows"] is None


# -- Holm --


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_upwards_keeps_the_order_and_stays_below_bonferroni(ps: list[float]) -> None:
    corrected = holm(ps)
    for p, q in zip(ps, corrected, strict=True):
        assert p <= q <= min(1.0, p * len(ps)) + 1e-12
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [corrected[i] for i in order] == sorted(corrected)


# -- the verdict --


def test_used_where_emptied_thoughts_cost_and_answers_follow_whom_they_are_from() -> None:
    used, told = judged(
        row("dropped", mixed(0.5)),
        row("mean", mixed(0.5)),
        row("swap", mixed(0.1, OTHER), voices=THEIRS, contentless=rows(mixed(0.5))),
    )
    assert used == "yes"
    assert "Dropped: -45.0 points [" in told and "Swap: -85.0 points [" in told
    assert "the answer is then that of whom the thoughts are from in 90.0 % [" in told
    assert "with mean thoughts in 0.0 %" in told
    assert "of 3 p corrected together (Holm), 3 are below 0.05" in told


def test_not_used_where_nothing_costs_and_nothing_changes() -> None:
    same = mixed(0.95)
    names = ("dropped", "zero", "mean", "gaussian", "pause", "swap", "kv_thoughts")
    used, told = judged(*(row(name, same) for name in names))
    assert used == "no" and "Zero: +0.0 points [+0.0, +0.0]" in told
    other = [*same[:-2], "wrong again", "wrong too"]
    assert judged(*(row(name, other) for name in names))[0] == "no"


def test_few_examples_cannot_show_that_nothing_is_lost() -> None:
    few = rows(GOLD[:10])
    same = [{"name": name, "title": name, **compared(few, few)} for name in ("dropped", "swap")]
    assert same[0]["difference"]["low"] == 0  # the bootstrap alone would be sure
    told = verdict(same, rate([True] * 10), {})
    assert told["used"] == "unclear" and "cannot be excluded" in told["sentences"][2]


def test_answers_that_change_are_some_use_even_where_accuracy_stays() -> None:
    clean = rows([*GOLD[: N // 2], *["wrong"] * (N // 2)])
    after = rows([*GOLD[: N // 2], *["another"] * (N // 2)])
    found = [{"name": name, "title": name, **compared(after, clean)} for name in ("dropped", "swap")]
    assert verdict(found, rate([True, False] * 100), {})["used"] == "unclear"


@pytest.mark.parametrize(
    ("emptied", "swapped", "why"),
    [
        (mixed(0.5), mixed(0.5), "that they carry the answer is not shown"),
        (mixed(0.5), mixed(0.95), "another's do as well as one's own"),
        (mixed(0.95), mixed(0.5), "they mislead more than they are needed"),
        (mixed(0.92), mixed(0.93), "cannot be excluded"),
    ],
)
def test_what_is_not_clear_is_said(emptied: list[str], swapped: list[str], why: str) -> None:
    mean = row("mean", emptied)
    used, told = judged(mean, row("swap", swapped, voices=THEIRS, contentless=rows(emptied)))
    assert used == "unclear" and why in told


def test_half_of_the_evidence_decides_nothing() -> None:
    used, told = judged(row("dropped", mixed(0.1)))
    assert used == "unclear" and "some of that was not done" in told
    assert judged(row("swap", mixed(0.1, OTHER), voices=THEIRS))[0] == "unclear"
    used, told = judged(row("stop_1", mixed(0.1)))
    assert used == "unclear" and "Holm" not in told


def test_to_follow_by_chance_is_not_to_follow() -> None:
    """Of two options, who guesses says the other one half the time."""
    guessed = [GOLD[i] if i % 2 else OTHER[i] for i in range(N)]
    told = judged(row("zero", guessed), row("swap", guessed, voices=THEIRS, contentless=rows(guessed)))
    assert told[0] == "unclear" and "not shown" in told[1]


def test_shortcuts_are_named_where_accuracy_is_theirs() -> None:
    floors = {"first_option": rate([True] * 52 + [False] * 48), "guess": rate([True, False])}
    found = row("dropped", mixed(0.53)), row("swap", mixed(0.1, OTHER), voices=THEIRS)
    assert (
        "Without thoughts accuracy is what a shortcut reaches (first option, 52.0 %)"
        in judged(*found, floors=floors)[1]
    )
    high = {"far_from_any": rate([True] * 94 + [False] * 6)}
    told = judged(*found, floors=high)[1]
    assert "not surely above what a shortcut reaches (far from any, 94.0 %)" in told
    assert "Without thoughts accuracy" not in told
