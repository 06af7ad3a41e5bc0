"""A run that was interrupted, at whatever moment, ends as the one that was not: every byte of it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from runs import (
    At,
    at_file_operation,
    command,
    die,
    figures,
    folder,
    forked,
    left,
    make_data,
    settings,
    train,
)

from coconut_lm.config import Config, dump
from coconut_lm.train import Watch
from coconut_lm.trainview import Live

KILLED = -signal.SIGKILL
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "drawn stages": {"uniform_prob": 0.5, "save_steps": 2, "lr_scheduler": "cosine", "warmup_steps": 4},
    "optimizer by stage": {"reset_optimizer": "stage", "epochs_per_stage": 2, "save_steps": 1},
    "one optimizer": {"reset_optimizer": "never", "num_workers": 2, "save_steps": 2},
    "weights unused at first": {"latent_variant": "learnable_weights", "save_steps": 1}
    | {"reset_optimizer": "never"},
    "adapters": {
        "lora": {"r": 2},
        "save_steps": 2,
        "batch_size_training": 3,
        "gradient_accumulation_steps": 2,
    },
    "the best alone": {"save_only_improve": True, "keep_last": 1, "save_steps": 2},
    "a plan of steps": {"max_steps": 7, "lr_scheduler": "linear", "max_grad_norm": 1.0},
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data()


def uninterrupted(**changes: Any) -> dict[str, Any]:
    assert forked(lambda: train(**changes)) == 0
    found = left()
    shutil.rmtree(folder().path)
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["places"] == other["places"]
    assert one["figures"] == other["figures"]
    assert [name for name in one if one[name] != other.get(name)] == [] and one.keys() == other.keys()


def interrupted(
    watch: Watch | None = None, prepare: Callable[[], object] = lambda: None, **changes: Any
) -> int:
    """Its exit code: 0 is finished, 3 stopped in order."""

    def work() -> None:
        prepare()
        sys.exit(0 if train(watch, **changes) else 3)

    return forked(work)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_killed_after_a_step(changes: dict[str, Any]) -> None:
    whole = uninterrupted(**changes)
    for step in (2, 7):
        assert interrupted(At(die, step=step), **changes) == KILLED
        assert interrupted(**changes) == 0
        same(left(), whole)
        shutil.rmtree(folder().path)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_asked_to_stop(changes: dict[str, Any]) -> None:
    """At an epoch's last step, while it is validating, at the very last step: the step after is the one that
    hears of it."""
    whole = uninterrupted(**changes)
    last = max(line["step"] for line in whole["figures"])
    for moment in ({"step": 2}, {"answer": 6}, {"step": last - 1}):
        assert interrupted(At(terminated, **moment), **changes) == 3
        assert interrupted(**changes) == 0
        same(left(), whole)
        shutil.rmtree(folder().path)


def killed_at(moments: Iterable[int], **changes: Any) -> None:
    """By every one of these file operations, each in a run of its own."""
    whole = uninterrupted(**changes)
    for moment in moments:
        assert interrupted(prepare=partial(at_file_operation, moment), **changes) == KILLED
        assert interrupted(**changes) == 0
        same(left(), whole)
        shutil.rmtree(folder().path)


def test_killed_at_a_file_operation() -> None:
    """Saves, their renames, the removal of what they make superfluous: a run makes some 330."""
    killed_at(random.Random(4).sample(range(1, 330), 12), save_steps=2)


def test_asked_to_stop_at_a_file_operation() -> None:
    """While it reads, validates, saves: it ends in order, or at once where it had not begun to train."""
    changes = {"save_steps": 2}
    whole = uninterrupted(**changes)
    for moment in random.Random(7).sample(range(1, 330), 6):
        prepare = partial(at_file_operation, moment, terminated)
        assert interrupted(prepare=prepare, **changes) in (0, 3, -signal.SIGTERM)
        assert interrupted(**changes) == 0
        same(left(), whole)
        shutil.rmtree(folder().path)


@pytest.mark.slow
def test_killed_at_every_sixth_file_operation() -> None:
    killed_at(range(1, 330, 6), save_steps=2)


@pytest.mark.parametrize("variant", ["drawn stages", "the best alone"])
def test_killed_again_and_again(variant: str) -> None:
    changes = VARIANTS[variant]
    whole = uninterrupted(**changes)
    moments = random.Random(5)
    codes = [KILLED]
    while codes[-1] == KILLED and len(codes) < 50:
        codes.append(interrupted(prepare=partial(at_file_operation, moments.randint(20, 200)), **changes))
    assert codes[-1] == 0 and len(codes) > 3
    same(left(), whole)


def test_killed_while_a_checkpoint_takes_the_place_of_another() -> None:
    """An epoch that is no improvement saves at the step where the wish to stop had saved."""
    changes = {"save_only_improve": True, "num_epochs": 2}
    whole = uninterrupted(**changes)
    for rename in count(1):
        assert interrupted(At(terminated, step=5), **changes) == 3
        prepare = partial(at_file_operation, rename, events=["os.rename"])
        if interrupted(prepare=prepare, **changes) == 0:
            break
        assert interrupted(**changes) == 0
        same(left(), whole)
        shutil.rmtree(folder().path)
    assert rename > 8, "those of configuration, figures and the two checkpoints at least"


# -- the command --


def write_config(**changes: Any) -> str:
    dump(Config(**settings(**changes)), "a.yaml")
    return "a.yaml"


def at_step(step: int, act: Callable[[], object]) -> None:
    """The command's own process acts then, in a group of processes of its own."""
    os.setpgrp()
    seen = Live.step

    def see(watch: Live, record: dict[str, Any]) -> None:
        seen(watch, record)
        if len(lines_of("step")) == step:
            act()

    Live.step = see  # type: ignore[method-assign]


