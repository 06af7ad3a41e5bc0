"""Every shipped YAML trains two steps and evaluates, as it stands but for its places: there a model of one
layer and made data are put, and a run loads what the run before it has left."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from coconut_lm import launch
from coconut_lm.config import Config, load
from coconut_lm.data import prontoqa, prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.methods import Curriculum
from coconut_lm.runfolder import METRICS, RunFolder, lines

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
COTS = ("cot", "gsm_cot", "stage0", "llama_1b_cot_lora")  # what a run of the same folder starts from
SMALL = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDE = SMALL | {"num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 1024, "n_embd": 16, "n_layer": 1, "n_head": 2},
    "gpt_neo": SMALL | {"num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]},
    "llama": WIDE | {"max_position_embeddings": 1024},
    "qwen3": WIDE | {"max_position_embeddings": 1024},
}
FAMILIES = {"gpt-neo": "gpt_neo", "Llama": "llama", "Qwen": "qwen3"}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One folder for all, for a run starts where another ended; none depends on the order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("configs"))
        trained.cache_clear()
        for family, shape in SHAPES.items():
            ends = {"bos_token_id": None, "eos_token_id": None}
            Path(f"{family}.json").write_text(json.dumps({"model_type": family, **shape, **ends}))
        for task, examples in made().items():
            write_examples(f"{task}_train.json", examples[:5])
            write_examples(f"{task}_valid.json", examples[5:])
        yield


def made() -> dict[str, list[Example]]:
    sums = [((f"<<{n}+2={n + 2}>>", f"<<{n + 2}*3={n * 3 + 6}>>"), f"{n * 3 + 6}") for n in range(7)]
    return {
        "gsm8k": [Example(f"Has {n} , gets 2 , thrice ?", *sums[n]) for n in range(7)],
        "math": [
            Example(f"What is ${n}/2$ ?", (f"It is {n}/2 .",) * 3, rf"\frac{{{n}}}{{2}}") for n in range(7)
        ],
        "prosqa": list(prosqa.make(7, seed=1)),
        "prontoqa": list(prontoqa.make(7, seed=1)),
    }


def family(config: Config) -> str:
    source = str(config.model_id)
    return next((each for sign, each in FAMILIES.items() if sign in source), "gpt2")


def in_its_places(name: str) -> Config:
    """The configuration, with files that are here."""
    stated = load(CONFIGS / name, check_files=False)
    model = "model_config_path" if stated.model_config_path else "model_id"
    given = {model: f"{family(stated)}.json", "tokenizer": "word", "save_path": f"runs/{name}"}
    given |= {"train_path": f"{stated.task}_train.json", "val_path": f"{stated.task}_valid.json"}
    given |= {"eval_samples": "2", "max_new_tokens": "4", "max_steps": "2"}
    if stated.load_model_path:
        given["load_model_path"] = str(trained(before(name)))
    if stated.lora and stated.lora.quantize != "none":  # a model from scratch has nothing to quantise
        given["lora.quantize"] = "none"
    return load(CONFIGS / name, [f"{key}={value}" for key, value in given.items()])


def before(name: str) -> str:
    """The file of the run whose checkpoint this one loads."""
    path = CONFIGS / name
    if path.stem.endswith("_eval") and (found := path.with_stem(path.stem.removesuffix("_eval"))).exists():
        return found.relative_to(CONFIGS).as_posix()
    if "fresh" in path.stem:
        return "seeds/003/gsm8k_coconut_qwen3_a100_fresh_start.yaml"
    own = [path.with_stem(cot) for cot in COTS if path.with_stem(cot).exists() and cot != path.stem]
    if "llama" not in path.stem and path.parent.name == "variants":
        own = [CONFIGS / "gsm8k" / "cot.yaml"]
    return (own or [CONFIGS / "seeds/official/gsm_cot.yaml"])[0].relative_to(CONFIGS).as_posix()


@cache
def trained(name: str) -> Path:
    """The folder of the run, which is made once."""
    config = in_its_places(name)
    assert launch.run(config)
    return config.run_dir


def test_there_is_one_of_each() -> None:
    assert len(SHIPPED) > 80


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.endswith("_eval.yaml")])
def test_it_trains(name: str) -> None:
    folder, config = RunFolder(trained(name)), in_its_places(name)
    logged = list(lines(folder.path / METRICS))
    steps = [line for line in logged if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in steps)
    ends = [line for line in logged if line["kind"] == "epoch"]
    assert [line["epoch"] for line in ends] == [config.resume, config.resume + 1]
    assert all(line["val_n"] == 2 and math.isfinite(line["val_loss"]) for line in ends)
    if config.method == "coconut":
        first = (config.resume + config.first_epoch) // config.epochs_per_stage
        assert ends[0]["stage"] == min(first, Curriculum.of(config).last_stage)
    assert config.debug or folder.newest()


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.endswith("_eval.yaml")])
def test_it_evaluates(name: str) -> None:
    config = in_its_places(name)
    assert config.only_eval
    metrics, folder = launch.evaluate_once(config)
    assert metrics["accuracy"]["n"] == 2 and metrics["method"] == config.method
    assert len(list(lines(folder / "predictions.jsonl"))) == 2
