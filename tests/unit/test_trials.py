"""Trials: rows as they come, failures counted, a study cut off at any row goes on to the same end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import UserError, add_latent_tokens, word_tokenizer
from coconut_lm.data import prosqa
from coconut_lm.evaluate import Reply, task_named
from coconut_lm.journal import PARTIAL, Journal
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.runfolder import PREDICTIONS
from coconut_lm.tokens import encode
from coconut_lm.trials import Questions, Trial, carry_out, failures, too_many, verdicts

EXAMPLES = list(prosqa.make(9, seed=1, nodes=8, edges=6, hops=3, shape="sized"))
TOKENIZER = word_tokenizer(" ".join([e.question, *e.steps, e.answer]) for e in EXAMPLES)
TOKENS = add_latent_tokens(TOKENIZER)
PROMPTS = Rows(encode(EXAMPLES, TOKENIZER), TOKENS, "coconut", Curriculum(max_latent_stage=3))
QUESTIONS = Questions(PROMPTS, EXAMPLES, TOKENIZER, task_named("prosqa"), stage=3, batch_size=4)


class Asked:
    """Answers with the gold, but to examples that break it."""

    def __init__(self, branches: int = 1, breaks: Sequence[int] = (), error: type[Exception] = RuntimeError):
        self.branches, self.breaks, self.error = branches, breaks, error
        self.batches: list[list[int]] = []

    def __call__(self, rows: Sequence[Row]) -> list[list[Reply]]:
        self.batches.append([row.index for row in rows])
        if any(row.index in self.breaks for row in rows):
            raise self.error("out of memory")
        return [[self.reply(row.index, branch) for branch in range(self.branches)] for row in rows]

    def reply(self, index: int, branch: int) -> Reply:
        ids = PROMPTS.examples[index].answer.tolist() if branch != 1 else []
        return Reply(tuple(ids[:-1]), True, (), -0.5 * branch, {"told": index})


def journal(folder: Path, **settings: Any) -> Journal:
    return Journal(folder, settings, PREDICTIONS)


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def lines(folder: Path, name: str = PREDICTIONS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_rows_have_their_trial_tags_and_notes(tmp_path: Path) -> None:
    trials = [Trial("clean", Asked()), Trial("loud", Asked(), {"scale": 2.0}, thoughts=1)]
    found = carry_out(trials, QUESTIONS, journal(tmp_path))
    assert [row["index"] for row in found["clean"]] == list(range(9))
    assert {row["thoughts"] for row in found["clean"]} == {3}
    loud = found["loud"][5]
    assert loud["scale"] == 2.0 and loud["thoughts"] == 1 and loud["told"] == 5
    assert loud["success"] and loud["error"] is None and loud["correct"]
    assert lines(tmp_path) == [*found["clean"], *found["loud"]]
    assert verdicts(found["loud"]) == dict.fromkeys(range(9), True)


def test_branches_are_rows_of_their_own_and_share_the_batch(tmp_path: Path) -> None:
    generate = Asked(branches=2)
    found = carry_out([Trial("two", generate, branches=2)], QUESTIONS, journal(tmp_path))
    assert [(row["index"], row["branch"]) for row in found["two"][:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row["correct"] for row in found["two"][:2]] == [True, False]
    assert found["two"][1]["logprob"] == -0.5
    assert max(map(len, generate.batches)) == 2  # four rows


def test_an_example_that_fails_is_recorded_and_takes_no_other_with_it(tmp_path: Path) -> None:
    generate = Asked(breaks=[4])
    found = carry_out([Trial("clean", generate)], QUESTIONS, journal(tmp_path))
    failed = [row for row in found["clean"] if not row["success"]]
    assert [row["index"] for row in failed] == [4] and failed[0]["error"] == "RuntimeError: out of memory"
    assert "correct" not in failed[0]  # never silently wrong
    assert verdicts(found["clean"]) == {index: True for index in range(9) if index != 4}
    lost = failures(found)
    assert lost == {"n": 1, "of": 9} and too_many(lost)
    assert not too_many({"n": 1, "of": 100}) and too_many({"n": 2, "of": 100})


def test_what_failed_is_asked_again_in_its_batch(tmp_path: Path) -> None:
    carry_out([Trial("clean", Asked(breaks=[4]))], QUESTIONS, journal(tmp_path))
    better = Asked()
    found = carry_out([Trial("clean", better)], QUESTIONS, journal(tmp_path))
    (batch,) = better.batches
    assert 4 in batch and len(batch) <= 4 and failures(found)["n"] == 0
    assert [row["index"] for row in lines(tmp_path)] == list(range(9))


@pytest.mark.parametrize("error", [RuntimeError, UserError])
def test_where_all_fail_it_is_no_examples_fault(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(error, match="out of memory"):
        carry_out([Trial("clean", Asked(breaks=range(9), error=error))], QUESTIONS, journal(tmp_path))
    assert not (tmp_path / PREDICTIONS).exists()


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1))
def test_cut_off_anywhere_it_comes_to_the_same_end(tmp_path_factory: Any, share: float) -> None:
    """At any byte of what was written, within an example's branches and within a line too."""
    folder = tmp_path_factory.mktemp("study")

    def trials() -> list[Trial]:
        return [Trial("clean", Asked()), Trial("many", Asked(branches=3), branches=3)]

    whole = plain(carry_out(trials(), QUESTIONS, journal(folder / "whole")) and lines(folder / "whole"))
    text = "".join(json.dumps(row) + "\n" for row in lines(folder / "whole"))
    journal(folder / "cut")
    (folder / "cut" / PARTIAL).write_text(text[: int(share * len(text))])
    carry_out(trials(), QUESTIONS, journal(folder / "cut"))
    assert plain(lines(folder / "cut")) == whole


def test_two_studies_are_never_mixed(tmp_path: Path) -> None:
    carry_out([Trial("clean", Asked())], QUESTIONS, journal(tmp_path, scale=1))
    with pytest.raises(UserError, match="another job"):
        journal(tmp_path, scale=2)