def signal_all(number: int) -> None:
    """As a terminal or Slurm does: from outside, to the process and to whatever it started."""

    def send() -> None:
        signal.signal(number, signal.SIG_IGN)
        os.killpg(0, number)

    assert forked(send) == 0


def interrupt_twice() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def lines_of(kind: str) -> list[dict[str, Any]]:
    return [line for line in figures() if line["kind"] == kind]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_and_says_how_to_go_on(number: int, workers: int) -> None:
    changes = {"num_workers": workers}
    whole = uninterrupted(**changes)
    config = write_config(**changes)
    done = command("run", config, prepare=partial(at_step, 4, partial(signal_all, number)))
    assert done.code == 0 and "Traceback" not in done.err
    assert f"stopped; to go on: coconut-lm run {folder().path}" in done.err.replace("\n", " ")
    assert folder().newest() == folder().step(5) and len(lines_of("step")) == 5
    again = command("run", folder().path)
    assert again.code == 0 and "epoch 2/3" in again.out and "epoch 1/3" not in again.out
    same(left(), whole)


def test_a_second_interrupt_does_not_ask() -> None:
    whole = uninterrupted()
    config = write_config()
    done = command("run", config, prepare=partial(at_step, 4, interrupt_twice))
    assert done.code == 130 and "stopped" in done.err and "Traceback" not in done.err
    assert folder().newest() == folder().checkpoint(1)
    assert command("run", config).code == 0
    same(left(), whole)


def test_a_folder_that_was_moved_goes_on() -> None:
    whole = uninterrupted()
    assert interrupted(At(terminated, step=5)) == 3
    shutil.move("runs/a", "elsewhere")
    assert command("run", "elsewhere").code == 0
    Path("runs").mkdir(exist_ok=True)
    shutil.move("elsewhere", "runs/a")
    found = left()
    assert found["figures"] == whole["figures"] and found["places"] == whole["places"]
    for name in ("model.safetensors", "state/__0_0.distcp", "state/random_0.pt"):
        assert found[f"checkpoint_3/{name}"] == whole[f"checkpoint_3/{name}"]


def test_more_epochs_go_on_from_the_last() -> None:
    whole = uninterrupted(num_epochs=4)
    config = write_config()
    assert command("run", config).code == 0
    first = (folder().checkpoint(3) / "model.safetensors").read_bytes()
    done = command("run", config, "num_epochs=4")
    assert done.code == 0 and "epoch 4/4" in done.out and "epoch 3/4" not in done.out
    assert first == (folder().checkpoint(3) / "model.safetensors").read_bytes()
    assert figures() == whole["figures"]
    name = "checkpoint_4/model.safetensors"
    assert left()[name] == whole[name]


@pytest.mark.parametrize("changes", [{}, {"max_steps": 4}], ids=["epochs", "steps"])
def test_a_finished_run_is_left_as_it_is(changes: dict[str, Any]) -> None:
    config = write_config(**changes)
    first = command("run", config)
    before = left()
    again = command("run", config)
    assert again.code == 0 and "nothing is left to train" in again.err
    assert left() == before
    assert again.out.splitlines()[-5:] == first.out.splitlines()[-5:], "the same table"


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_of_the_command() -> None:
    changes = {"save_steps": 2, "num_epochs": 30, "uniform_prob": 0.3}
    whole = uninterrupted(**changes)
    config = write_config(**changes)
    moments, kills = random.Random(6), 0
    words = [sys.executable, "-m", "coconut_lm", "run", config]
    while kills < 10:
        run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = len(figures()) if folder().metrics.exists() else 0
        while run.poll() is None and (not folder().metrics.exists() or len(figures()) <= begun):
            time.sleep(0.01)
        time.sleep(moments.random() * 0.2)
        run.kill()
        kills += run.wait() == KILLED
        if run.returncode == 0:
            break
    assert kills == 10, "it ended before; more epochs are needed"
    assert command("run", config).code == 0
    same(left(), whole)
