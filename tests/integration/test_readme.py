"""What the README and the pages of docs show can be typed, in a folder of their own.

Pages about one command are typed in the tests of that command.
"""

import re
import shlex
from pathlib import Path

import pytest
from tiny import base_model
from typer.testing import CliRunner

from coconut_lm import word_tokenizer
from coconut_lm.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, flags=re.S | re.M)
COMMANDS = [line for kind, block in FENCES if kind == "" for line in block.splitlines()]
PYTHON = [block for kind, block in FENCES if kind == "python"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with the configurations, and a file of the kind that the README converts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "gsm_valid.txt").write_text("How many?||<<1+2=3>> <<3*2=6>> #### 6\n", encoding="utf-8")
    return tmp_path


def typed(line: str) -> None:
    words = [
        str(max(8, int(word) // 50)) if word.isdigit() and len(word) > 2 else word
        for word in shlex.split(line)
    ]
    assert words[0] == "coconut-lm", line
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


def test_the_commands_run_in_their_order(folder: Path) -> None:
    lines = [line for line in COMMANDS if line.startswith("coconut-lm")]
    assert len(lines) >= 6
    for line in lines:
        typed(line)


@pytest.mark.parametrize("page", ["index", "training", "data", "scale"])
def test_the_commands_of_a_page_run_in_their_order(folder: Path, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("coconut-lm ")]
    assert len(lines) >= 2
    for line in lines:
        if "file:///" not in line:  # a folder that is another's
            typed(line)


def test_the_make_targets_are_there() -> None:
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    assert targets == {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = word_tokenizer(["Every wumpus is a lempus. Tom is a wumpus. Is Tom a lempus or a gorpus? <<"])
    tokenizer.save_pretrained(folder / "gpt2")
    base_model("gpt2", vocab_size=len(tokenizer), n_positions=512).save_pretrained(folder / "gpt2")
    typed("coconut-lm data make prosqa -n 8 --out data/prosqa.json")
    names: dict[str, object] = {}
    for block in PYTHON:
        exec(block.replace("openai-community/gpt2", str(folder / "gpt2")), names)
    assert len(names["texts"]) == 3  # type: ignore[arg-type]
    assert names["trace"].columns  # type: ignore[attr-defined]
    assert names["loss"].isfinite()  # type: ignore[attr-defined]


def test_the_example_has_twelve_lines() -> None:
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(lines) <= 13


def test_every_page_is_linked() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"}
    assert pages <= set(re.findall(r"\]\((docs/[^)#]+)", TEXT))
