"""The embedded main job, for a few steps."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coconut_lm import CoconutForCausalLM
from coconut_lm.cli import app


@pytest.fixture(autouse=True)
def few_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    from coconut_lm import quickstart

    monkeypatch.setattr(quickstart.Job.__init__, "__defaults__", (300, 20))
    monkeypatch.setattr(quickstart, "STEPS_A_MINUTE", 80)


def test_it_trains_measures_and_keeps_what_it_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quickstart", "--out", str(tmp_path / "a"), "--minutes", "0.1"])
    assert result.exit_code == 0, result.output
    assert "95 % interval" in result.output and "every step written" in result.output
    kept = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert [item["thoughts"] for item in kept["results"]] == [0, 1, 2, 0]
    assert all(
        item["low"] <= item["accuracy"] <= item["high"] and item["n"] == 20 for item in kept["results"]
    )
    assert isinstance(CoconutForCausalLM.from_pretrained(tmp_path / "a" / "coconut"), CoconutForCausalLM)


def test_a_seed_makes_it_repeat(tmp_path: Path) -> None:
    from coconut_lm.quickstart import Job

    losses = [[loss for _, loss in Job(seed).train([3, 2, 2])] for seed in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    result = CliRunner().invoke(app, ["quickstart", "--out", str(tmp_path / "a"), "--minutes", "0.1"])
    assert result.exit_code == 2 and (tmp_path / "a").read_text() == "mine"
