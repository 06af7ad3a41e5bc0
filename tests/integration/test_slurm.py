"""The batch scripts, with stand-ins for what Slurm and torch would do."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "slurm"
TRAINING = ["train.sbatch", "train-multinode.sbatch"]
STUDIES = ["noise.sbatch", "branches.sbatch"]

# Says what it was asked for. STOP: is told by the shell above to stop, and does so in order.
SRUN = r"""#!/bin/bash
printf '%s\n' "$*" >> log
if [ -n "${STOP:-}" ]; then
  tail -f /dev/null & training=$!
  trap 'echo saved >> log; kill $training; exit 143' TERM
  echo $$ > pid
  kill -TERM "$PPID"
  wait
fi
exit "${CODE:-0}"
"""
SCANCEL = """#!/bin/bash
echo "scancel $*" >> log
kill -TERM "$(cat pid)"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo n1; echo n2; else echo "scontrol $*" >> log; fi
"""
STANDS_IN = {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}


def run(folder: Path, script: str, *words: str, **environment: str) -> tuple[int, list[str]]:
    """The exit code, and what was asked for, line by line."""
    for name, text in STANDS_IN.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    given = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "70001",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        **environment,
    }
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *words], cwd=folder, env=given, capture_output=True, timeout=60
    )
    log = folder / "log"
    return done.returncode, log.read_text().splitlines() if log.exists() else []


def test_they_are_all_here_and_are_bash() -> None:
    found = sorted(path.name for path in SCRIPTS.iterdir())
    assert found == sorted([*TRAINING, *STUDIES, "eval.sbatch"])
    for name in found:
        subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=True)
        text = (SCRIPTS / name).read_text()
        assert "#SBATCH --requeue\n" in text
        assert not re.search(r"--account|--partition|/home|/scratch", text), "those are of one place"


def test_one_machine(tmp_path: Path) -> None:
    code, asked = run(tmp_path, "train.sbatch", "a b.yaml", "lr=1e-5")
    assert code == 0
    assert asked == ["torchrun --standalone --nproc-per-node 4 -m coconut_lm run a b.yaml lr=1e-5"]


def test_several_machines_meet_at_the_first(tmp_path: Path) -> None:
    code, (asked,) = run(tmp_path, "train-multinode.sbatch", "x.yaml", "fsdp=full")
    assert code == 0
    assert "--nnodes 2 --nproc-per-node 4" in asked and "--rdzv-endpoint n1:30001 --rdzv-id 70001" in asked
    assert asked.endswith("-m coconut_lm run x.yaml fsdp=full")


def test_a_recipe_on_one_gpu(tmp_path: Path) -> None:
    code, asked = run(
        tmp_path, "noise.sbatch", "configs/variants/noise/test.sh", "org/model", "--samples", "2"
    )
    assert (code, asked) == (0, ["sh configs/variants/noise/test.sh org/model --samples 2"])


def test_branches_with_a_seed_each(tmp_path: Path) -> None:
    words = ("runs/a b", "d.json", "--scales", ".5")
    command = "python -m coconut_lm branches runs/a b d.json --scales .5 --seed"
    assert run(tmp_path, "branches.sbatch", *words) == (0, [f"{command} 0"])
    assert run(tmp_path, "branches.sbatch", *words, SLURM_ARRAY_TASK_ID="3")[1][-1] == f"{command} 3"


def test_one_of_an_array_stops_and_queues_alone(tmp_path: Path) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "70001", "SLURM_ARRAY_TASK_ID": "3"}
    code, asked = run(tmp_path, "branches.sbatch", "runs/a", "d.json", STOP="1", **array)
    assert code == 0 and asked[1:] == ["scancel --signal=TERM 70001_3", "saved", "scontrol requeue 70001_3"]


@pytest.mark.parametrize("script", [*TRAINING, *STUDIES])
def test_a_failure_is_one_and_is_not_tried_again(tmp_path: Path, script: str) -> None:
    code, asked = run(tmp_path, script, "x.yaml", "y", CODE="2")
    assert code == 2 and not any("requeue" in line for line in asked)


@pytest.mark.parametrize("script", [*TRAINING, *STUDIES])
def test_told_to_stop_it_saves_and_queues_again(tmp_path: Path, script: str) -> None:
    code, asked = run(tmp_path, script, "x.yaml", "y", STOP="1")
    assert code == 0
    assert asked[1:] == ["scancel --signal=TERM 70001", "saved", "scontrol requeue 70001"]


@pytest.mark.parametrize("script", [*TRAINING, *STUDIES, "eval.sbatch"])
def test_without_arguments_it_says_how(tmp_path: Path, script: str) -> None:
    code, asked = run(tmp_path, script)
    assert code != 0 and asked == []


def test_an_array_evaluates_a_checkpoint_each(tmp_path: Path) -> None:
    for epochs in (2, 10, 9):
        (tmp_path / "my run" / "checkpoints" / f"checkpoint_{epochs}").mkdir(parents=True)
    code, asked = run(tmp_path, "eval.sbatch", "my run", "d.json", "--json", SLURM_ARRAY_TASK_ID="2")
    assert (code, asked) == (
        0,
        ["python -m coconut_lm eval my run/checkpoints/checkpoint_10 d.json --json"],
    )
    assert run(tmp_path, "eval.sbatch", "my run", "d.json", SLURM_ARRAY_TASK_ID="3") == (0, asked)
