"""The scripts that measure what plans say and what two processes gain, at sizes that take no time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import planned
import pytest

PAIR = Path(__file__).parents[2] / "benchmarks" / "pair.py"


@pytest.mark.parametrize("thoughts", [0, 2, 6])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_planned_operations_are_those_that_torch_counts(thoughts: int, checkpointing: bool) -> None:
    case = planned.Case(2, 256, 2, 48, thoughts, checkpointing)
    assert planned.planned_operations(case) == pytest.approx(planned.measured_operations(case), rel=0.05)


@pytest.mark.slow
def test_memory_is_planned_and_measured() -> None:
    """In a process between: a child's highest size begins at that of its parent, and this one has grown."""
    code = "import planned; print(*next(planned.rows((planned.Case(4, 256, 16, 96, 6),)))[1:3])"
    path = os.pathsep.join([str(PAIR.parent), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    said, found = map(float, told.stdout.split())
    assert said == pytest.approx(found, rel=0.3)


@pytest.mark.slow
def test_two_processes_beside_one() -> None:
    words = [
        "--rows",
        "4",
        "--steps",
        "4",
        "--turns",
        "1",
        "--layers",
        "1",
        "--width",
        "64",
        "--thoughts",
        "2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(PAIR), *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(
        r"^\| (one|two).* \| (\d+) \| [\d.]+ \| [\d.]+ \| (\d+%)? ?\|$", done.stdout, flags=re.M
    )
    assert [(who, int(rows)) for who, rows, _ in lines] == [("one", 4), ("two", 4), ("two", 8)]
    assert [bool(share) for *_, share in lines] == [False, True, True]
