"""`coconut-lm run` with MLX as a user types it, killed as a machine kills, and what torch makes of it.

A process that has used MLX must not be forked: each run has a fresh one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from runs import folder, left, make_data, settings

from coconut_lm.config import Config, dump
from coconut_lm.runfolder import PREDICTIONS, lines

TESTS = Path(__file__).parents[1]
DIES = "import runs, sys; runs.at_file_operation(int(sys.argv.pop(1))); runs.cli.main()"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data(valid=6)
    Path("model.json").write_text(json.dumps({**json.loads(Path("model.json").read_text()), "n_layer": 2}))
    dump(Config(**settings(lr=1e-2)), "a.yaml")


def typed(*words: object, start: Sequence[str] = ("-m", "coconut_lm")) -> subprocess.CompletedProcess[str]:
    """`coconut-lm WORDS`."""
    return subprocess.run(
        [sys.executable, *start, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120", "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def outputs(place: Path) -> list[str]:
    return [row["output"] for row in lines(place / PREDICTIONS)]


def test_trained_on_mlx_and_examined_with_torch() -> None:
    done = typed("run", "a.yaml", "backend=mlx", "lora.dropout=0.1")
    assert done.returncode == 0, done.stderr
    assert "of them learned on mlx, 18 examples" in done.stdout
    assert "without the dropout of the model's configuration: resid_pdrop 0.1" in done.stdout
    steps, epochs = folder().logged("step"), folder().logged("epoch")
    assert len(steps) == 9 and len(epochs) == 3 and all(row["memory"] > 0 for row in steps)
    assert epochs[2]["monitors"]["norm_ratio"] > 0
    for number, backend in ((1, "torch"), (2, "mlx")):
        done = typed("eval", "runs/a", "valid.json", "--out", f"e{number}", "--backend", backend)
        assert done.returncode == 0, done.stderr
        assert outputs(Path(f"e{number}")) == outputs(folder().evaluation("epoch_3"))


@pytest.mark.parametrize("operation", [25, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_a_file_operation_it_goes_on(operation: int) -> None:
    words = ("run", "a.yaml", "backend=mlx", "save_steps=1")
    assert typed(operation, *words, start=("-c", DIES)).returncode == -9
    assert typed(*words).returncode == 0
    stopped = left()
    os.rename("runs", "before")
    assert typed(*words).returncode == 0
    assert left() == stopped
