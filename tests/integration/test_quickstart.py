"""The embedded main job, for a few steps: it is made of ordinary runs, and goes on where it stopped."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from coconut_lm import demoview, launch, quickstart
from coconut_lm.cli import app
from coconut_lm.data import prosqa
from coconut_lm.data.example import read_examples
from coconut_lm.runfolder import RunFolder

RUNS = ("cot", "no_cot", "coconut", "no_thoughts")


@pytest.fixture(autouse=True)
def few_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "TEST", 20)
    monkeypatch.setattr(quickstart, "VALID", 8)


def asked(*more: str) -> Result:
    return CliRunner().invoke(app, ["quickstart", "--minutes", "0.05", *more], env={"COLUMNS": "120"})


def written() -> dict[str, bytes]:
    """Weights and answers."""
    kept = ("*/checkpoints/*/model.safetensors", "*/eval/*/predictions.jsonl", "*/metrics.jsonl")
    kept += ("coconut/robustness/*/*.json", "coconut/battery/*/battery.json")
    return {str(path): path.read_bytes() for pattern in kept for path in Path("demo").glob(pattern)}


def test_it_trains_examines_reports_and_goes_on() -> None:
    first = asked()
    assert first.exit_code == 0, first.output
    for run in RUNS:
        assert RunFolder.is_one(Path("demo", run)) and RunFolder(Path("demo", run)).checkpoints()
        assert yaml.safe_load(Path("demo", "configs", f"{run}.yaml").read_text())["method"] == run
        assert re.search(rf"^ *{run} .*\[", first.stdout, flags=re.M), "a row of the table"
    stages = [row["stage"] for row in RunFolder(Path("demo/coconut")).logged("epoch")]
    assert stages == [1, 2, 3], "the first stage is that of cot, whose weights it starts from"
    counts = {
        json.loads(path.read_text())["thoughts"] for path in Path("demo").glob("coconut/eval/test*/m*.json")
    }
    assert counts == {0, 1, 2, 3}
    swapped = json.loads(next(Path("demo").glob("cot/eval/test*/metrics.json")).read_text())["swaps"]
    assert swapped["n"] == 20
    assert "first option" in first.stdout or "rules that skip the steps" in first.stdout
    assert "McNemar" in first.stdout and "demo/report.html" in first.stdout
    assert Path("demo/report.html").stat().st_size > 10_000
    assert "Is the latent used?" in Path("demo/report.html").read_text(encoding="utf-8")
    assert re.search(
        r"Are the thoughts used\? (yes|no|unclear), by \d+ interventions on 20 graphs", first.stdout
    )
    assert re.search(r"^ *targeted opposite( +[\d.]+ %){5}", first.stdout, flags=re.M)
    question = read_examples("demo/data/test.json")[0].question
    assert f'coconut-lm ask demo/coconut "{question}" --thoughts 0-3' in first.stdout
    before = written()
    again = asked()
    assert again.exit_code == 0 and written() == before, "nothing is left to do"
    assert again.stdout.splitlines()[-20:] == first.stdout.splitlines()[-20:]


def test_a_folder_of_other_settings_or_of_another_kind_is_left_alone() -> None:
    Path("demo").mkdir()
    Path("demo", "mine.txt").write_text("mine")
    refused = asked()
    assert refused.exit_code == 2 and "choose another --out" in refused.stderr
    assert [path.name for path in Path("demo").iterdir()] == ["mine.txt"]
    Path("other").mkdir()
    Path("other", "demo.json").write_text('{"minutes": 8.0, "seed": 0}')
    refused = asked("--out", "other", "--seed", "3")
    assert refused.exit_code == 2 and [path.name for path in Path("other").iterdir()] == ["demo.json"]
    assert "--minutes 0.05 --seed 3" in refused.stderr and "--minutes 8.0 --seed 0" in refused.stderr
    Path("other", "demo.json").write_text("[")
    assert "holds no demo" in asked("--out", "other").stderr
    Path("file").write_text("mine")
    assert asked("--out", "file").exit_code == 2 and Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    ["--minutes 0", "--minutes nan", "--minutes inf", "--seed -1", "--seed 9999999999", "--out /dev/null/x"],
)
def test_what_cannot_be_is_refused(wrong: str) -> None:
    refused = asked(*wrong.split())
    assert refused.exit_code == 2 and not refused.stdout and not list(Path().iterdir())


def test_its_data_grow_and_its_questions_are_unseen() -> None:
    quickstart._write_data(Path("demo"), 0.1, seed=4)
    first, later, test = (read_examples(f"demo/data/{name}.json") for name in ("first", "later", "test"))
    for examples in (first, later):
        sizes = [len(example.extra["idx_to_symbol"]) for example in examples]
        kinds = [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before]
        assert kinds == [8, 10, 12, 14, 10, 14], "chains that grow, then the graphs"
        named = [set(map(int, example.extra["idx_to_symbol"])) for example in examples]
        assert all(symbols == set(range(size)) for symbols, size in zip(named, sizes, strict=True))
    assert {len(example.steps) for example in test} == {quickstart.HOPS}
    seen = {example.question for example in [*first, *later]}
    twins = [prosqa.twin(example) for example in test]
    assert not seen & {example.question for example in [*test, *twins]}


@pytest.mark.parametrize("part", quickstart.PARTS, ids=lambda part: part.name)
def test_its_configurations_are_those_of_any_run(part: quickstart.Part) -> None:
    place = quickstart._write_config(part, Path("demo"), seed=0)
    with pytest.raises(ValueError, match="no such file or folder"):
        launch.configuration(str(place))  # nothing else is wrong with it


def test_a_seed_is_said_to_have_failed_where_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"accuracy": {"rate": 0.5, "low": 0.45, "high": 0.55}}
    lines = demoview.verdicts({name: _run(name, metrics) for name in RUNS})
    assert "has not learned to think" in lines[-1]
    metrics = {"accuracy": {"rate": 0.9, "low": 0.85, "high": 0.95}}
    lines = demoview.verdicts({name: _run(name, metrics) for name in RUNS})
    assert len(lines) == 3 and re.match(r"coconut against cot +\+100\.0 points", lines[0])


def _run(name: str, metrics: dict[str, object]) -> demoview.History:
    rows = [{"id": n, "question": str(n), "gold": "1", "correct": name == "coconut"} for n in range(8)]
    return demoview.History(name, Path(name), chief=demoview.Evaluation("e", metrics), predictions=rows)
