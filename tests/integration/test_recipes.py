"""configs/variants/noise: every recipe is typed in a shell, and the commands it gives run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import LLAMA, tokenizer_of
from pages import ROOT, commands, page
from saved import CHECKPOINT, RUN, save
from tiny import base_model
from typer.testing import CliRunner

from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.data.benchmarks import SOURCES
from coconut_lm.fits import Fit

FOLDER = ROOT / "configs" / "variants" / "noise"
KINDS = ("robustness", "branches", "battery")
RECIPES = sorted(path.stem for path in FOLDER.iterdir())
FEW = ["--samples", "2", "--max-new-tokens", "2", "--batch-size", "40"]
SUMS = [{"question": f"Tom has {n} eggs", "answer": f"{n}+4=7\n#### 7"} for n in (3, 4, 7)]
LETTERS = [{"question": "Is it?", "choices": ["Paris", "London"], "answer": n} for n in (0, 1, 0)]
# What was published: which model, how many questions, scales (of branches without 0, which is a control), and
# how many commands that is.
PUBLISHED = {
    "quick_test": ("openai/gpt-oss-20b", 25, "0,.5,1,2,3,5,7.5,10,15,20,30,50", 1),
    "full_test": ("Qwen/Qwen2.5-7B-Instruct", 100, "0,1,2,5,10", 1),
    "noisy_experiment": ("meta-llama/Llama-3.1-8B-Instruct", 900, "0:3:.1875", 1),
    "test": ("meta-llama/Llama-3.1-8B-Instruct", 10, "0:1:.1", 1),
    "branch_test": ("mistralai/Mixtral-8x7B-Instruct-v0.1", 1000, ".2,.5,1", 1),
    "noisycoconut": ("Qwen/Qwen2.5-7B-Instruct", 1000, ".2", 1),
    "noise_types": ("Qwen/Qwen2.5-7B-Instruct", 100, ".1", 4),
    "steps": ("Qwen/Qwen2.5-7B-Instruct", 100, ".2", 4),
    "paths": ("Qwen/Qwen2.5-7B-Instruct", 100, ".1", 1),
    "aggregation": ("Qwen/Qwen2.5-7B-Instruct", 100, ".1", 1),
}
# What writes down how it was called.
STANDS_IN = """#!{python} -SE
import json, sys
with open("typed", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny instruct model's folder."""
    place = tmp_path_factory.mktemp("models") / "tiny instruct"
    tokenizer = tokenizer_of(LLAMA, latent=False)
    ends = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], tokenizer.eos_token_id)
    base_model("llama", torch.float32, vocab_size=len(tokenizer), **ends).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, records in (("gsm8k", SUMS), ("mmlu", LETTERS)):
        Path(f"{name}.json").write_text(json.dumps(records))
    return tmp_path


