"""`coconut-lm plan` as a user types it; the table of docs/scale.md, computed again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coconut_lm.cli import app

ROOT = Path(__file__).parents[2]
GIB = 2**30
GSM = "configs/gsm8k/coconut.yaml"
TABLE = re.findall(
    r"^\| `(\S+)` \| (\w+) \| (\d+) \| `(.+)` \| (\d+) \|$",
    (ROOT / "docs" / "scale.md").read_text(encoding="utf-8"),
    flags=re.M,
)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def plan(*words: Any) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, words)], env={"COLUMNS": "120"})


def computed(*words: Any) -> dict[str, Any]:
    done = plan(*words, "--json")
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wrongly(*words: Any) -> str:
    done = plan(*words)
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(("model", "trained", "devices", "keys", "gib"), TABLE)
def test_the_page_says_what_the_command_says(
    model: str, trained: str, devices: str, keys: str, gib: str
) -> None:
    row = ["gradient_accumulation_steps=1", f"model_id={model}", *keys.split()]
    found = computed(GSM, *row, "--devices", devices, "--length", 200)
    assert round(found["memory_per_device"] / GIB) == int(gib)
    assert (found["trained"] == found["parameters"]) is (trained == "all")


def test_the_page_has_a_table() -> None:
    assert len(TABLE) >= 12 and len({row[0] for row in TABLE}) >= 5


def test_a_plan_that_fits_and_one_that_does_not() -> None:
    fits = plan(GSM, "--device", "a100-80", "--devices", 4)
    assert fits.exit_code == 0 and "it fits" in fits.stdout and "what takes less" not in fits.stdout
    assert "a copy on each *" in fits.stdout and "fsdp: full" in fits.stdout
    tight = plan(GSM, "--memory", 5)
    assert tight.exit_code == 0 and "it does not fit" in tight.stdout
    assert "gradient_checkpointing=true" in tight.stdout and "fsdp=full" not in tight.stdout


def test_an_absurd_memory_is_an_answer_too() -> None:
    found = computed(GSM, "--memory", 0.001)
    assert found["fits"] is False and found["remedies"]
    assert computed(GSM, "--memory", 1e9)["fits"] is True


def test_the_figures_add_up() -> None:
    found = computed(GSM, "--devices", 2, "fsdp=full")
    assert found["sharing"] == "shards" and found["fits"] is None
    for stage in found["stages"]:
        for kind in stage["memory"].values():
            assert sum(value for name, value in kind.items() if name != "total") == kind["total"]
    totals = [stage["memory"]["shards"]["total"] for stage in found["stages"]]
    assert found["memory_per_device"] == max(totals)


def test_mistakes_are_told() -> None:
    assert "hidden" in wrongly(GSM, "model_id=nobody/hidden") and "--model-config" in wrongly(
        GSM, "model_id=nobody/hidden"
    )
    assert "a100-80" in wrongly(GSM, "--device", "abacus")
    assert "batch_size_training" in wrongly(GSM, "batch_size_training=0")
    assert "unknown key" in wrongly(GSM, "batchsize=4")
    assert "cannot be read" in wrongly("configs/none.yaml")
    for option in (["--devices", 0], ["--memory", 0], ["--memory", "much"], ["--length", 1]):
        assert plan(GSM, *option).exit_code == 2


def test_every_configuration_that_ships_can_be_planned() -> None:
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        open_place = "PATH_TO_GPT2_CONFIG" in path.read_text(encoding="utf-8")
        shape = ["--model-config", "configs/models/gpt2.json"] if open_place else []
        assert computed(path, "--length", 64, *shape)["memory_per_device"] > GIB
