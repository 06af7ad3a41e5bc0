"""The benchmark runs as a command, at a shape that takes no time, and says what it should."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "benchmarks" / "bench.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), "--shape", "micro", "--threads", "1", "--repeats", "2", *arguments]
    environment = os.environ | {"COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_table_and_the_same_figures_as_json(tmp_path: Path) -> None:
    done = bench("--reference-prompts", "1", "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["same"] and figures["same_loss"]["same"]
    assert figures["same_loss"]["ours"]["gradient_norm"] > 0
    assert figures["answers"]["same"] and figures["answers"]["reference_prompts_measured"] == 1
    assert "same: yes" in done.stdout and "1 of 2 prompts measured, scaled" in done.stdout
    assert {"date", "processor", "cores", "load", "threads", "torch", "transformers"} <= set(
        figures["machine"]
    )
    for name in ("step", "memory", "answers"):
        line = figures[name]
        assert line["ours"] > 0 and line["reference"] > 0
        assert f"{line['ratio']:.2f}" in done.stdout
    for figure in figures["memory"]["processes"].values():
        assert 0 < figure["imports"] < figure["ready"] < figure["peak"]
    assert [len(samples) for samples in figures["step"]["samples"].values()] == [2, 2]


def test_columns_without_room_for_a_question_are_refused() -> None:
    done = bench("--thoughts", "30")
    assert done.returncode == 2 and "leave room for a question" in done.stderr
