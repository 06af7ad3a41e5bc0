"""What env.json says: enough to know what a run was made with, nothing about who made it."""

import getpass
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coconut_lm import environment
from coconut_lm.environment import command, describe, revision


def git(place: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A file in a repository with one commit."""
    file = tmp_path / "room.py"
    file.write_text("one\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "room.py")
    git(tmp_path, "commit", "-qm", "One")
    return file


def test_all_of_it_is_json_and_comes_fast() -> None:
    begun = time.perf_counter()
    found = describe()
    assert time.perf_counter() - begun < 1  # 0.01 s on an idle machine
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["coconut-lm"] and found["packages"]["torch"]
    assert found["world_size"] >= 1 and found["cpu"]["cores"] >= 1


def test_the_ranks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert describe()["world_size"] == 8


def test_torch_is_not_loaded_for_it_but_used_where_it_is() -> None:
    code = "import sys; from coconut_lm.environment import describe; found = describe(); "
    code += "assert 'torch' not in sys.modules and found['devices'] == []; import torch; "
    code += "assert describe()['threads'] == torch.get_num_threads()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_homes_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    words = ["/home/ann/venv/bin/python", "-m", "coconut_lm", "run", "/home/ann/my runs/x.yaml", "lr=1e-4"]
    monkeypatch.setattr(sys, "orig_argv", words)
    assert command() == "python -m coconut_lm run '~/my runs/x.yaml' lr=1e-4"
    assert "/home/ann" not in json.dumps(describe())


def test_people_and_machines_are_not_named() -> None:
    said = {key: value for key, value in describe().items() if key != "command"}
    assert os.uname().nodename not in json.dumps(said).split('"')
    assert getpass.getuser() not in json.dumps(said).split('"')


def test_a_commit_and_what_was_changed_since(code: Path) -> None:
    head = git(code.parent, "rev-parse", "HEAD").strip()
    assert revision(code) == {"revision": head, "dirty": False}
    (code.parent / "notes.txt").write_text("not code", encoding="utf-8")
    assert revision(code) == {"revision": head, "dirty": False}
    code.write_text("two\n", encoding="utf-8")
    assert revision(code) == {"revision": head, "dirty": True}


def test_a_repository_that_only_surrounds_the_code_is_not_its_own(code: Path) -> None:
    installed = code.parent / ".venv" / "room.py"
    installed.parent.mkdir()
    installed.write_text("one\n", encoding="utf-8")
    assert revision(installed) is None


def test_without_git_nothing_is_said(code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert revision(code) is None
    assert describe()["git"] is None


def test_a_git_that_hangs_is_left(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: object, **kwargs: object) -> None:
        raise subprocess.TimeoutExpired("git", 5)

    monkeypatch.setattr(environment.subprocess, "run", hang)
    assert revision(code) is None
