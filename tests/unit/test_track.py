"""Figures of a run: whole lines of strict JSON, cut back on resuming, and the trackers beside them."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import Config, UserError, track
from coconut_lm.runfolder import RunFolder, lines
from coconut_lm.track import Tracker, known_as

LAUNCH = [sys.executable, "-c"]


def config(**more: Any) -> Config:
    return Config(method="coconut", model_id="tiny", project="thoughts", name="one", **more)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "one")


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    return list(lines(folder.metrics))


# -- metrics.jsonl --


def test_a_figure_is_a_line(folder: RunFolder) -> None:
    with Tracker(folder, config()) as tracker:
        tracker.log("step", step=1, loss=0.25)
        assert rows(folder) == [{"kind": "step", "step": 1, "loss": 0.25}]
        tracker.log("epoch", epoch=0, step=1, window=(0.5, 0.5), monitors={"cosine": None})
    assert folder.metrics.read_bytes().count(b"\n") == 2
    assert rows(folder)[1]["monitors"] == {"cosine": None} and rows(folder)[1]["window"] == [0.5, 0.5]


def test_numbers_of_numpy_and_torch_are_numbers(folder: RunFolder) -> None:
    import torch

    with Tracker(folder, config()) as tracker:
        tracker.log("step", step=np.int64(3), loss=torch.tensor(0.5), window=torch.ones(2))
    assert rows(folder) == [{"kind": "step", "step": 3, "loss": 0.5, "window": [1.0, 1.0]}]


def test_what_is_not_finite_is_null_and_named(folder: RunFolder) -> None:
    with Tracker(folder, config()) as tracker:
        tracker.log("step", step=1, loss=math.nan, monitors={"norms": [1.0, -math.inf]})
    assert rows(folder) == [
        {
            "kind": "step",
            "step": 1,
            "loss": None,
            "monitors": {"norms": [1.0, None]},
            "not_finite": {"loss": "nan", "monitors/norms/1": "-inf"},
        }
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(min_size=1), json_values, max_size=4))
def test_whatever_is_logged_is_strict_json(values: dict[str, Any]) -> None:
    odd: dict[str, str] = {}
    again = json.loads(json.dumps(track._cleaned(values, "", odd), allow_nan=False))
    assert bool(odd) == ("NaN" in (text := json.dumps(values)) or "Infinity" in text) or _spelt(values)
    if not odd:
        assert again == values


def _spelt(values: Any) -> bool:
    """Text may hold the words as well."""
    return any(word in str(values) for word in ("NaN", "Infinity"))


def test_another_process_writes_nothing(folder: RunFolder) -> None:
    with Tracker(folder, config(report_to="tensorboard"), active=False) as tracker:
        tracker.rewind(0, 0)
        tracker.log("step", step=1, loss=1.0)
    assert not folder.path.exists()


def test_a_line_that_was_cut_off_is_taken_back(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    folder.metrics.write_bytes(b'{"kind": "step", "step": 1}\n{"kind": "st')
    with Tracker(folder, config()) as tracker:
        tracker.log("step", step=2)
    assert [row["step"] for row in rows(folder)] == [1, 2]


def whole_run(tracker: Tracker, begin: int = 0, epoch: int = 0, end: int = 6) -> None:
    """Three steps an epoch, from a step on."""
    for step in range(begin + 1, end + 1):
        tracker.log("step", step=step, epoch=(step - 1) // 3, loss=1 / step)
        if step % 3 == 0:
            tracker.log("epoch", step=step, epoch=(step - 1) // 3, val_loss=2 / step)


@settings(deadline=None, max_examples=30)
@given(saved=st.integers(0, 6), killed=st.integers(0, 6), half=st.binary(max_size=5))
def test_an_interrupted_file_equals_an_uninterrupted_one(saved: int, killed: int, half: bytes) -> None:
    import tempfile

    saved = min(saved, killed)
    with tempfile.TemporaryDirectory() as place:
        one, two = RunFolder(Path(place) / "one"), RunFolder(Path(place) / "two")
        whole_run(Tracker(one, config()))
        whole_run(Tracker(two, config()), end=killed)
        with open(two.metrics, "ab") as file:
            file.write(half.replace(b"\n", b""))
        tracker = Tracker(two, config())
        tracker.rewind(saved, saved // 3)
        whole_run(tracker, begin=saved)
        assert one.metrics.read_bytes() == two.metrics.read_bytes()


def test_an_epoch_whose_last_step_was_saved_but_not_its_end_is_done_again(folder: RunFolder) -> None:
    tracker = Tracker(folder, config())
    whole_run(tracker, end=3)
    tracker.rewind(3, 0)  # at step 3 of 3, with epoch 0 not finished
    assert [row["kind"] for row in rows(folder)] == ["step"] * 3
    whole_run(tracker, end=3)
    tracker.rewind(3, 1)
    assert rows(folder)[-1]["kind"] == "epoch"


def test_a_damaged_file_is_said(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    folder.metrics.write_text('{"kind": "st\n{"kind": "step", "step": 1}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        Tracker(folder, config()).rewind(1)


FULL = """
import resource, sys
from pathlib import Path
from coconut_lm import Config, UserError
from coconut_lm.runfolder import RunFolder
from coconut_lm.track import Tracker
tracker = Tracker(RunFolder(Path(sys.argv[1])), Config(method="coconut", model_id="tiny"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for step in range(100):
        tracker.log("step", step=step, loss=0.123456789)
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_said_and_leaves_whole_lines(folder: RunFolder) -> None:
    done = subprocess.run([*LAUNCH, FULL, str(folder.path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout and "File too large" in done.stdout and "make room" in done.stdout
    text = folder.metrics.read_text(encoding="utf-8")
    assert 900 < len(text) <= 1000 and text.endswith("}\n")
    assert [row["step"] for row in rows(folder)] == list(range(text.count("\n")))


def test_a_place_that_is_a_file_is_said(folder: RunFolder) -> None:
    folder.path.parent.mkdir()
    folder.path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write"):
        Tracker(folder, config())


# -- trackers --


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("step/loss", "train/loss"),
        ("step/epoch", "train/epoch"),
        ("step/step", "train/step"),
        ("epoch/train_loss", "train/avg_loss"),
        ("epoch/val_loss", "eval/loss"),
        ("epoch/val_accuracy", "eval/acc"),
        ("epoch/val_cot_match", "eval/cot_em"),
        ("epoch/monitors/norm_ratio", "thoughts/norm_ratio"),
        ("epoch/window/0", "window/0"),
        ("epoch/seconds", "epoch/seconds"),
    ],
)
def test_trackers_get_the_names_that_people_know(ours: str, theirs: str) -> None:
    assert known_as(ours) == theirs


class Fake:
    """A tracker that fails at a step."""

    def __init__(self, fails_at: int = 99, starts: bool = True) -> None:
        self.fails_at, self.starts = fails_at, starts
        self.told: list[tuple[int | None, dict[str, float]]] = []
        self.finished = False

    def start(self) -> None:
        if not self.starts:
            raise ConnectionError("no network\nand more")

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        if step == self.fails_at:
            raise ConnectionError("no network")
        self.told.append((step, values))

    def finish(self) -> None:
        self.finished = True


def with_fake(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    monkeypatch.setitem(track.OUTSIDE, "wandb", lambda *_: fake)
    monkeypatch.setattr(track, "_refuse_missing", lambda names: None)


def test_trackers_get_numbers_only(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake(monkeypatch, fake := Fake())
    with Tracker(folder, config(report_to="wandb")) as tracker:
        tracker.log("epoch", step=3, val_loss=math.nan, val_cot_match=None, monitors={"norms": [1.0, 2.0]})
    assert fake.told == [(3, {"epoch/step": 3, "thoughts/norms/0": 1.0, "thoughts/norms/1": 2.0})]
    assert fake.finished


def test_a_tracker_that_fails_is_left_out_and_said_once(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_fake(monkeypatch, fake := Fake(fails_at=2))
    with Tracker(folder, config(report_to="wandb")) as tracker:
        whole_run(tracker)
    assert [row["step"] for row in rows(folder) if row["kind"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in fake.told] == [1]
    (said,) = capsys.readouterr().err.splitlines()
    assert "wandb failed" in said and "ConnectionError: no network" in said


def test_one_that_does_not_start_stops_a_new_run_but_not_a_resumed_one(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fake(monkeypatch, Fake(starts=False))
    with pytest.raises(UserError, match="wandb does not start\n  given:    ConnectionError: no network\n"):
        Tracker(folder, config(report_to="wandb")).start()
    said: list[str] = []
    resumed = Tracker(folder, config(report_to="wandb"), say=said.append)
    resumed.rewind(4, 1)
    whole_run(resumed, begin=4)
    assert len(said) == 1 and [row["step"] for row in rows(folder)] == [5, 6, 6]


def test_a_missing_package_is_said_before_anything_happens(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r'pip install "coconut-lm\[wandb,trackio\]"'):
        Tracker(folder, config(report_to=["wandb", "trackio"]))
    assert not folder.path.exists()


def test_a_run_to_see_that_things_run_reports_nowhere(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fake(monkeypatch, fake := Fake())
    with Tracker(folder, config(report_to="wandb", debug=True)) as tracker:
        tracker.log("step", step=1)
    assert not fake.told and len(rows(folder)) == 1


def interrupted_run(folder: RunFolder, *names: str) -> None:
    with Tracker(folder, config(report_to=list(names))) as tracker:
        whole_run(tracker, end=5)
    with Tracker(folder, config(report_to=list(names))) as tracker:
        tracker.rewind(4, 1)
        whole_run(tracker, begin=4)


def test_tensorboard_shows_each_step_once(folder: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted_run(folder, "tensorboard")
    shown = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [(each.step, round(each.value, 4)) for each in shown.Scalars("train/loss")] == [
        (step, round(1 / step, 4)) for step in range(1, 7)
    ]
    assert [each.step for each in shown.Scalars("eval/loss")] == [3, 6]
    assert "config/text_summary" in shown.Tags()["tensors"]


ALONE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_track import RunFolder, interrupted_run
interrupted_run(RunFolder(Path(sys.argv[1])), sys.argv[2])
"""


def interrupted_alone(folder: RunFolder, name: str, **environment: str) -> None:
    """In a process of its own: some trackers start threads and servers."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    command = [*LAUNCH, ALONE, str(folder.path), name]
    subprocess.run(command, check=True, env=os.environ | environment, capture_output=True)


def test_wandb_works_offline_and_goes_on_with_its_run(folder: RunFolder) -> None:
    settings = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONFIG_DIR": str(folder.path)}
    interrupted_alone(folder, "wandb", **settings)
    first, second = sorted(folder.path.glob("wandb/offline-run-*"))
    (kept,) = first.glob("*.wandb")
    assert (second / kept.name).exists()  # a run of the same id
    for part in (b"train/loss", b"thoughts", b"max_latent_stage"):
        assert part in kept.read_bytes()


def test_trackio_keeps_each_step_here(folder: RunFolder) -> None:
    import sqlite3

    interrupted_alone(folder, "trackio", TRACKIO_DIR=str(folder.path))
    (kept,) = folder.path.rglob("thoughts.db")
    connection = sqlite3.connect(kept)
    found = connection.execute("select run_name, step, metrics from metrics order by step").fetchall()
    connection.close()
    losses = [(name, step) for name, step, values in found if "train/loss" in str(values)]
    assert set(losses) == {("one", step) for step in range(1, 7)}
