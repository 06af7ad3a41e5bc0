"""`coconut-lm convert` as a user types it, in the folder where the test stands."""

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import base_model, tiny
from torch import Tensor
from transformers import PreTrainedModel
from typer.testing import CliRunner, Result

from coconut_lm import CoconutForCausalLM, load_tokenizer
from coconut_lm.adapters import quietly
from coconut_lm.assembly import assemble, open_checkpoint
from coconut_lm.checkpoint import read
from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.data.example import Example, write_examples
from coconut_lm.runfolder import Progress

IDS = torch.tensor([[5, 7, 11, 64, 66, 66, 65, 3]])
EXAMPLES = [Example(f"w{n} w{n + 1}", (f"w{n}",), f"w{n + 2}") for n in range(6)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base without weights (base.json), with them (base/), and its words (words/)."""
    monkeypatch.chdir(tmp_path)
    foreign.tokenizer().save_pretrained("words")
    base = base_model("gpt2", torch.float32, vocab_size=64)
    base.save_pretrained("base")
    foreign.tokenizer().save_pretrained("base")
    shutil.copy("base/config.json", "base.json")
    return tmp_path


def source() -> CoconutForCausalLM:
    return tiny("gpt2", torch.float32)


def convert(*words: object) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, words)], env={"COLUMNS": "100"})


def well(*words: object) -> str:
    done = convert(*words)
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    return done.stdout


def wrongly(*words: object) -> str:
    before = sorted(Path().rglob("*"))
    done = convert(*words)
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    assert sorted(Path().rglob("*")) == before
    return done.stderr


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def opened(place: str) -> CoconutForCausalLM:
    return CoconutForCausalLM.from_pretrained(place)


GIVEN = ("--config", "base.json", "--tokenizer", "words")


@pytest.mark.parametrize("beside", [GIVEN, ("--config", "base"), ("--config", "run.yaml")])
def test_a_published_file_becomes_a_folder_of_ours_and_one_again(beside: tuple[str, ...]) -> None:
    Path("run.yaml").write_text("coconut: true\nmodel_id: base\ntokenizer: words\nc_thought: 1\n")
    foreign.published_file(source(), Path("checkpoint_1"))
    said = well("checkpoint_1", "ours", "--to", "hf", *beside)
    assert said == "checkpoint_1 (official, thinks) is ours (hf)\n"
    assert torch.equal(logits(opened("ours")), logits(source()))
    assert load_tokenizer("ours").convert_tokens_to_ids("<|latent|>") == opened("ours").config.latent_token_id
    well("ours", "again", "--to", "official")
    before, after = (torch.load(name, weights_only=True) for name in ("checkpoint_1", "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_was_converted_is_evaluated() -> None:
    foreign.published_file(source(), Path("checkpoint_1"))
    write_examples("data.json", EXAMPLES)
    well("checkpoint_1", "ours", "--to", "hf", *GIVEN)
    words = [
        "eval",
        "ours",
        "data.json",
        "--task",
        "plain",
        "--stage",
        "1",
        "--json",
        "--max-new-tokens",
        "3",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    metrics = json.loads(done.stdout)
    assert (metrics["n"], metrics["method"]) == (6, "coconut")


@pytest.mark.parametrize("write", [foreign.mlx_file, foreign.window_file])
def test_files_of_other_systems(write: Any) -> None:
    name = str(write(source(), Path("checkpoint_1" + ".safetensors" * (write is foreign.mlx_file))))
    well(name, "ours", "--to", "hf", *GIVEN)
    kind = "coconut" if write is foreign.mlx_file else "learnable_weights"
    assert opened("ours").config.feedback["kind"] == kind
    assert all(
        torch.equal(tensor, opened("ours").state_dict()[key]) for key, tensor in source().state_dict().items()
    )


def test_through_mlx_and_back() -> None:
    source().save_pretrained("ours")
    foreign.tokenizer().save_pretrained("ours")
    well("ours", "mlx", "--to", "mlx")
    assert well("mlx", "again", "--to", "hf") == "mlx (mlx, thinks) is again (hf)\n"
    assert torch.equal(logits(opened("again")), logits(source()))
    first, last = (opened(place).config.to_dict() | {"_name_or_path": ""} for place in ("ours", "again"))
    assert first == last
    assert opened("again").generation_config.to_dict() == opened("ours").generation_config.to_dict()


def test_a_cot_file_stays_one_or_becomes_where_coconut_starts() -> None:
    torch.save(base_model("gpt2", torch.float32, vocab_size=64).state_dict(), "checkpoint_5")
    assert "official-plain, does not think" in well("checkpoint_5", "cot", "--to", "hf", *GIVEN)
    assert not opened("cot").config.thinks
    assert "thinks" in well("checkpoint_5", "coconut", "--to", "hf", "--method", "coconut", *GIVEN)
    model = opened("coconut")
    assert model.config.thinks and model.get_input_embeddings().weight.shape == (67, 32)
    well("cot", "checkpoint_6", "--to", "official")
    assert torch.load("checkpoint_6", weights_only=True).keys() == base_model("gpt2").state_dict().keys()


def test_a_coconut_file_for_a_method_without_thoughts_loses_its_latent_rows() -> None:
    foreign.published_file(source(), Path("checkpoint_1"))
    with pytest.warns(UserWarning, match="are left out"):
        well("checkpoint_1", "cot", "--to", "hf", "--method", "cot", *GIVEN)
    assert opened("cot").get_input_embeddings().weight.shape == (64, 32)


def lora_folder() -> None:
    base = base_model("gpt2", torch.float32, vocab_size=64)
    settings = LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn"], fan_in_fan_out=True)
    with quietly():
        adapted = get_peft_model(base, settings)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained("checkpoint_2/peft")
    torch.save({"latent_weights": torch.zeros(3)}, "checkpoint_2/latent.pt")


def test_a_lora_folder_is_merged_when_asked() -> None:
    lora_folder()
    assert "add --merge" in wrongly("checkpoint_2", "ours", "--to", "hf", "--config", "base")
    assert "need the base's weights" in wrongly("checkpoint_2", "ours", "--to", "hf", "--merge", *GIVEN)
    well("checkpoint_2", "ours", "--to", "hf", "--config", "base", "--merge")
    matrix = "transformer.h.0.attn.c_attn.weight"
    before = base_model("gpt2", torch.float32, vocab_size=64).state_dict()
    after = opened("ours").base_causallm.state_dict()
    assert not torch.equal(before[matrix], after[matrix])
    assert torch.equal(before["transformer.wpe.weight"], after["transformer.wpe.weight"])


def adapted_run() -> None:
    """A checkpoint of a LoRA run, as training saves it."""
    settings = {"r": 2, "alpha": 4, "dropout": 0.0}
    config = Config(method="coconut", model_id="base", c_thought=1, max_latent_stage=2, lora=settings)
    loaded = assemble(config)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    loaded.model.save_pretrained("adapted")
    loaded.tokenizer.save_pretrained("adapted")
    dump(config, "adapted/run.yaml")
    Progress(epoch=3, step=30, stage=2).write(Path("adapted"))


def test_a_run_with_adapters_merges_and_keeps_what_its_run_says() -> None:
    adapted_run()
    loaded = open_checkpoint("adapted")
    assert "add --merge" in wrongly("adapted", "ours", "--to", "hf")
    well("adapted", "ours", "--to", "hf", "--merge")
    torch.testing.assert_close(logits(opened("ours")), logits(loaded.model), rtol=0, atol=1e-4)
    again = open_checkpoint("ours")
    assert again.progress == loaded.progress
    assert (again.method, again.curriculum) == (loaded.method, loaded.curriculum)
    assert "leave --config out" in wrongly("adapted", "more", "--to", "hf", "--config", "adapted/run.yaml")


def test_what_is_lacking_is_said() -> None:
    foreign.published_file(source(), Path("checkpoint_1"))
    assert "add --config" in wrongly("checkpoint_1", "ours", "--to", "hf")
    assert "add --tokenizer" in wrongly("checkpoint_1", "ours", "--to", "hf", "--config", "base.json")
    assert "is not there" in wrongly("checkpoint_9", "ours", "--to", "hf", *GIVEN)
    assert "no model is described by" in wrongly("checkpoint_1", "ours", "--to", "hf", "--config", "words")
    message = wrongly("checkpoint_1", "ours", "--to", "hf", "--method", "thinking", *GIVEN)
    assert "unknown method" in message and "coconut" in message


def test_another_base_is_said() -> None:
    foreign.published_file(source(), Path("checkpoint_1"))
    content = json.loads(Path("base.json").read_text())
    Path("base.json").write_text(json.dumps(content | {"n_layer": 5}))
    message = wrongly("checkpoint_1", "ours", "--to", "hf", *GIVEN)
    assert "36 missing" in message and "width 32, 5 layers" in message
    Path("base.json").write_text(json.dumps(content | {"vocab_size": 100}))
    assert "another vocabulary" in wrongly("checkpoint_1", "ours", "--to", "hf", *GIVEN)


def test_a_shape_without_a_vocabulary_has_that_of_the_tokenizer() -> None:
    foreign.published_file(source(), Path("checkpoint_1"))
    content = json.loads(Path("base.json").read_text())
    del content["vocab_size"]
    Path("base.json").write_text(json.dumps(content))
    assert "add --tokenizer" in wrongly("checkpoint_1", "ours", "--to", "hf", "--config", "base.json")
    well("checkpoint_1", "ours", "--to", "hf", *GIVEN)
    assert torch.equal(logits(opened("ours")), logits(source()))


def test_nothing_is_replaced_unasked() -> None:
    foreign.published_file(source(), Path("checkpoint_1"))
    Path("ours").mkdir()
    Path("ours/kept").write_text("kept")
    assert "--force" in wrongly("checkpoint_1", "ours", "--to", "hf", *GIVEN)
    assert "--force" in wrongly("checkpoint_1", "checkpoint_1", "--to", "official", *GIVEN)
    well("checkpoint_1", "checkpoint_1", "--to", "official", "--force", *GIVEN)
    assert read("checkpoint_1").tensors.keys() == foreign.published(source()).keys()
    well("checkpoint_1", "ours", "--to", "hf", "--force", *GIVEN)
    assert not Path("ours/kept").exists()


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_a_file_cut_short_is_said(kept: float) -> None:
    whole = foreign.published_file(source(), Path("checkpoint_1")).read_bytes()
    Path("checkpoint_1").write_bytes(whole[: int(len(whole) * kept)])
    assert "error: checkpoint_1" in wrongly("checkpoint_1", "ours", "--to", "hf", *GIVEN)


DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def test_the_commands_of_the_document_run_in_their_order() -> None:
    lora_folder()
    Path("lora").mkdir()
    Path("checkpoint_2").rename("lora/checkpoint_21")
    shutil.copy("base.json", "gpt2.json")
    Path("fixed_window.yaml").write_text("coconut: true\nmodel_id: base\nlatent_variant: fixed_window\n")
    for name in ("checkpoint_33", "checkpoint_7"):
        foreign.published_file(source(), Path(name))
    foreign.mlx_file(source(), Path("checkpoint_1.safetensors"))
    text = DOCUMENT.read_text(encoding="utf-8").replace("openai-community/gpt2", "base")
    lines = [line.split()[2:] for line in text.splitlines() if line.startswith("coconut-lm convert")]
    assert len(lines) == 8
    for words in lines:
        well(*words)
        assert Path(words[1]).exists()
    assert opened("windowed").config.feedback["kind"] == "fixed_window"
    assert torch.equal(logits(opened("back")), logits(source()))


def test_a_folder_of_weights_is_used_with_its_configuration() -> None:
    lora_folder()
    config = Config(method="coconut", model_id="base", latent_variant="learnable_weights")
    model = open_checkpoint("checkpoint_2", config).model
    well("checkpoint_2", "ours", "--to", "hf", "--config", "base", "--merge")
    assert torch.equal(
        model.base_causallm.transformer.h[0].attn.c_attn.weight,
        opened("ours").base_causallm.transformer.h[0].attn.c_attn.weight,
    )
