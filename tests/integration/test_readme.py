"""What the README and the pages of docs show can be typed, in a folder of their own.

Pages about one command are typed in the tests of that command.
"""

import re
from pathlib import Path

import pages
import pytest
from tiny import base_model

from coconut_lm import word_tokenizer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, flags=re.S | re.M)
COMMANDS = [line for kind, block in FENCES if kind == "" for line in block.splitlines()]
PYTHON = [block for kind, block in FENCES if kind == "python"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with the configurations and tiny models, and a file of the kind that the README converts."""
    monkeypatch.chdir(tmp_path)
    pages.furnish(monkeypatch)
    (tmp_path / "gsm_valid.txt").write_text("How many?||<<1+2=3>> <<3*2=6>> #### 6\n", encoding="utf-8")
    return tmp_path


def test_the_commands_run_in_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mentioned = ("FILE", "x.yaml", "--install-completion")
    lines = [line for line in pages.commands(TEXT) if len(line.split()) > 2]
    lines = [line for line in lines if not any(word in line for word in mentioned)]
    assert len(lines) >= 20
    pages.published("checkpoint_33")
    Path("args").symlink_to("configs/seeds/official")
    for line in lines:
        pages.typed(pages.small(line), monkeypatch, few=None)


@pytest.mark.parametrize("page", ["index", "training", "data", "scale"])
def test_the_commands_of_a_page_run_in_their_order(
    folder: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in pages.page(page).splitlines() if line.startswith("coconut-lm ")]
    assert len(lines) >= 2
    for line in lines:
        if "file:///" not in line:  # a folder that is another's
            pages.typed(pages.small(line), monkeypatch, few=None)


def test_the_make_targets_are_there() -> None:
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    assert targets == {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_the_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = word_tokenizer(["Every wumpus is a lempus. Tom is a wumpus. Is Tom a lempus or a gorpus? <<"])
    tokenizer.save_pretrained(folder / "gpt2")
    base_model("gpt2", vocab_size=len(tokenizer), n_positions=512).save_pretrained(folder / "gpt2")
    pages.typed("coconut-lm data make prosqa -n 8 --out data/prosqa.json", monkeypatch, few=8)
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
