"""docs/mlx.md: its commands run as they stand, and its sizes are those that the formulas give."""

import re
import shutil
from pathlib import Path

import foreign
import pytest
from pages import CONFIGS, ROOT, commands, fetched, furnish, page, published, put_in_place, typed

from coconut_lm.config import Config
from coconut_lm.costs import ASIDE, PRECISIONS, Adapters, Load, activations
from coconut_lm.runfolder import RunFolder
from coconut_lm.sizing import Sizes, measure, on_meta

TEXT = page("mlx")
ROWS = Load(rows=8, columns=108, first=50, thoughts=6, supervised=400)
MACS = (8, 16, 24, 32, 48, 64, 96, 128)
SHAPES = {
    "GPT-2": "gpt2",
    "Llama-3.2-1B": "Llama-3.2-1B",
    "Llama-3.2-3B": "Llama-3.2-3B",
    "Qwen3-4B": "Qwen3-4B",
    "Llama-3.1-8B": "Llama-3.1-8B",
}


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_the_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(monkeypatch)
    shutil.copy("gpt2/config.json", "config.json")
    Path("data").mkdir()
    shutil.copy(fetched("prosqa", Path("theirs")).paths["test"], "data/prosqa_test.json")
    published("checkpoint_40.safetensors", foreign.mlx_file)
    for name in ("prosqa_coconut", "prosqa_coconut_eval"):
        put_in_place(CONFIGS / f"seeds/000/{name}.yaml", Path(f"configs/seeds/000/{name}.yaml"))
    lines = commands(TEXT)
    assert len(lines) == 9
    for line in lines:
        if "save_mlx_file" in line:  # three steps are no epoch of more examples
            line += " train_samples=3 name=own"
        typed(line, monkeypatch, few=4)
    assert list(Path("runs/own").glob("checkpoint_*.safetensors"))
    assert list(RunFolder(Path("runs/prosqa-coconut")).evaluations.glob("*4bit*/metrics.json"))


def sizes(name: str, **more: object) -> Sizes:
    given = {"method": "coconut", "model_id": str(CONFIGS / f"models/{SHAPES[name]}.json"), "tokenizer": "x"}
    return measure(on_meta(Config(**given, **more)))


def learning(found: Sizes, precision: str, adapters: Adapters | None = None) -> int:
    kept = activations(found.shape, ROWS, PRECISIONS[precision], adapters=adapters)
    return kept.layers + kept.around + kept.logits + ASIDE


def needed(name: str) -> list[float]:
    """GiB: in full, with LoRA, to load, held in 16, 8 and 4 bits."""
    found, some = sizes(name), sizes(name, lora={"r": 16})
    shape, all_of_it = found.shape, found.parameters
    cut = shape.layers * shape.block() + shape.table * (1 if shape.tied else 2)
    load = 4 * all_of_it + ASIDE
    full = 22 * all_of_it + learning(found, "float32")
    lora = 2 * all_of_it + 22 * some.trained + learning(found, "pure", some.adapters)
    held = [cut * bits / 8 + 2 * (all_of_it - cut) + ASIDE for bits in (16, 8.5, 4.5)]
    return [each / 2**30 for each in (max(full, load), max(lora, load), load, *held)]


def cells(first: str) -> list[str]:
    (row,) = re.findall(rf"^\| {re.escape(first)} \| (.+) \|$", TEXT, flags=re.M)
    return row.split(" | ")


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_are_computed(name: str) -> None:
    parameters = f"{sizes(name).parameters / 1e9:.2f} B"
    assert cells(name) == [parameters, *(f"{each:.1f}" for each in needed(name))]


def test_the_largest_that_fits_is_named() -> None:
    every = {name: needed(name) for name in SHAPES}
    for memory in MACS:
        fitting = [[name for name in SHAPES if every[name][at] <= 0.74 * memory] for at in (0, 1)]
        assert cells(f"{memory} GB") == [names[-1] for names in fitting]


def test_what_it_names_is_there() -> None:
    paths = re.findall(r"`((?:tests|configs)/[\w/.]+)`", TEXT)
    assert len(paths) > 5 and all((ROOT / path).exists() for path in paths)
