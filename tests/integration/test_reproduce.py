"""docs/reproduce.md: its commands run, its figures are the paper's, what is computed is computed again."""

import gzip
import json
import math
import re
from pathlib import Path

import pytest
from pages import CONFIGS, ROOT, commands, fetched, furnish, generators_json, page, typed

from coconut_lm import METHODS, Curriculum, paper, plan
from coconut_lm.config import load
from coconut_lm.data import prontoqa, prosqa
from coconut_lm.data.example import write_examples

TEXT = page("reproduce")
ROW = re.compile(r"^\| [^|]+ \| `configs/(\w+)/(\w+)\.yaml` \| (.+) \|$", flags=re.M)
ROWS = {(task, method): tuple(rest.split(" | ")) for task, method, rest in ROW.findall(TEXT)}
SIZES = {"gsm8k": 385_620, "prontoqa": 9_000, "prosqa": 17_886}
TOKENIZER = f"tokenizer={ROOT / 'tests' / 'assets' / 'gpt2-tokenizer'}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    furnish(monkeypatch)
    return tmp_path


def test_the_data_are_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("5hop_0shot_random.json").write_text(generators_json(50), encoding="utf-8")
    for line in (line for line in commands(TEXT) if " data " in line):
        typed(line, monkeypatch)
    for config in CONFIGS.glob("pro*qa/*.yaml"):
        assert load(config)
    assert load(CONFIGS / "gsm8k" / "cot.yaml")


@pytest.mark.parametrize("task", SIZES)
def test_the_rows_are_run_asked_and_reported(task: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(task, Path("data"))
    lines = [line for line in commands(TEXT) if task in line and " data " not in line]
    for method in paper.FIGURES[task]:
        run = f"runs/{task}-{method.replace('_', '-')}"
        assert any(f" run configs/{task}/{method}.yaml" in line for line in lines)
        assert any(f" eval {run}/" in line for line in lines)
        assert any(line.startswith("coconut-lm report") and f"{run} " in line for line in lines)
    for line in lines:
        typed(line, monkeypatch)
    assert Path(f"{task}.html").is_file()


@pytest.mark.parametrize("task", SIZES)
def test_the_figures_are_those_of_the_paper_and_the_files(task: str) -> None:
    assert [method for each, method in ROWS if each == task] == list(paper.FIGURES[task])
    for method, published in paper.FIGURES[task].items():
        accuracy, tokens, epochs, steps, *_, here = ROWS[task, method]
        spread = "" if published.spread is None else f" ± {published.spread}"
        assert (accuracy, tokens) == (f"{published.accuracy}{spread}", str(published.tokens))
        config = load(CONFIGS / task / f"{method}.yaml", check_files=False)
        rows = config.batch_size_training * config.gradient_accumulation_steps
        assert int(epochs) == config.num_epochs - config.resume
        assert int(steps.replace(",", "")) == math.ceil(SIZES[task] / rows)
        assert re.fullmatch(r"not run by us yet|\d+\.\d .+", here)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("gsm8k/coconut", 13),
        ("prosqa/pause_as_thought", 36),
        ("prontoqa/no_thoughts", 36),
        ("gsm8k/icot", 6),
        ("prosqa/icot", 7),
        ("prontoqa/icot", 12),
    ],
)
def test_all_steps_are_gone_from_that_checkpoint_on(name: str, first: int) -> None:
    config = load(CONFIGS / f"{name}.yaml", check_files=False)
    schedule, curriculum = METHODS[config.method].schedule, Curriculum.of(config)
    end = schedule(curriculum, config.num_epochs - 1)
    assert schedule(curriculum, first - 1) == end != schedule(curriculum, first - 2)
    assert f"`checkpoint_{first}`" in TEXT


@pytest.mark.parametrize("task", SIZES)
def test_memory_and_hours_are_those_of_plan(task: str, tmp_path: Path) -> None:
    """Of one method each: the others differ in the rows alone."""
    *_, gib, a100, h100, _ = ROWS[task, "coconut"]
    config = load(
        CONFIGS / task / "coconut.yaml",
        [TOKENIZER, f"train_path={sample(task, tmp_path)}"],
        check_files=False,
    )
    found = plan.plan(config, device=plan.DEVICES["a100-80"])
    assert round(found.worst().total / plan.GIB) == int(gib)
    flops = sum(each.stage.epochs * each.flops for each in found.costs) * SIZES[task]
    for name, hours in (("a100-80", a100), ("h100", h100)):
        assert flops / plan.DEVICES[name].rate(config) / 3600 == pytest.approx(float(hours), abs=0.06)


def sample(task: str, folder: Path) -> Path:
    """The rows that the page's figures are of."""
    path = folder / f"{task}.json"
    if task == "gsm8k":
        packed = ROOT / "tests" / "assets" / "coconut_paper_gsm8k_valid.json.gz"
        path.write_text(json.dumps(json.loads(gzip.decompress(packed.read_bytes()))), encoding="utf-8")
    else:
        write_examples(path, (prosqa if task == "prosqa" else prontoqa).make(2000, seed=0))
    return path


def test_the_pages_it_leads_to_are_there() -> None:
    links = re.findall(r"\]\((\w+\.md)\)", TEXT)
    assert links and all((ROOT / "docs" / link).exists() for link in links)
    paths = re.findall(r"configs/[\w/]+(?:\.yaml)?", TEXT)
    assert all((ROOT / path).exists() for path in paths)
