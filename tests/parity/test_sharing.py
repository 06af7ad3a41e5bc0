"""Shards that are put together once a step or for each pass: the gradients of one process, and as many
gathers and sums as are counted when a run is planned."""

import json
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ranks
import torch
from tiny import END, EOS, LATENT, START, tiny
from torch import nn
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as groups

from coconut_lm import parallel
from coconut_lm.costs import PRECISIONS
from coconut_lm.sizing import measure
from coconut_lm.traffic import Sharing, traffic

IDS = torch.tensor(
    [
        [3, 9, START, LATENT, LATENT, LATENT, END, 7, 8, EOS],
        [3, 5, START, LATENT, LATENT, LATENT, END, 7, 8, EOS],
    ]
)
BATCH: dict[str, Any] = {
    "input_ids": IDS,
    "labels": IDS.where(torch.arange(10) > 5, -100),
    "columns": range(3, 6),
}
CPU: Any = SimpleNamespace(device=torch.device("cpu"), mixed_precision="no", num_processes=2)


def made(family: str, checkpointing: bool) -> Any:
    model = tiny(family, torch.float64).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    return model


def gradients(model: nn.Module) -> list[torch.Tensor]:
    found = [weight.grad for weight in model.parameters()]
    assert all(each is not None for each in found)
    return [getattr(each, "full_tensor", lambda each=each: each)().clone() for each in found]


def counting(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a rank gathers and sums from now on."""
    talk: Counter[str] = Counter()

    def counted(name: str) -> None:
        original = getattr(groups, name)

        def asked(*args: Any, **kwargs: Any) -> Any:
            talk[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(groups, name, asked)

    counted("foreach_all_gather")
    counted("foreach_reduce")
    return talk


def step(model: nn.Module) -> None:
    """Two micro-batches."""
    for last in (False, True):
        with parallel.gathering(model, CPU, last):
            model(**BATCH).loss.backward()


def compare(family: str, sharing: Sharing, checkpointing: bool, talk: Counter[str]) -> None:
    """What a rank finds: how far its gradients are from one process's, and what it was sent."""
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo")
    alone = made(family, checkpointing)
    for _ in range(2):
        alone(**BATCH).loss.backward()
    model = parallel.distribute(made(family, checkpointing), CPU, True)
    if sharing == "step":
        parallel.hold(model)
    step(model)
    for weight in model.parameters():
        weight.grad = None
    talk.clear()
    step(model)
    here = dict(talk)
    pairs = zip(gradients(model), gradients(alone), strict=True)
    apart = max((mine - theirs).abs().max().item() for mine, theirs in pairs)
    Path(f"found_{torch.distributed.get_rank()}").write_text(json.dumps([apart, here]))


@pytest.mark.parametrize("sharing", ["step", "shards"])
@pytest.mark.parametrize(("family", "checkpointing"), [("gpt2", False), ("llama", False), ("llama", True)])
def test_gradients_and_traffic(
    family: str, sharing: Sharing, checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    talk = counting(monkeypatch)
    assert ranks.together(2, lambda: compare(family, sharing, checkpointing, talk)) == [0, 0]
    sizes = measure(tiny(family, torch.float64))
    said = traffic(sizes, PRECISIONS["float32"], sharing, passes=4, micro=2)
    layers, root = sizes.shape.layers, 1 if sharing == "step" else 2
    for rank in (0, 1):
        apart, talk = json.loads(Path(f"found_{rank}").read_text())
        assert apart < 1e-12
        assert talk["foreach_all_gather"] == layers * said.gathers + root
        assert talk["foreach_reduce"] == layers * said.sums + 2
