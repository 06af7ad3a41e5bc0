"""What the benchmark makes of its samples: ratios, targets, tables, and an end that comes early."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench
import clock
import pytest
import recorded
import torch
from clock import Effort
from figure import Figure, Job
from quiz import Quiz
from rich.console import Console
from tables import table, verdict
from workload import MICRO, Work

CPU = torch.device("cpu")


def test_seconds_are_compared_as_how_many_times_faster() -> None:
    figure = Figure("steps", "a", "s", [2.0, 1.0, 9.0], [10.0], targets={"reference": 5.0})
    assert figure.ratio("reference") == 5.0 and figure.reached("reference")
    assert not Figure("steps", "a", "s", [2.1], [10.0], targets={"reference": 5.0}).reached("reference")


def test_the_plain_pass_and_bytes_are_compared_as_a_part_of_the_other() -> None:
    step = Figure("steps", "a", "s", [1.05], plain=[1.0], targets={"plain": 1.05})
    assert step.ratio("plain") == 1.05 and step.reached("plain")
    assert not Figure("steps", "a", "s", [1.06], plain=[1.0], targets={"plain": 1.05}).reached("plain")
    memory = Figure("memory", "a", "bytes", [41.0], [100.0], targets={"reference": 0.4})
    assert memory.ratio("reference") == 0.41 and memory.reached("reference") is False


def test_what_was_not_measured_is_not_judged() -> None:
    figure = Figure("steps", "a", "s", [1.0], targets={"reference": 5.0})
    assert figure.ratio("reference") is None and figure.reached("reference") is None
    assert figure.to_json()["reached"] == {"reference": None}
    assert verdict([figure]) == "0 of 0 targets reached"


def test_targets_that_were_missed_are_named() -> None:
    missed = Figure("steps", "slow", "s", [2.0], [4.0], [1.0], targets={"reference": 2.0, "plain": 1.3})
    said = verdict([missed, Figure("answers", "odd", "s", [1.0], same=False)])
    assert "1 of 2 targets reached" in said
    assert "steps: slow: 2.00 to plain, at most 1.3" in said and "NOT THE SAME" in said and "odd" in said


def test_a_table_has_the_columns_that_its_figures_fill() -> None:
    console = Console(width=160, file=io.StringIO())
    figures = [Figure("growth", "a", "s", [0.002], plain=[0.001]), Figure("growth", "b", "s", [1.0])]
    console.print(table("growth", figures))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ours/plain" in text and "2.00" in text and "2 ms" in text
    assert "reference" not in text and "target" not in text


@pytest.mark.parametrize(
    ("turns", "seconds", "enough"),
    [(2, 999.0, False), (3, 999.0, True), (4, 10.0, False), (5, 1.0, False), (5, 2.5, True), (50, 1.0, True)],
)
def test_samples_are_enough(turns: int, seconds: float, enough: bool) -> None:
    assert Effort(repeats=5, least=2.0, patience=180.0).enough(turns, seconds) is enough


def test_fast_sides_run_more_often_than_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    lasts = {"ours": 0.1, "reference": 1.0}
    ran: list[str] = []

    def stopwatch(work: Callable[[], str], device: torch.device) -> tuple[float, str]:
        ran.append(work())
        return lasts[ran[-1]], ran[-1]

    monkeypatch.setattr(clock, "timed", stopwatch)
    sides = {"ours": lambda: "ours", "reference": lambda: "reference"}
    samples = clock.interleaved(sides, Effort(repeats=2, least=0.0), CPU)
    assert samples == {"ours": [0.1] * 10, "reference": [1.0] * 2}
    assert ran[2:8] == ["ours", "reference", "ours", "ours", "ours", "ours"]


def test_rows_of_a_step_have_no_padding_and_the_thoughts_they_are_named_for() -> None:
    batch = Work(MICRO, rows=3, columns=24, thoughts=4).batch()
    assert batch.attention_mask.all() and batch.input_ids.shape == (3, 24)
    assert ((batch.input_ids == MICRO.tokens.latent).sum(1) == 4).all()
    assert len(batch.columns) == 4 and ((batch.labels >= 0).sum(1) == 8).all()


def test_made_examples_have_the_recorded_lengths() -> None:
    lengths = recorded.gsm8k()
    assert len(lengths) == 500 and len(recorded.prosqa()) == 300
    made = recorded.made(lengths, vocabulary=7)
    seventh = made[7]
    assert [len(seventh.question), *map(len, seventh.steps), len(seventh.answer)] == lengths[7]
    assert len(made) == 500 and made.ids.min() >= 0 and made.ids.max() < 7


def test_answers_end_at_lengths_that_prompts_say() -> None:
    quiz = Quiz(MICRO, prompts=300, most=64, ends=True)
    assert min(quiz.written) == 5 and max(quiz.written) == 64 and len(set(quiz.written)) > 50
    assert sum(quiz.share(index) for index in range(300)) == pytest.approx(1)
    assert set(Quiz(MICRO, prompts=3, most=64, ends=False).written) == {64}


def run(monkeypatch: pytest.MonkeyPatch, file: Path, measure: Any) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(bench, "SECTIONS", {"one": measure, "two": measure})
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")  # as it was, afterwards
    code = bench.main(["--only", "one", "--json", str(file)])
    return code, json.loads(file.read_text(encoding="utf-8"))


def test_sections_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        bench.command_line(["--only", "steps,speed"])
    assert refused.value.code == 2 and "no section speed" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        bench.command_line(["--device", "cuda"])
    assert "no device cuda here" in capsys.readouterr().err


def test_an_interrupted_run_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(job: Job) -> Iterator[Figure]:
        yield Figure("one", "the first", "s", [1.0])
        raise KeyboardInterrupt

    code, written = run(monkeypatch, tmp_path / "figures.json", measure)
    assert code == 130 and not written["whole"]
    assert [figure["name"] for figure in written["figures"]] == ["the first"]
    printed = capsys.readouterr().out
    assert "the first" in printed and "interrupted" in printed


def test_another_result_than_the_references_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(job: Job) -> Iterator[Figure]:
        yield Figure("one", "odd", "s", [1.0], same=False)

    code, written = run(monkeypatch, tmp_path / "figures.json", measure)
    assert code == 1 and written["whole"]
