"""`coconut-lm report` as a user types it, well and wrongly."""

import subprocess
import sys
from pathlib import Path

import fakeruns
import pytest
from typer.testing import CliRunner, Result

from coconut_lm.cli import app
from coconut_lm.data.example import Example

FEW = [Example(f"There are {n}. How many?", ("a",) * (n % 3 + 1), str(n)) for n in range(12)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*words: str) -> Result:
    return CliRunner().invoke(app, ["report", *words], env={"COLUMNS": "100"})


def wrongly(*words: str) -> str:
    before = sorted(Path().rglob("*"))
    done = report(*words)
    assert done.exit_code == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert sorted(Path().rglob("*")) == before
    return done.stderr


def test_one_run_and_several(place: Path) -> None:
    for name in ("a", "b"):
        fakeruns.run(place / "runs", name, FEW, epochs=2, method="cot")
    done = report("runs/a")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("wrote runs/a/report.html\nwrote runs/a/report/summary.md")
    assert Path("runs/a/report/loss.png").read_bytes().startswith(b"\x89PNG")
    assert report("runs/a", "runs/b", "--out", "both", "--title", "A & B").exit_code == 0
    page = Path("both/report.html").read_text("utf-8")
    assert "<h1>A &amp; B</h1>" in page and "Run against run" in page
    assert report("runs/a").exit_code == 0  # a report is made anew over the old one


def test_mistakes_are_told_and_write_nothing(place: Path) -> None:
    folder = fakeruns.run(place, "a", FEW, epochs=1, method="cot")
    assert "does not exist" in wrongly("b")
    assert "is no run folder" in wrongly("a", "a/eval")
    assert "given twice" in wrongly("a", "./a")
    assert "it is not a folder" in wrongly("a", "--out", f"{folder}/config.yaml/x.html")
    assert "Missing argument" in wrongly()
    assert "Example: coconut-lm report" in report("--help").stdout


def test_no_model_library_is_loaded(place: Path) -> None:
    fakeruns.run(place, "a", FEW, epochs=1)
    code = "import sys; from coconut_lm import report; report.write(['a']); "
    code += "print([each for each in ('torch', 'transformers', 'mlx') if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
