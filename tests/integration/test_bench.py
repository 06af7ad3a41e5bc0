"""The benchmark runs as a command, at shapes that take no time, and says what it should."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECTIONS = ["steps", "padding", "answers", "memory", "plumbing", "growth", "mlx"]
QUIET = {"COLUMNS": "160", "OMP_NUM_THREADS": "1"}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--quick", "--repeats", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | QUIET)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Everything, once: what is printed, and what is written."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    done = bench("--json", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def test_every_section_is_measured_and_computes_what_the_reference_does(
    whole: tuple[str, dict[str, Any]],
) -> None:
    printed, written = whole
    assert written["whole"]
    assert list(dict.fromkeys(figure["section"] for figure in written["figures"])) == SECTIONS
    compared = [each for each in written["figures"] if each["section"] in ("steps", "answers", "mlx")]
    checked = [figure["same"] for figure in compared]
    assert len(checked) == 5 and all(checked)
    assert "A training step" in printed and "targets reached" in printed
    assert "NOT THE SAME" not in printed


def test_the_file_holds_every_sample_and_what_it_was_measured_on(whole: tuple[str, dict[str, Any]]) -> None:
    _, written = whole
    assert {"started", "cpu", "load", "threads", "packages", "git", "device"} <= set(written["machine"])
    assert written["options"]["quick"] and written["options"]["only"] == SECTIONS
    for figure in written["figures"]:
        assert figure["unit"] in ("s", "bytes", "share")
        sides = [figure[side] for side in ("ours", "reference", "plain") if side in figure]
        assert all(side["samples"] and side["median"] >= 0 for side in sides)
        assert set(figure["reached"]) == set(figure["targets"])
        assert len(figure["ratios"]) == len(sides) - 1
    memory = next(figure for figure in written["figures"] if figure["section"] == "memory")
    for sizes in memory["also"].values():
        assert 0 < sizes["imports"] < sizes["ready"] < sizes["peak"]
    waiting = [figure for figure in written["figures"] if figure["unit"] == "share"]
    assert len(waiting) == 2 and all(0 < figure["ours"]["median"] < 1 for figure in waiting)


def gpu(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | QUIET | {"PYTHON": sys.executable, "OUT": str(folder), "QUICK": "1", **environment}
    return subprocess.run([BENCHMARKS / "gpu.sh"], capture_output=True, text=True, env=given)


def test_the_gpu_script_writes_its_parts_where_it_is_told(tmp_path: Path) -> None:
    done = gpu(tmp_path / "out", DEVICE="cpu", PARTS="answers")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "bench-cpu-answers.json").read_text(encoding="utf-8"))
    assert written["machine"]["device"] == "cpu" and len(written["figures"]) == 2


def test_the_gpu_script_says_which_part_failed(tmp_path: Path) -> None:
    done = gpu(tmp_path, DEVICE="none", PARTS="answers")
    assert done.returncode == 1 and "not done or not the same: answers" in done.stderr
    assert gpu(tmp_path, PARTS="speed").returncode == 2
