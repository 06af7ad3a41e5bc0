"""`coconut-lm robustness` as a user types it, on a saved tiny checkpoint."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from saved import CHECKPOINT, RUN, Typed, rows, save, stand

from coconut_lm.answer import Answerer, read
from coconut_lm.methods import Row

WORDS = [CHECKPOINT, "prosqa.json", "--max-new-tokens", "4", "--batch-size", "5"]


robustness = Typed("robustness", WORDS)
well, wrongly = robustness.well, robustness.wrongly


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand(tmp_path, monkeypatch)


def test_a_sweep_and_its_files() -> None:
    summary = well("--noise", "gaussian_scaled,targeted", "--scales", "0,.5,2")
    (place,) = Path(RUN, "robustness").iterdir()
    assert place.name.startswith("prosqa-checkpoint_4-")
    assert json.loads((place / "robustness.json").read_text()) == summary
    assert [curve["noise"] for curve in summary["curves"]] == [
        "gaussian_scaled",
        "targeted_same",
        "targeted_opposite",
    ]
    assert summary["n"] == 12 and summary["thoughts"] == 2 and summary["failed"] == {"n": 0, "of": 96}
    for curve in summary["curves"]:
        silent, half, double = curve["points"]
        assert silent["accuracy"] == summary["baselines"]["clean"] and silent["changed"]["right"] == 0
        assert silent["diagnostics"] is None
        assert half["diagnostics"]["noise_norm"] / half["diagnostics"]["original_norm"] == pytest.approx(0.5)
        assert double["diagnostics"]["noise_scale"] == 2
    trials = {row["trial"] for row in rows(place)}
    assert trials == {"clean", "without thoughts"} | {
        f"{curve['noise']} {scale}" for curve in summary["curves"] for scale in (0.5, 2)
    }
    assert [row["thoughts"] for row in rows(place) if row["trial"] == "without thoughts"] == [0] * 12


def test_the_published_schema() -> None:
    well("--noise", "targeted", "--direction", "opposite", "--scales", "0:1:.5", "--out", "swept")
    (path,) = Path("swept").glob("robustness_targeted_opposite_2*.json")
    found = json.loads(path.read_text())
    info = found["experiment_info"]
    assert info["noise_scales"] == [0, 0.5, 1] and info["latent_passes"] == 2 and info["timestamp"]
    assert (info["noise_type"], info["noise_direction"]) == ("targeted", "opposite")
    assert info["num_questions"] == len(found["questions"]) == 12
    by_trial = {(row["trial"], row["index"]): row for row in rows("swept")}
    for question in found["questions"]:
        index = question["question_id"]
        assert [test["noise_scale"] for test in question["noise_tests"]] == [0, 0.5, 1]
        for test, trial in zip(
            question["noise_tests"], ("clean", "targeted_opposite 0.5", "targeted_opposite 1"), strict=True
        ):
            row, bare = by_trial[trial, index], by_trial["without thoughts", index]
            assert test["coconut_text"] == row["output"] and test["coconut_correct"] == row["correct"]
            assert test["baseline1_text"] == test["baseline2_text"] == bare["output"]
            assert test["num_tokens"] - test["num_new_tokens"] == row["read"] and test["success"]
    rates = found["accuracy_by_noise"]
    assert set(rates) == {"0.0", "0.5", "1.0"} and rates["0.5"]["total"] == 12
    well("--noise", "targeted", "--direction", "opposite", "--scales", "0:1:.5", "--out", "swept")
    assert len([*Path("swept").glob("robustness_targeted_opposite_2*.json")]) == 1  # nothing new to tell


def test_every_kind_has_its_own_scales_and_any_batch_the_same_results() -> None:
    one = well("--noise", "all", "--out", "one", "--samples", "5")
    assert len(one["curves"]) == 8 and all(len(curve["points"]) >= 6 for curve in one["curves"])
    well("--noise", "all", "--out", "two", "--samples", "5", "--batch-size", "2")
    assert [row["extracted"] for row in rows("one")] == [row["extracted"] for row in rows("two")]


@pytest.mark.parametrize(
    "how",
    [
        ["--where", "first"],
        ["--where", "2"],
        ["--schedule", "adaptive", "--decay", ".1"],
        ["--layer", "1"],
        ["--seed", "1"],
    ],
)
def test_where_layer_schedule_and_seed_change_what_is_thought(how: list[str]) -> None:
    well("--scales", "1", "--out", "plain")
    well("--scales", "1", "--out", "other", *how)
    norms = [
        [row["thought_norms"] for row in rows(place) if row["noise_type"]] for place in ("plain", "other")
    ]
    assert norms[0] != norms[1] and len(norms[0]) == len(norms[1]) == 12


def test_the_clean_run_has_thoughts_of_the_same_layer() -> None:
    norms = {}
    for layer in ("-1", "1"):
        well("--scales", "1e-9", "--layer", layer, "--out", f"of{layer}")
        for row in rows(f"of{layer}"):
            if row["trial"] != "without thoughts":
                norms.setdefault((layer, row["index"]), []).append(row["thought_norms"])
    assert all(clean == pytest.approx(noisy, rel=1e-3) for clean, noisy in norms.values())
    assert all(norms["1", index] != norms["-1", index] for index in range(12))


def test_the_table_tells_it_all(folder: Path) -> None:
    done = robustness(*WORDS, "--scales", "0,1", "--out", "swept")
    assert done.exit_code == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "/" not in line)
    for word in ("clean", "without thoughts", "gaussian_scaled", "95 %", "n = 12", "2 thoughts", "shortcut"):
        assert word in done.stdout
    assert "files in swept" in done.stderr


def test_a_killed_sweep_goes_on_to_the_same_end(folder: Path) -> None:
    """SIGTERM in the middle, by the sweep's own process; what was found is kept and not asked again."""
    words = [*WORDS, "--noise", "gaussian", "--scales", "0,.5,1,2"]
    script = f"""
import os, signal, sys
from coconut_lm import journal, cli
keep, count = journal.Journal.keep, 0
def counted(self, found, row):
    global count
    for each in keep(self, found, row):
        count += 1
        if count == 29:
            os.kill(os.getpid(), signal.SIGTERM)
        yield each
journal.Journal.keep = counted
sys.argv = ["coconut-lm", "robustness", *{words!r}, "--out", "killed"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ})
    assert done.returncode in (130, 143, -signal.SIGTERM) and "Traceback" not in done.stderr, done.stderr
    kept = Path("killed/partial.jsonl").read_text().splitlines()
    assert len(kept) >= 29 and not Path("killed/robustness.json").exists()
    resumed = well("--noise", "gaussian", "--scales", "0,.5,1,2", "--out", "killed")
    whole = well("--noise", "gaussian", "--scales", "0,.5,1,2", "--out", "whole")
    assert rows("killed") == rows("whole")
    assert resumed | {"seconds": 0} == whole | {"seconds": 0}


def test_what_fails_is_counted_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one in a hundred is exit 1; the figures are of the others."""
    answer = Answerer._answer

    def breaks(self: Answerer, prompts: Sequence[Row], room: int) -> Any:
        if self.read is not read and any(prompt.index == 3 for prompt in prompts):
            raise RuntimeError("out of memory")
        return answer(self, prompts, room)

    words = [*WORDS, "--scales", "1", "--out", "swept"]
    with monkeypatch.context() as broken:
        broken.setattr(Answerer, "_answer", breaks)
        done = robustness(*words)
    assert done.exit_code == 1 and "1 of 36 answers failed" in done.stderr and "files in" in done.stderr
    found = json.loads(Path("swept/robustness.json").read_text())
    assert found["curves"][0]["points"][0]["failed"] == 1
    assert found["curves"][0]["points"][0]["accuracy"]["n"] == 11
    (failed,) = (row for row in rows("swept") if not row["success"])
    assert failed["index"] == 3 and failed["error"] == "RuntimeError: out of memory"
    assert well("--scales", "1", "--out", "swept")["failed"] == {"n": 0, "of": 36}
    well("--scales", "1", "--out", "whole")
    said = [
        [(row["trial"], row["index"], row["output"]) for row in rows(each)] for each in ("swept", "whole")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--noise", "gausian"], "perhaps you mean gaussian"),
        (["--noise", "structured"], "unknown noise type"),
        (["--noise", "snr", "--scales", "0,1"], "without end"),
        (["--scales", "-1"], "a number from 0 on"),
        (["--scales", "nan"], "a number from 0 on"),
        (["--scales", "inf"], "a number from 0 on"),
        (["--scales", "a"], "no numbers"),
        (["--scales", "0:1:0"], "no numbers"),
        (["--scales", "1:0:.1"], "no numbers"),
        (["--scales", ""], "no numbers"),
        (["--noise", "dropout", "--scales", "1.5"], "0 to 1"),
        (["--where", "last"], "all, first, or a number"),
        (["--where", "0"], "all, first, or a number"),
        (["--where", "3"], "no such thought"),
        (["--schedule", "linaer"], "perhaps you mean linear"),
        (["--layer", "3"], "-3 to 2"),
        (["--stage", "0"], "no thoughts"),
        (["--thoughts", "0"], "no thoughts"),
        (["--training-free", "gsm8k", "--config", "run.yaml"], "has no run"),
        (["--training-free", "gsm9k"], "unknown benchmark"),
    ],
)
def test_mistakes_are_named_before_there_are_files(words: list[str], said: str) -> None:
    assert said in " ".join(wrongly(*WORDS, *words).split())


def test_a_checkpoint_without_thoughts_and_another_sweeps_folder_are_refused() -> None:
    save("cot", method="cot")
    assert "no thoughts" in wrongly("cot", "prosqa.json")
    well("--scales", "1", "--out", "swept")
    assert "another job" in wrongly(*WORDS, "--scales", "2", "--out", "swept")
    again = robustness(*WORDS, "--scales", "2", "--out", "swept", "--force")
    assert again.exit_code == 0
