"""The tutorial as it ships, and run from top to bottom in a folder of its own."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

PLACE = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
LEFT = """
print(json.dumps({
    "validated": run.logged("epoch")[-1]["val_accuracy"],
    "thought": found[1],
    "without": found[0],
    "borrowed": borrowed["accuracy"],
    "read": shares,
}))
"""


def outputs(notebook: Any) -> list[Any]:
    return [each for cell in notebook.cells if cell.cell_type == "code" for each in cell.outputs]


def complaints(notebook: Any) -> list[Any]:
    return [each for each in outputs(notebook) if each.output_type == "error" or each.get("name") == "stderr"]


def test_it_ships_as_one_run_from_top_to_bottom() -> None:
    notebook = nbformat.read(PLACE, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not complaints(notebook)
    figures = [each for each in outputs(notebook) if "image/png" in each.get("data", {})]
    assert len(figures) == 6 and PLACE.stat().st_size < 600_000


def test_it_tells_nothing_of_the_machine_it_ran_on() -> None:
    notebook = nbformat.read(PLACE, as_version=4)
    told = [cell.source for cell in notebook.cells]
    told += [str(each.get("text", "")) for each in outputs(notebook)]
    assert not re.search(r"/(home|Users|root|tmp|work|usr|opt)/|[A-Z]:\\|0x[0-9a-f]{6}", "\n".join(told))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in notebook.cells)


def test_the_pages_that_it_names_are_there() -> None:
    text = "\n".join(cell.source for cell in nbformat.read(PLACE, as_version=4).cells)
    links = re.findall(r"\]\(([\w./]+\.md)\)", text)
    assert len(links) > 4 and all((PLACE.parent / link).is_file() for link in links)


@pytest.mark.slow
def test_it_runs_anywhere_and_finds_what_it_says(tmp_path: Path) -> None:
    notebook = nbformat.read(PLACE, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LEFT))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    assert not complaints(notebook)
    assert not list(tmp_path.iterdir())
    left = json.loads(notebook.cells[-1].outputs[0].text)
    accuracy, floors = left["thought"]["accuracy"], left["thought"]["floors"]
    assert left["validated"] > 0.9 and accuracy["rate"] > 0.9 and left["without"]["accuracy"]["rate"] > 0.9
    assert accuracy["low"] > max(floor["high"] for floor in floors.values())
    assert left["thought"]["swaps"]["consistency"]["rate"] > 0.9
    assert left["thought"]["tokens"]["mean"] < left["without"]["tokens"]["mean"]
    assert left["borrowed"]["high"] < accuracy["low"]
    assert sum(left["read"].values()) == pytest.approx(1, abs=1e-3)
