"""Two processes against one, as they are started by hand: examples a second on this machine, a thread each.

The same global batch shows what cutting it costs, the same batch for each process what adding one gains.
Settings take turns; figures are medians over the steps of all turns, without the first of each run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from coconut_lm import environment
from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.runfolder import RunFolder

WARM = 3  # steps that do not count


@dataclass(frozen=True)
class Setting:
    name: str
    ranks: int
    rows: int
    """Of each rank."""


def settings(rows: int) -> tuple[Setting, ...]:
    return (
        Setting("one process", 1, rows),
        Setting("two, the same global batch", 2, rows // 2),
        Setting("two, the same batch for each", 2, rows),
    )


def furnish(options: argparse.Namespace) -> None:
    """Data, a model's shape and a configuration in this folder."""
    largest = 2 * options.rows * options.steps
    graphs = {"nodes": 12, "edges": 14, "hops": 4, "shape": "sized", "style": "symbols"}
    write_examples("train.json", list(prosqa.make(largest, seed=1, **graphs)))  # type: ignore[arg-type]
    write_examples("valid.json", list(prosqa.make(1, seed=2, **graphs)))  # type: ignore[arg-type]
    width = options.width
    shape = {"model_type": "gpt2", "n_positions": 256, "n_embd": width, "n_layer": options.layers}
    Path("model.json").write_text(json.dumps(shape | {"n_head": width // 64}), encoding="utf-8")
    config = {"method": "no_curriculum", "max_latent_stage": options.thoughts, "c_thought": 1}
    config |= {"model_id": "model.json", "tokenizer": "word", "new_token_init": "mean", "task": "prosqa"}
    config |= {"train_path": "train.json", "val_path": "valid.json", "pad_latent_to_max": True}
    config |= {"num_epochs": 1, "max_steps": options.steps, "max_new_tokens": 1, "fsdp": options.fsdp}
    Path("run.yaml").write_text(json.dumps(config), encoding="utf-8")


def seconds(setting: Setting, name: str) -> list[float]:
    """Of every step that counts."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={setting.ranks}"]
    command = [
        sys.executable,
        *(launcher if setting.ranks > 1 else []),
        "-m",
        "coconut_lm",
        "run",
        "run.yaml",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    keys = [f"name={name}", f"batch_size_training={setting.rows}"]
    subprocess.run([*command, *keys], env=environment, check=True, stdout=subprocess.DEVNULL)
    return [line["seconds"] for line in RunFolder(Path("runs", name)).logged("step")][WARM:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {
        "rows": 32,
        "steps": 15,
        "turns": 3,
        "layers": 4,
        "width": 256,
        "thoughts": 4,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--fsdp", default="off", choices=["off", "step", "full"])
    options = parser.parse_args()
    found: dict[Setting, list[float]] = {setting: [] for setting in settings(options.rows)}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        furnish(options)
        for turn in range(options.turns):
            for number, setting in enumerate(found):
                found[setting] += seconds(setting, f"{turn}-{number}")
        os.chdir("/")
    report(options, found)


def report(options: argparse.Namespace, found: dict[Setting, list[float]]) -> None:
    where = environment.describe()
    print(f"{where['started'][:10]}  {where['cpu']['name']}, {where['cpu']['cores']} cores")
    given = f"{options.layers} layers, width {options.width}, fsdp {options.fsdp}"
    print(f"torch {where['packages']['torch']}; {given}\n")
    print("| | rows a step | seconds a step | examples a second | of twice one |")
    print("|---|---|---|---|---|")
    alone = None
    for setting, each in found.items():
        took = statistics.median(each)
        rate = setting.ranks * setting.rows / took
        alone = alone or rate
        share = "" if setting.ranks == 1 else f"{rate / alone / setting.ranks:.0%}"
        print(f"| {setting.name} | {setting.ranks * setting.rows} | {took:.3f} | {rate:.1f} | {share} |")


if __name__ == "__main__":
    main()
