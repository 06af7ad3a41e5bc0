"""What shells offer, asked as they ask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coconut_lm import completion
from coconut_lm.schema import Schema

BIN = Path(sys.executable).parent


def asked(home: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "HOME": str(home), **environment}
    return subprocess.run(command, cwd=home, env=given, capture_output=True, text=True)


def bash(home: Path, *words: str) -> list[str]:
    """The offers for the last word."""
    told = {"COMP_WORDS": "\n".join(["coconut-lm", *words]), "COMP_CWORD": str(len(words))}
    done = asked(home, ["coconut-lm"], _COCONUT_LM_COMPLETE="complete_bash", **told)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_is_offered_commands_options_and_keys(tmp_path: Path) -> None:
    assert {"run", "eval", "quickstart", "data"} <= set(bash(tmp_path, ""))
    assert set(bash(tmp_path, "plan", "x.yaml", "--dev")) == {"--device", "--devices"}
    assert bash(tmp_path, "run", "x.yaml", "lr") == ["lr=", "lr_scheduler="]
    assert bash(tmp_path, "check", "x.yaml", "warm") == ["warmup_steps=", "warmup_steps=0"]
    assert "lora.r=" in bash(tmp_path, "plan", "x.yaml", "lora.")


def test_bash_parts_words_at_the_equals_sign(tmp_path: Path) -> None:
    assert bash(tmp_path, "run", "x.yaml", "method", "=", "co") == ["cot", "coconut"]
    assert "icot" in bash(tmp_path, "run", "x.yaml", "method", "=")
    assert bash(tmp_path, "run", "x.yaml", "lr", "=", "1e-4", "bf16", "=") == ["true", "false", "pure"]
    assert bash(tmp_path, "run", "x.yaml", "method", "=", "coconut", "meth") == []  # a key once
    assert bash(tmp_path, "run", "x.yaml", "lora.quantize", "=", "4") == ["4bit"]


@pytest.mark.parametrize("words", [["run", "x"], ["run", "x.yaml", "train_path", "=", "d"], ["report", ""]])
def test_bash_is_left_to_offer_files(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "data").mkdir()
    assert bash(tmp_path, *words) == []


@pytest.mark.parametrize(
    "line, offered",
    [
        ("run x.yaml method=co", {"method=cot", "method=coconut"}),
        ("run x.yaml val_path=da", {"val_path=data/"}),
        ("run x.yaml val_path=data/", {"val_path=data/valid.json"}),
        ("run x.yaml nothing=", set()),
    ],
)
def test_fish_keeps_key_and_value_together(tmp_path: Path, line: str, offered: set[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "valid.json").touch()
    told = {"_TYPER_COMPLETE_ARGS": f"coconut-lm {line}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = asked(tmp_path, ["coconut-lm"], _COCONUT_LM_COMPLETE="complete_fish", **told)
    assert {each.split("\t")[0] for each in done.stdout.split("\n") if each} == offered


def test_zsh_is_told_what_a_key_does(tmp_path: Path) -> None:
    told = {"_TYPER_COMPLETE_ARGS": "coconut-lm run x.yaml lr"}
    done = asked(tmp_path, ["coconut-lm"], _COCONUT_LM_COMPLETE="complete_zsh", **told)
    assert '"lr=":"Learning rate of AdamW."' in done.stdout
    told["_TYPER_COMPLETE_ARGS"] = "coconut-lm run x"
    done = asked(tmp_path, ["coconut-lm"], _COCONUT_LM_COMPLETE="complete_zsh", **told)
    assert done.stdout == "_files\n"


def test_offers_are_what_a_run_takes() -> None:
    fields = dict(completion._fields())
    assert {key.partition(".")[0] for key in fields} == set(Schema.model_fields)
    for key, field in fields.items():
        section, _, inner = key.rpartition(".")
        for value, _ in completion._values(field, ""):
            given = {section: {inner: value}} if section else {inner: value}
            Schema.model_validate({"method": "cot", **given})


def test_the_script_works_in_bash(tmp_path: Path) -> None:
    script = """
    source <(coconut-lm --show-completion; true)
    COMP_WORDS=(coconut-lm run x.yaml method = pause_) COMP_CWORD=5
    _coconut_lm_completion coconut-lm
    printf '%s' "${COMPREPLY[@]}"
    """
    done = asked(tmp_path, ["bash", "-c", script])
    assert (done.stdout, done.stderr) == ("pause_as_thought", "")


@pytest.mark.parametrize(
    "shell, place",
    [
        ("bash", ".bash_completions/coconut-lm.sh"),
        ("zsh", ".zfunc/_coconut-lm"),
        ("fish", ".config/fish/completions/coconut-lm.fish"),
    ],
)
def test_it_installs_itself(tmp_path: Path, shell: str, place: str) -> None:
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = asked(tmp_path, ["coconut-lm", "--install-completion", shell], **told)
    assert done.returncode == 0 and f"{shell} completion installed" in done.stdout
    assert f"_COCONUT_LM_COMPLETE=complete_{shell}" in (tmp_path / place).read_text()


def test_asking_is_quick_and_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys; from coconut_lm import completion; dict(completion._fields());"
    code += "print({'torch', 'transformers', 'numpy', 'rich'} & set(sys.modules))"
    assert asked(tmp_path, [sys.executable, "-c", code]).stdout == "set()\n"
