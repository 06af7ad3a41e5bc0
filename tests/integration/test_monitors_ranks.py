"""Two processes, a model copied (DDP) or sharded (FSDP2): the monitors find what one process finds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RANK = """
import sys

import torch
import torch.distributed as dist
from tiny import END, EOS, LATENT, START, tiny
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from coconut_lm.monitors import monitor, window_weights

IDS = torch.tensor([[3, 9, START, LATENT, LATENT, END, 7, 8, EOS], [3, 5, 6, START, LATENT, END, 7, 8, EOS]])
BATCH = {"input_ids": IDS, "labels": IDS.where(torch.arange(9) > 5, -100), "columns": range(3, 5)}


def model():
    return tiny("qwen3", torch.float32, {"kind": "learnable_weights", "window": 3})


def gradients(model):
    found = [weight.grad for weight in model.parameters()]
    return [getattr(each, "full_tensor", lambda each=each: each)().clone() for each in found]


dist.init_process_group("gloo")
copied, sharded, expected = DistributedDataParallel(model()), model(), monitor(model(), BATCH)
for layer in sharded.base_causallm.model.layers:
    fully_shard(layer)
fully_shard(sharded, reshard_after_forward=False)
for each in (copied, sharded):
    for _ in range(2):  # a training step before and after
        found = monitor(each, BATCH)
        for name, value in expected.items():
            torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(value), rtol=1e-3, atol=1e-5)
        each(**BATCH).loss.backward()
    before = gradients(each)
    monitor(each, BATCH)
    torch.testing.assert_close(gradients(each), before, rtol=0, atol=0)
    assert sum(window_weights(each)) > 0.999 and len(window_weights(each)) == 3
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_all_ranks_see_the_same_thoughts(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK, encoding="utf-8")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
    ]
    places = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
