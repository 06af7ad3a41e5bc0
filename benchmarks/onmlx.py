"""A training step on MLX against ours with torch: the same weights, batch and optimizer, as the trainer asks
for it."""

from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from clock import interleaved
from figure import Figure, Job
from steps import TOLERANCE
from workload import MICRO, SMALL, TINY, Work, our_model

from coconut_lm import backend
from coconut_lm.assembly import Loaded
from coconut_lm.config import Config
from coconut_lm.engine import Engine, torch_engine
from coconut_lm.feed import Share
from coconut_lm.methods import Curriculum

WORKS = [Work(TINY, 32, 92, 0), Work(TINY, 32, 92, 4), Work(TINY, 128, 80, 6), Work(SMALL, 2, 90, 6)]
QUICK = [Work(MICRO, 2, 24, 2)]


def measure(job: Job) -> Iterator[Figure]:
    """Nothing where MLX is not installed."""
    if not backend.mlx_is_there():
        return
    for work in QUICK if job.quick else WORKS:
        job.say(f"a training step on MLX: {work}")
        yield _measure(work, job)


def _measure(work: Work, job: Job) -> Figure:
    batch = work.batch()
    share = Share((batch,), work.rows * work.supervised, work.rows * work.columns)
    sides = {"torch": _engine(work, "torch"), "mlx": _engine(work, "mlx")}
    sides["mlx, compiled"] = _engine(work, "mlx", compile=True)
    found = {name: _known(engine, share) for name, engine in sides.items()}
    steps = {name: lambda engine=engine: _step(engine, share) for name, engine in sides.items()}
    seconds = interleaved(steps, job.effort, job.device)
    return Figure(
        "mlx",
        str(work),
        "s",
        ours=seconds["mlx"],
        plain=seconds["torch"],
        same=_same(found["torch"], found["mlx"]) and _same(found["torch"], found["mlx, compiled"]),
        also={
            "loss, gradient norm": found,
            **{f"tokens/s, {name}": share.tokens / median(each) for name, each in seconds.items()},
            "compiled of not": median(seconds["mlx, compiled"]) / median(seconds["mlx"]),
        },
    )


def _engine(work: Work, which: str, **how: Any) -> Engine:
    """What trains, with weights of its own, the same as those of the others."""
    model = our_model(work.net, torch.device("cpu"))
    settings: dict[str, Any] = {
        "model_id": work.net.name,
        "lr": 1e-4,
        "weight_decay": 0.01,
        "backend": which,
    } | how
    config = Config(method="coconut", **settings)
    loaded = Loaded(model, None, work.net.tokens, "coconut", Curriculum())
    accelerator = Accelerator(cpu=True)
    if which == "torch":
        engine: Engine = torch_engine(config, loaded, accelerator, sharded=False)
    else:
        from coconut_lm.mlx.train import MlxEngine

        engine = MlxEngine(config, loaded, accelerator, note=lambda text: None)
    engine.renew()
    engine.begin()
    return engine


def _known(engine: Engine, share: Share) -> tuple[float, float]:
    found = engine.gradient(share, False)
    engine.learn(0.0)  # the rate decays nothing then, either
    return found.loss, found.norm


def _step(engine: Engine, share: Share) -> None:
    engine.gradient(share, False)
    engine.learn(1e-4)


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    tolerance = TOLERANCE[False]
    return abs(one[0] - other[0]) < tolerance and abs(one[1] / other[1] - 1) < tolerance
