"""The shipped runs say what they claim, and have the paper's recipe."""

import re
from pathlib import Path
from typing import Any

import pytest

from coconut_lm.config import Config, load
from coconut_lm.errors import UserError
from coconut_lm.methods import METHODS, Curriculum
from coconut_lm.schema import Lora

CONFIGS = Path(__file__).parents[2] / "configs"
OWN = sorted(path for path in CONFIGS.glob("*/*.yaml"))
TASKS = {"gsm8k": (2, 3, 3, 25), "prontoqa": (1, 5, 6, 50), "prosqa": (1, 5, 6, 50)}
STAGED = ("coconut", "no_thoughts", "pause_as_thought")


def name(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def read(path: str | Path) -> Config:
    return load(CONFIGS / path, check_files=False)


@pytest.mark.parametrize("path", OWN, ids=name)
def test_a_file_says_its_claim_and_its_global_batch(path: Path) -> None:
    head = [line for line in path.read_text(encoding="utf-8").splitlines()[:2] if line.startswith("# ")]
    assert len(head) == 2
    said = re.search(r"[Gg]lobal batch (\d+)", " ".join(head))
    assert said
    config = read(path)
    assert config.batch_size_training * config.gradient_accumulation_steps == int(said[1])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_row_of_the_paper_is_there(task: str, method: str) -> None:
    config = read(f"{task}/{method}.yaml")
    c_thought, epochs, most, end = TASKS[task]
    assert (config.method, config.task, config.num_epochs) == (method, task, end)
    assert config.run_dir == Path("runs") / f"{task}-{method.replace('_', '-')}"
    if method in (*STAGED, "no_curriculum"):
        assert (config.c_thought, config.epochs_per_stage, config.max_latent_stage) == (
            c_thought,
            epochs,
            most,
        )
    if method in STAGED:
        assert config.resume == (3 if task == "gsm8k" else 0)
        assert (config.load_model_path is not None) == (task == "gsm8k")
        assert METHODS[method].schedule(Curriculum.of(config), config.num_epochs - 1) == most + 1
    if method == "pause":
        assert config.pause_tokens == 6


def test_a_run_from_a_checkpoint_asks_for_it() -> None:
    with pytest.raises(UserError, match="YOUR_BEST_CHECKPOINT'; is not filled in"):
        load(CONFIGS / "gsm8k" / "coconut.yaml")


def test_the_readme_lists_every_file_with_its_figure() -> None:
    text = (CONFIGS / "README.md").read_text(encoding="utf-8")
    for path in OWN:
        if path.parent.name in TASKS:
            head = path.read_text(encoding="utf-8").splitlines()[0]
            figure = re.search(r"test ([\d.]+(?: ± [\d.]+)?) %", head)
            assert figure
            (row,) = [line for line in text.splitlines() if line.startswith(f"| `{path.name}`")]
            assert row.split("|")[2 + list(TASKS).index(path.parent.name)].strip() == figure[1]
        else:
            assert f"`{name(path)}`" in text


SMALL: dict[str, Any] = {"method": "coconut", "model_id": "openai-community/gpt2"}


def test_quantised_weights_are_a_choice_of_the_adapters() -> None:
    assert [load(SMALL, ["lora.r=4"], check_files=False).lora, read("variants/llama_8b_qlora.yaml").lora] == [
        Lora(r=4, quantize="none"),
        Lora(r=16, alpha=32, target_modules="all-linear", quantize="4bit"),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": "mlx"}, "mlx trains no quantised weights"),
        ({"model_id": "configs/models/tiny.json", "tokenizer": "word"}, "no weights to quantise"),
        ({"lora": {"quantize": "3bit"}}, "lora.quantize: given '3bit'; allowed: none, 4bit"),
    ],
)
def test_what_cannot_be_quantised(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        load(SMALL | {"lora": {"quantize": "4bit"}} | given, check_files=False)
