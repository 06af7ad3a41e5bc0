"""Loading, overriding and dumping; every mistake said at once."""

import datetime
import re
from pathlib import Path
from typing import Any

import pytest

from coconut_lm import yamlfile
from coconut_lm.config import Config, dump, load
from coconut_lm.errors import UserError
from coconut_lm.schema import Icot, Lora

SMALL: dict[str, Any] = {"method": "coconut", "model_id": "openai-community/gpt2"}


def quick(*overrides: str, **given: Any) -> Config:
    return load(SMALL | given, overrides, check_files=False)


def complaint(*overrides: str, check_files: bool = False, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(SMALL | given, overrides, check_files=check_files)
    return str(caught.value)


def from_text(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides, check_files=False)


# -- what is read


@pytest.mark.parametrize("written", ["1e-4", "1E-4", '"1e-4"', '!!float "1e-4"', "1.0e-4", "0.0001", ".1e-3"])
def test_numbers_load_however_they_are_written(tmp_path: Path, written: str) -> None:
    assert from_text(tmp_path, f"method: cot\nmodel_id: gpt2\nlr: {written}").lr == 1e-4


@pytest.mark.parametrize("written", ["None", '"None"', "null", "~", ""])
def test_none_is_none_however_it_is_written(tmp_path: Path, written: str) -> None:
    text = f"method: cot\nmodel_id: gpt2\nload_model_path: {written}\nmax_steps: {written}\nlora: {written}"
    config = from_text(tmp_path, text)
    assert (config.load_model_path, config.max_steps, config.lora) == (None, None, None)


def test_quoted_values_mean_what_they_say() -> None:
    config = quick(seed="7", debug="True", uniform_prob="0.5", num_epochs=3.0, latent_window_size="4.0")
    assert (config.seed, config.debug, config.uniform_prob) == (7, True, 0.5)
    assert (config.num_epochs, config.latent_window_size) == (3, 4)


def test_words_that_yaml_reads_as_something_else(tmp_path: Path) -> None:
    text = "method: cot\nmodel_id: gpt2\nfsdp: off\nnew_token_init: <<\nname: 2024-01-31\nlatent_norm: none"
    config = from_text(tmp_path, text)
    assert (config.fsdp, config.new_token_init, config.latent_norm) == ("off", "<<", "none")
    assert config.name == "2024-01-31" and not isinstance(config.name, datetime.date)


@pytest.mark.parametrize("method", ["coconut", "cot", "no_thoughts", "no_cot"])
def test_one_true_boolean_is_the_method(method: str) -> None:
    flags: dict[str, Any] = {"coconut": False, "cot": "False", "no_thoughts": False, "no_cot": False}
    assert load({"model_id": "gpt2"} | flags | {method: True}, check_files=False).method == method
    assert load({"model_id": "gpt2", method: "True", "method": method}, check_files=False).method == method


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"coconut": True, "cot": True}, "coconut, cot: more than one is true"),
        ({"coconut": False, "cot": False}, "coconut, cot: none is true"),
        ({"coconut": True, "method": "cot"}, "method, coconut: given 'cot', True; they contradict"),
        ({"coconut": False, "method": "coconut"}, "method, coconut: given 'coconut', False; they contradict"),
        ({"coconut": "perhaps", "method": "coconut"}, "coconut: given 'perhaps'; allowed: true or false"),
        ({"cot": 1}, "cot: given 1; allowed: true or false"),
        ({}, "method: missing; allowed: cot, no_cot"),
    ],
)
def test_booleans_that_name_no_method(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load({"model_id": "gpt2"} | flags, check_files=False)
    assert said in str(caught.value) and "1 mistake" in str(caught.value)


def test_spellings_of_the_systems() -> None:
    assert [quick(reset_optimizer=v).reset_optimizer for v in (True, False, "stage")] == [
        "epoch",
        "never",
        "stage",
    ]
    assert [quick(bf16=v).bf16 for v in (False, "True", "pure")] == [False, True, "pure"]
    assert [quick(latent_variant=v).latent_variant for v in ("basic", "coconut", "None", None)] == [
        "coconut"
    ] * 4
    both = (["wandb", "trackio"], "wandb, trackio")
    assert [quick(report_to=v).report_to for v in ("wandb", "none", None, *both)] == [
        ("wandb",),
        (),
        (),
        ("wandb", "trackio"),
        ("wandb", "trackio"),
    ]


def test_what_keys_imply() -> None:
    adapted = quick(latent_variant="learnable_weights_lora")
    assert adapted.lora == Lora(r=8, alpha=16, dropout=0.05, target_modules=("c_attn", "c_proj"))
    assert (adapted.latent_variant, adapted.latent_window_scope) == ("learnable_weights", "history")
    assert quick(latent_variant="learnable_weights_lora", lora={"r": 2}).lora == Lora(r=2)
    assert (quick().dtype, quick(bf16="pure").dtype) == ("float32", "bfloat16")
    assert quick(latent_variant="fixed_window").latent_window_weights == (0.6, 0.3, 0.1)
    assert quick(method="pause", c_thought=2, max_latent_stage=3).pause_tokens == 6
    assert quick(model_id=None, model_config_path="gpt2.json").tokenizer == "openai-community/gpt2"


@pytest.mark.parametrize(
    "val_path, task",
    [
        ("data/gsm_valid.json", "gsm8k"),
        ("openai/gsm8k", "gsm8k"),
        ("data/ProsQA_test.json", "prosqa"),
        ("prontoqa/valid.json", "prontoqa"),
        ("data/math_valid.json", "math"),
        ("/home/math/work/data/mine.json", None),
        (None, None),
    ],
)
def test_the_task_is_told_from_the_file(val_path: str | None, task: str | None) -> None:
    assert quick(val_path=val_path).task == task
    assert quick(val_path=val_path, task="plain").task == "plain"


def test_home_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert quick(save_path="~/runs", name="a").run_dir == Path("/home/ada/runs/a")
    assert quick(save_path=Path("~/runs")).save_path == "/home/ada/runs"


# -- overrides


def test_overrides_are_read_like_yaml() -> None:
    config = quick("lr=1e-5", "lora.r=16", "lora.target_modules=[q, v]", "debug=true", "load_model_path=None")
    assert (config.lr, config.debug, config.load_model_path) == (1e-5, True, None)
    assert config.lora == Lora(r=16, target_modules=("q", "v"))
    assert quick("lora=null", lora={"r": 2}).lora is None
    assert quick("lora.r=4", lora={"r": 2, "alpha": 3}).lora == Lora(r=4, alpha=3)
    assert quick("lora.r=4", lora="None").lora == Lora(r=4)
    assert quick("icot={smoothing: 2}").icot == Icot(smoothing=2)
    assert (quick("name=007", "project='a b'").name, quick("name=a=b").name) == ("007", "a=b")
    assert quick("seed=1", "seed=2").seed == 2


def test_an_overriding_method_replaces_the_booleans_of_the_file() -> None:
    file = {"model_id": "gpt2", "coconut": True, "cot": False}
    assert load(file, ["method=icot"], check_files=False).method == "icot"
    assert load(file, ["coconut=False", "cot=True"], check_files=False).method == "cot"
    with pytest.raises(UserError, match="more than one is true"):
        load(file, ["cot=True"], check_files=False)


@pytest.mark.parametrize(
    "override, said",
    [
        ("lr", "lr: no value; write lr=VALUE"),
        ("lr.x=1", "lr.x: lr is 0.1, which has no keys"),
        ("lora.rank=3", "lora.rank: unknown key, given '3'"),
        ("leraning_rate=3", "leraning_rate: unknown key"),
        ("lr=fast", "lr: given 'fast'; allowed: a number from 0"),
    ],
)
def test_wrong_overrides(override: str, said: str) -> None:
    assert said in complaint(override, lr=0.1)


# -- mistakes


def test_all_mistakes_are_said_at_once_with_the_nearest_names() -> None:
    text = complaint(
        "seed",
        lrr=3,
        batch_size=4,
        lr=-1,
        uniform_prob=2,
        latent_variant="learnable",
        lora={"r": 0, "alpa": 1},
        name=12,
        resume=30,
        stage_mix="proportional",
    )
    assert text.startswith("the configuration has 10 mistakes")
    for line in [
        "seed: no value; write seed=VALUE",
        "lrr: unknown key, given 3; did you mean lr",
        "batch_size: unknown key, given 4; did you mean eval_batch_size or batch_size_training?",
        "lr: given -1; allowed: a number from 0",
        "uniform_prob: given 2; allowed: a number from 0 to 1",
        "latent_variant: given 'learnable'; allowed: coconut, fixed_window",
        "did you mean learnable_weights?",
        "lora.r: given 0; allowed: a whole number above 0",
        "lora.alpa: unknown key, given 1; did you mean lora.alpha",
        "name: given 12; allowed: text; put it in quotes",
        "resume, num_epochs: given 30, 25; nothing is left to train",
    ]:
        assert line in text
    assert "stage_mix" not in text, "a rule was applied to a key that is wrong by itself"


@pytest.mark.parametrize(
    "given, said",
    [
        ({"name": "../x"}, "leaves save_path"),
        ({"name": "/x"}, "leaves save_path"),
        ({"backend": "mlx", "fsdp": "full"}, "mlx does not shard"),
        ({"c_thought": 0, "max_latent_stage": 2}, "no thought comes"),
        ({"method": "pause"}, "no pause token"),
        ({"stage_mix": "proportional", "uniform_prob": 0.1}, "both draw the stage"),
        ({"shuffle": False, "group_by_length": True}, "both order the examples"),
        ({"model_id": None}, "no model; give model_id"),
        ({"model_id": "tiny.json", "tokenizer": "word", "only_eval": True}, "untrained model"),
        ({"model_config_path": "gpt2.json"}, "two models"),
        ({"model_id": "tiny.json"}, "brings no tokenizer"),
        ({"lora.r": 3}, "lora.r: unknown key, given 3; write it as a section"),
        ({"bf16": "pure", "dtype": "float32"}, "pure means bfloat16"),
        ({"latent_variant": "learnable_weights_lora", "lora": None}, "is the one without adapters"),
        ({"latent_variant": "fixed_window", "latent_window_size": 4}, "give the weights"),
        ({"latent_variant": "fixed_window", "latent_window_weights": [1.0]}, "one weight for each"),
        ({"latent_variant": "fixed_window", "latent_window_weights": [0, 0, 1]}, "the newest state"),
        ({"latent_window_weights": [1, 1, 1]}, "only fixed_window takes weights"),
    ],
)
def test_one_mistake(given: dict[str, Any], said: str) -> None:
    text = complaint(**given)
    assert said in text and "1 mistake" in text


@pytest.mark.parametrize(
    "given",
    [
        {"method": "cot", "c_thought": 0, "max_latent_stage": 0},
        {"method": "cot", "latent_variant": "learnable_weights"},
        {"method": "no_thoughts", "c_thought": 0, "max_latent_stage": 3},
        {"only_eval": True, "resume": 40, "num_epochs": 25},
        {"only_eval": True, "model_id": "runs/x/checkpoints/checkpoint_3"},
        {"lr": 0, "weight_decay": 0, "eval_samples": 0},
    ],
)
def test_what_is_odd_but_possible(given: dict[str, Any]) -> None:
    assert quick(**given)


# -- the class


def test_the_class_is_for_notebooks() -> None:
    config = Config(method="coconut", model_id="openai-community/gpt2", c_thought=2)
    assert config == quick(c_thought=2)
    with pytest.raises(UserError, match="2 mistakes\n  method: missing.*\n  lrr: unknown key"):
        Config(model_id="gpt2", lrr=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 3.0  # type: ignore[misc]


def test_it_is_a_value() -> None:
    assert hash(quick(lora={"r": 2})) == hash(quick("lora.r=2")) and quick() != quick(seed=1)


# -- files


@pytest.mark.parametrize(
    "text, said",
    [
        ("lr: 1\nlr: 2\n", "line 2, column 1: 'lr' is given twice"),
        ("lora:\n  r: 1\n  r: 2\n", "line 3, column 3: 'r' is given twice"),
        ("lr: [1, 2\nseed: 3\n", "line 2, column 5"),
        ("\tlr: 3\n", "line 1, column 1"),
        ('lr: !!float "fast"\n', "line 1, column 5: 'fast' is not a float"),
        ('debug: !!bool "x"\n', "line 1, column 8: 'x' is not a bool"),
        ("lr: !!python/object:os.system x\n", "line 1, column 5"),
        ("lr: 1\n---\nlr: 2\n", "line 2, column 1"),
        ("lr: \x00\n", "not readable YAML"),
        ("- lr\n", "holds no keys"),
        ("lr\n", "holds no keys"),
        ("", "method: missing"),
        ("on: 3\nmethod: cot\nmodel_id: gpt2\n", "True: unknown key"),
    ],
)
def test_yaml_mistakes_are_located(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        from_text(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    for name, said in {
        "latin.yaml": "not UTF-8",
        "none.yaml": "cannot be read",
        ".": "cannot be read",
    }.items():
        with pytest.raises(UserError, match=said):
            load(tmp_path / name)


def test_a_byte_order_mark_and_a_merge_key_are_fine(tmp_path: Path) -> None:
    text = "\ufeffmethod: cot\nmodel_id: gpt2\nlora: &small\n  r: 2\n  alpha: 3\n"
    assert from_text(tmp_path, text).lora == Lora(r=2, alpha=3)
    assert yamlfile.parse("a: &a {r: 1}\nb: {<<: *a, s: 2}\n") == {"a": {"r": 1}, "b": {"r": 1, "s": 2}}


def test_places_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/gsm_train.json").write_text("[]")
    text = complaint(
        check_files=True,
        model_id="Qwen/Qwen3-4B",
        tokenizer="./tok",
        load_model_path="runs/gsm/checkpoint_3",
        save_path="YOUR_PATH_TO_SAVE_THE_MODEL",
        train_path="data/gsm_trian.json",
        val_path="data/gsm",
    )
    assert "5 mistakes" in text and "model_id" not in text
    assert (
        "train_path: given 'data/gsm_trian.json'; no such file or folder; is it data/gsm_train.json?" in text
    )
    assert "save_path: given 'YOUR_PATH_TO_SAVE_THE_MODEL'; is not filled in" in text
    assert "load_model_path: given 'runs/gsm/checkpoint_3'; no such file or folder; nor is there" in text


def test_places_that_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valid.json").write_text("[]")
    config = load(SMALL | {"train_path": "someone/gsm8k", "val_path": "valid.json", "tokenizer": "word"})
    assert config.train_path == "someone/gsm8k"
    only = {"only_eval": True, "train_path": "YOUR_PATH_TO_TRAIN.json", "val_path": "./valid.json"}
    assert load(SMALL | only).only_eval
    assert "train_path: given None; is missing" in complaint(check_files=True, val_path="valid.json")


def test_dump_is_whole_and_readable(tmp_path: Path) -> None:
    config = quick(name="1e5", lora={"r": 2}, latent_norm="none", project="über: alles # ja")
    dump(config, tmp_path / "deep" / "config.yaml")
    text = (tmp_path / "deep" / "config.yaml").read_text(encoding="utf-8")
    assert "method: coconut\n" in text and "fsdp: 'off'\n" in text and "über" in text
    assert load(tmp_path / "deep" / "config.yaml", check_files=False) == config
