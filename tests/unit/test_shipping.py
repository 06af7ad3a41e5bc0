"""What ships the project says what the project is: workflows, container, versions, citation."""

import fnmatch
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coconut_lm import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in (ROOT / ".github" / "workflows").iterdir()
}


def steps(workflow: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


def commands(workflow: dict[Any, Any]) -> str:
    return "\n".join(step.get("run", "") for step in steps(workflow))


def test_the_version_is_one() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {PROJECT["version"], cited["version"], __version__} == {__version__}
    assert {"cff-version", "message", "title", "type", "authors", "license", "date-released"} <= set(cited)
    assert cited["cff-version"] == "1.2.0" and cited["license"] == PROJECT["license"]
    for each in cited["references"]:
        assert {"type", "title", "authors"} <= set(each)
        assert all({"family-names", "given-names"} <= set(author) for author in each["authors"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_what_is_there(name: str) -> None:
    told = commands(WORKFLOWS[name])
    assert set(re.findall(r"^make ([a-z-]+)", told, flags=re.M)) <= TARGETS
    scripts = set(re.findall(r"(?<![\w/])\.ci/\w+", told))
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)
    subprocess.run(["bash", "-n", "-c", told], check=True)
    assert "${{" not in told, "what others write must not become a command"
    jobs = WORKFLOWS[name]["jobs"]
    for job in jobs.values():
        assert set([job["needs"]] if "needs" in job else []) <= set(jobs)
        assert "timeout-minutes" in job or "uses" in job


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_do_little(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    may = {job: set(each["permissions"]) for job, each in workflow["jobs"].items() if "permissions" in each}
    expected = {"pypi": {"id-token"}, "github": {"contents"}, "docs": {"pages", "id-token"}}
    assert may == (expected if name == "release.yml" else {})
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used and all(re.search(r"@(v\d+|release/v\d+)$", each) for each in used)


def test_ci_is_what_a_developer_runs() -> None:
    ci = WORKFLOWS["ci.yml"]
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert [step["run"] for step in ci["jobs"]["test"]["steps"] if "run" in step][-1] == ".ci/run"
    assert commands({"jobs": {"macos": ci["jobs"]["macos"]}}).split("\n")[-1] == "make test"
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert set(re.findall(r"^make ([a-z-]+)", run, flags=re.M)) == {"check", "test", "test-slow"} <= TARGETS


def test_a_release_is_tested_and_tried_before_it_is_published() -> None:
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert [jobs[each]["needs"] for each in ("build", "pypi", "github", "docs")] == [
        "test",
        "build",
        "pypi",
        "pypi",
    ]
    assert jobs["pypi"]["environment"] == "pypi"
    told = commands(WORKFLOWS["release.yml"])
    assert 'pip" install -c constraints.txt dist/*.whl' in told and "coconut-lm --version" in told


@pytest.mark.parametrize("tag, passes", [(f"v{__version__}", True), ("v99.0.0", False), (__version__, False)])
def test_a_tag_that_is_not_the_version_stops_a_release(tag: str, passes: bool) -> None:
    (line,) = re.findall(r"^test .*pyproject.toml\)\"$", commands(WORKFLOWS["release.yml"]), flags=re.M)
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env={**os.environ, "GITHUB_REF_NAME": tag})
    assert (done.returncode == 0) == passes


def test_notes_are_the_section_of_a_version(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "notes"
    script.write_bytes((ROOT / ".ci" / "notes").read_bytes())
    sections = [
        "# Changelog",
        "## 0.10.0 (later)\n- ten",
        "## 0.1.0 (now)\n- one\n- two",
        "## 0.0.9",
        "## 0.0.8\n- old",
    ]
    (tmp_path / "CHANGELOG.md").write_text("\n\n".join(sections))

    def notes(version: str) -> tuple[int, str]:
        done = subprocess.run(["bash", str(script), version], capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    assert notes("0.1.0") == (0, "- one\n- two")
    assert notes("0.10.0") == (0, "- ten")
    assert notes("0.0.9")[0] == notes("0.0")[0] == notes("1.0.0")[0] == 1


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def left_out(name: str) -> bool:
    """Whether .dockerignore keeps a name of the root from the image: its last line that fits decides."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    fits = [line for line in lines if line and fnmatch.fnmatch(name, line.removeprefix("!"))]
    return bool(fits) and not fits[-1].startswith("!")


def test_the_container_copies_what_is_there_and_needed() -> None:
    copied = [name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]]
    ours = [name for name in copied if not name.startswith(("--from", "/opt"))]
    assert all((ROOT / name).exists() and not left_out(name) for name in ours)
    assert {"src", "configs", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"} == set(ours)
    assert left_out(".venv") and left_out("runs") and left_out(".git")


def test_the_container_is_built_as_tested_and_runs_as_nobody_special() -> None:
    told = instructions()
    pips = [rest for word, rest in told if word == "RUN" and "pip install" in rest]
    assert len(pips) == 2 and all("-c constraints.txt" in each and "$TORCH_INDEX" in each for each in pips)
    said = dict(told)
    assert said["USER"] not in ("0", "root") and said["ENTRYPOINT"] == '["coconut-lm"]'
    (base,) = [rest for word, rest in told if word == "ARG" and rest.startswith("BASE=")]
    assert base.startswith("BASE=python:3.") and base.endswith("-slim")
    assert "coconut-lm" in PROJECT["scripts"] and PROJECT["requires-python"] == ">=3.11"


def test_whoever_contributes_is_told_commands_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert (
        {"test", "check", "test-slow", "docs"}
        <= set(re.findall(r"\bmake ([a-z-]+)", text))
        <= TARGETS | {"all"}
    )
    for name in re.findall(r"`([\w./-]+\.(?:md|toml|txt|yml|cff|py))`", text):
        assert (ROOT / name).exists() or name in ("utils.py",), name
