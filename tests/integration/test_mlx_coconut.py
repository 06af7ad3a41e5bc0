"""What somebody does who comes from vincentamato/mlx-coconut: its YAML as they are, weights in its layout in
and out, with either backend."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import CONFIGS, examples, fetched
from safetensors.torch import load_file, save_file
from tiny import base_model
from torch import Tensor

from coconut_lm import CoconutForCausalLM, UserError, launch, load_tokenizer, word_tokenizer, yamlfile
from coconut_lm.checkpoint import load_into, read
from coconut_lm.config import Config, load
from coconut_lm.export import to_mlx_file
from coconut_lm.runfolder import RunFolder, lines

THEIRS = CONFIGS / "seeds" / "000"
LEFT_OUT = {"pad_latent_to_max": False, "max_latent_stage": 0, "c_thought": 1, "uniform_prob": 0.0}
BACKENDS = ["torch", "mlx"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data where the YAML look for it, config.json, and base.safetensors."""
    monkeypatch.chdir(tmp_path)
    made = [each for task in ("gsm8k", "prosqa", "prontoqa") for each in examples(task)]
    for task in ("gsm8k", "prosqa", "prontoqa"):
        fetched(task, Path("data"))
    for split in ("train", "valid"):
        shutil.copy(f"data/gsm_{split}.json", f"data/gsm_small_{split}.json")
    tokenizer = word_tokenizer(" ".join([each.question, *each.steps, each.answer]) for each in made)
    tokenizer.save_pretrained("gpt2")
    changes: dict[str, Any] = {"n_embd": 16, "n_head": 2, "n_positions": 1024, "vocab_size": len(tokenizer)}
    base = base_model("gpt2", torch.float32, **changes)
    base.config.to_json_file("config.json")
    base_file(base, "base.safetensors")
    return tmp_path


def base_file(base: Any, place: str) -> None:
    """Weights as they are published for it: three rows more, masks, no prefix."""
    tensors: dict[str, Tensor] = {}
    model = CoconutForCausalLM.from_base(base, load_tokenizer("gpt2"), new_token_init="random")
    to_mlx_file(model, Path(place))
    for name, tensor in load_file(place).items():
        tensors[name.removeprefix("base_causallm.")] = tensor
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1024, 1024).tril()[None, None]
    save_file(tensors, place)


def theirs(file: str, **changes: Any) -> Config:
    """With the two places filled in that are left open there, and the tokenizer, which is GPT-2's there."""
    given = {"model_config_path": "config.json", "tokenizer": "gpt2", "max_new_tokens": 4} | changes
    return load(THEIRS / f"{file}.yaml", [f"{key}={value}" for key, value in given.items()])


def trained(file: str, **changes: Any) -> RunFolder:
    """Two epochs of it, each with its file."""
    config = theirs(file, num_epochs=2, save_mlx_file=True, eval_samples=1, **changes)
    assert launch.run(config)
    return RunFolder(config.run_dir)


def logits(model: CoconutForCausalLM) -> Tensor:
    ids = torch.tensor([[5, 7, 11, model.config.start_token_id, *[model.config.latent_token_id] * 2, 3]])
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("backend", BACKENDS)
def test_from_base_weights_over_cot_to_coconut_and_its_evaluation(backend: str) -> None:
    cot = trained("gsm_cot", load_model_path="base.safetensors", save_only_improve=False, backend=backend)
    assert sorted(path.name for path in cot.path.glob("*.safetensors")) == [
        "checkpoint_1.safetensors",
        "checkpoint_2.safetensors",
    ]
    start = cot.path / "checkpoint_2.safetensors"
    assert not read(start).thinks and "h.1.attn.c_attn.weight" in load_file(start)
    run = trained("gsm_coconut", load_model_path=start, epochs_per_stage=1, backend=backend)
    assert [line["stage"] for line in run.logged("epoch")] == [0, 1]
    file = run.path / "checkpoint_2.safetensors"
    saved = CoconutForCausalLM.from_pretrained(run.checkpoint(2))
    again = CoconutForCausalLM(saved.config)
    load_into(again, read(file))
    assert torch.equal(logits(again), logits(saved))
    found = launch.evaluate_once(theirs("gsm_coconut_eval", load_model_path=file, backend=backend))
    assert found and found[0]["accuracy"]["n"] == 2
    assert len(list(lines(found[1] / "predictions.jsonl"))) == 2


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", ["prosqa", "prontoqa"])
def test_from_nothing_and_a_thinking_file_in_a_model_that_does_not(task: str, backend: str) -> None:
    run = trained(f"{task}_coconut", epochs_per_stage=1, backend=backend)
    file = run.path / "checkpoint_2.safetensors"
    found = launch.evaluate_once(theirs(f"{task}_coconut_eval", load_model_path=file, backend=backend))
    assert found and found[0]["stage"] == 7  # behind the last: six thoughts, no step
    if task == "prosqa":
        found = launch.evaluate_once(theirs("prosqa_cot_eval", load_model_path=file, backend=backend))
        assert found and (found[0]["method"], found[0]["stage"]) == ("cot", 0)


@pytest.mark.parametrize("name", sorted(path.stem for path in THEIRS.glob("*.yaml")))
def test_what_may_be_left_out_has_its_values(name: str) -> None:
    written = yamlfile.read(THEIRS / f"{name}.yaml")
    kept = {key: value for key, value in written.items() if key not in LEFT_OUT and key != "no_cot"}
    config = load(kept, check_files=False)
    assert {key: getattr(config, key) for key in LEFT_OUT} == LEFT_OUT
    assert config.method == ("cot" if written["cot"] else "coconut")


def test_files_go_with_their_checkpoints_and_only_where_asked() -> None:
    cut_off = Path("runs/prosqa-coconut/.checkpoint_1.safetensors.x.partial")  # of a run that was killed
    cut_off.parent.mkdir(parents=True)
    cut_off.touch()
    run = trained("prosqa_coconut", keep_last=1, backend="torch")
    assert not cut_off.exists()
    assert [path.name for path in run.path.glob("*.safetensors")] == ["checkpoint_2.safetensors"]
    config = theirs("prosqa_coconut", num_epochs=1, eval_samples=1, name="without", backend="torch")
    assert launch.run(config)
    assert not list(config.run_dir.glob("*.safetensors"))


def test_a_run_of_adapters_has_no_such_file() -> None:
    with pytest.raises(UserError, match="leave save_mlx_file out"):
        theirs("prosqa_coconut", save_mlx_file=True, **{"lora.r": 2})