def typed(recipe: str, *words: str) -> list[list[str]]:
    """The commands of ours that it gives."""
    stand_in = Path("coconut-lm")
    stand_in.write_text(STANDS_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    path = {"PATH": f"{stand_in.resolve().parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(FOLDER / f"{recipe}.sh"), *words], env=path, check=True)
    return [json.loads(line) for line in Path("typed").read_text().splitlines()]


def option(words: list[str], name: str) -> str:
    """The last one is the one that counts."""
    return words[len(words) - words[::-1].index(name)]


def summaries(kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in Path(kind).glob(f"*/{kind}.json")]


def test_all_are_known() -> None:
    assert sorted(PUBLISHED) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_as_typed(recipe: str, instruct: Path) -> None:
    task = "mmlu" if recipe in ("branch_test", "noisycoconut") else "gsm8k"
    commands = typed(recipe, str(instruct), f"{task}.json", *FEW)
    for words in commands:
        assert option(words, "--samples") == "2"
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output or repr(done.exception)
    found = summaries(commands[0][0])
    assert len(found) == len(commands) == PUBLISHED[recipe][3]  # each in a folder of its own
    assert {(each["task"], each["n"], each["thoughts"]) for each in found} == {(task, 2, 8)}
    assert {each["training_free"] for each in found} == {task}


@pytest.mark.parametrize("recipe", RECIPES)
def test_unless_told_otherwise_it_asks_what_was_published(recipe: str) -> None:
    model, questions, scales, commands = PUBLISHED[recipe]
    given = typed(recipe)
    assert len(given) == commands
    for words in given:
        kind, checkpoint, data, *_ = words
        assert kind in ("robustness", "branches") and checkpoint == model
        assert data in SOURCES and option(words, "--training-free").split(":")[0] == data
        assert option(words, "--samples") == str(questions) and option(words, "--scales") == scales
    assert typed(recipe, "a model")[len(given)][1:3] == ["a model", given[0][2]]


def test_ablations_differ_in_what_they_are_about() -> None:
    for recipe, name, values in (
        ("noise_types", "--noise", ["gaussian_scaled", "uniform", "orthogonal", "dropout"]),
        ("steps", "--step", ["1", "2", "3", "4"]),
        ("paths", "--branches", ["3,5,7,10"]),
    ):
        Path("typed").unlink(missing_ok=True)
        given = typed(recipe)
        assert [option(words, name) for words in given] == values
        assert len({tuple(word for word in words if word not in values) for words in given}) == 1


def test_votes_of_the_first_branches(instruct: Path) -> None:
    (words,) = typed("paths", str(instruct), "gsm8k.json", *FEW, "--json")
    found = json.loads(CliRunner().invoke(app, words).stdout)
    assert {tuple(arm["by_k"]) for arm in found["arms"]} == {("3", "5", "7", "10")}


def test_a_failure_ends_a_loop() -> None:
    Path("bin").mkdir()
    Path("bin/coconut-lm").write_text("#!/bin/sh\necho once >> asked\nexit 2\n")
    Path("bin/coconut-lm").chmod(0o755)
    path = {"PATH": f"{Path('bin').resolve()}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(FOLDER / "steps.sh")], env=path)
    assert done.returncode == 2 and Path("asked").read_text() == "once\n"


@pytest.mark.parametrize("where", ["robustness", "migrate", "../configs/README"])
def test_pages_name_all_of_them_and_no_other(where: str) -> None:
    named = set(re.findall(r"noise/([a-z_]+)\.sh", page(where)))
    assert named == set(RECIPES)


# -- the page --


def test_the_commands_of_the_page_run(instruct: Path) -> None:
    save(CHECKPOINT)
    dump(Config(method="coconut", model_id="gpt2"), Path(RUN) / "config.yaml")
    Path("data").mkdir()
    Path("mmlu.json").rename("data/questions.json")
    here = {"demo/coconut": RUN, "demo/data/test.json": "prosqa.json", "gsm8k": "gsm8k.json"}
    here |= {"Qwen/Qwen2.5-7B-Instruct": str(instruct)}
    given = [line.split()[1:] for line in commands(page("robustness"))]
    assert {words[0] for words in given} >= {"robustness", "branches", "battery"}
    for words in given:
        places = [here.get(word, word) for word in words[1:3]]
        few = FEW if words[0] != "report" else []
        done = CliRunner().invoke(app, [words[0], *places, *words[3:], *few])
        assert done.exit_code == 0, done.output or repr(done.exception)
    assert {path.parts[2] for path in Path(RUN).glob("*/prosqa-*/*.json")} == {
        "robustness",
        "branches",
        "battery",
    }


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    save("demo/coconut")
    Path("demo/data").mkdir()
    Path("prosqa.json").rename("demo/data/test.json")
    (code,) = re.findall(r"```python\n(.*?)```", page("robustness"), flags=re.S)
    exec(code, {})
    assert "'difference'" in capsys.readouterr().out and Path("swept/robustness.json").exists()


def test_its_keys_files_and_options_are_there(instruct: Path) -> None:
    save("checkpoint")
    spoken = page("robustness")
    for kind in KINDS:
        noise = ["--noise", "dropout"] if kind == "robustness" else []
        words = [kind, "checkpoint", "prosqa.json", *FEW, *noise, "--out", kind, "--json"]
        done = CliRunner().invoke(app, words)
        summary = json.loads(done.stdout)
        parts = summary.get("arms") or summary.get("rows") or summary["curves"]
        (row,) = re.findall(rf"^\| `{kind}.json`.*\n(?:\| \|.*\n)*", spoken, flags=re.M)
        named = set(re.findall(r"`(\w+)`", row.split("|", 2)[2])) - {"clean"}
        inner = {key for part in (*parts, *parts[0].get("points", [])) for key in part}
        inner |= {*Fit.__dataclass_fields__, *summary.get("verdict", {})}
        assert named <= {*summary, *inner}, kind
        assert {*parts[0]} - {"newcombe", "follows_more"} <= named, "a key that the page does not name"
        head = re.search(r"Every summary begins with (.*?)\.\n", spoken, flags=re.S)
        assert head and set(re.findall(r"`(\w+)`", head[1])) <= {*summary}
        for path in Path(kind).iterdir():
            shape = re.sub(r"dropout_\d+_\d+", "NOISE_DATE_TIME", path.name).replace(kind + ".j", "KIND.j")
            assert f"`{shape}`" in spoken, path
    known = "".join(CliRunner().invoke(app, [kind, "--help"]).stdout for kind in ("eval", *KINDS))
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", spoken)) - {"--array"}
    assert [option for option in options if option not in known] == []
