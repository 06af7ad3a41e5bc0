"""The wheel and the source distribution: built, and the wheel used where nothing else is."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import closure
import pytest
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
JUNK = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
FOLDERS = [".ci", ".github", "benchmarks", "configs", "docs", "examples", "slurm", "src", "tests"]


def test_what_is_imported_comes_with_the_wheel() -> None:
    """What computes on MLX comes with an extra, and nothing else imports it."""
    brought = set(closure.base())
    owners = packages_distributions()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"coconut_lm"}:
                extra = {"mlx", "mlx-lm"} if path.parent.name == "mlx" else set()
                owned = set(map(canonicalize_name, owners.get(top, [top.replace("_", "-")])))
                assert (brought | extra) & owned, f"{path} imports {top}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, made of a copy: building writes beside the sources."""
    place = tmp_path_factory.mktemp("built")
    copy = place / "source"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".cache", *JUNK))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = (built / "dist").glob("*.whl")
    return found


@pytest.mark.slow
def test_the_source_distribution_is_the_repository(built: Path) -> None:
    (found,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(found) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    copy = built / "source"
    files = {
        str(path.relative_to(copy))
        for folder in FOLDERS
        for path in (copy / folder).rglob("*")
        if path.is_file()
    }
    files = {name for name in files if ".egg-info" not in name}
    files |= {
        "Makefile",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "CHANGELOG.md",
        "Dockerfile",
        "SECURITY.md",
    }
    assert not files - inside


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_says_what_it_is(wheel: Path) -> None:
    package = ROOT / "src"
    sources = {
        path.relative_to(package).as_posix()
        for path in (package / "coconut_lm").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (told,) = (name for name in inside if name.endswith("/METADATA"))
        metadata = Metadata.from_email(archive.read(told), validate=True)
    assert {name for name in inside if name.startswith("coconut_lm/")} == sources
    assert {"coconut_lm/py.typed", "coconut_lm/templates/report.html.j2"} <= inside
    shapes = {path.name for path in (ROOT / "configs" / "models").glob("*.json")}
    assert shapes == {Path(name).name for name in inside if "/share/coconut-lm/models/" in name}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata.license_expression == "MIT" and metadata.summary and metadata.keywords


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin of a fresh environment: the wheel, and what it says that it needs, and nothing else."""
    place = tmp_path_factory.mktemp("clean") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    closure.lend(closure.base(), place / "lent")
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{place / 'lent'}\n")
    return place / "bin"


def said(clean: Path, folder: Path, *words: str) -> str:
    bare = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    bare |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": f"{clean}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_works_where_nothing_else_is(clean: Path, tmp_path: Path) -> None:
    for absent in ("pytest", "hypothesis", "mypy", "trl"):
        code = f"import importlib.util as u; print(u.find_spec({absent!r}))"
        assert said(clean, tmp_path, "python", "-c", code) == "None\n"
    place = said(clean, tmp_path, "python", "-c", "import coconut_lm; print(coconut_lm.__file__)")
    assert place.startswith(str(clean.parent))
    assert "quickstart" in said(clean, tmp_path, "coconut-lm", "--help")
    assert "quickstart" in said(clean, tmp_path, "python", "-m", "coconut_lm", "--help")
    assert said(clean, tmp_path, "coconut-lm", "--version").startswith("coconut-lm ")


@pytest.mark.slow
def test_it_makes_data_and_trains_where_nothing_else_is(clean: Path, tmp_path: Path) -> None:
    made = ["coconut-lm", "data", "make", "prosqa", "-n", "8", "--out"]
    for seed, name in enumerate(("train.json", "valid.json")):
        assert f"wrote {name}" in said(clean, tmp_path, *made, name, "--seed", str(seed))
    shape = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
    (tmp_path / "model.json").write_text(json.dumps(shape))
    run = {"model_id": "model.json", "tokenizer": "word", "method": "coconut", "max_latent_stage": 1}
    run |= {"train_path": "train.json", "val_path": "valid.json", "max_steps": 2, "num_epochs": 1}
    run |= {"batch_size_training": 4, "max_new_tokens": 4, "report_to": "None"}
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    assert "run folder: runs/run" in said(clean, tmp_path, "coconut-lm", "run", "run.yaml")
    assert "wrote" in said(clean, tmp_path, "coconut-lm", "report", "runs/run")
    asked = ("coconut-lm", "eval", "runs/run", "valid.json", "--json")
    assert json.loads(said(clean, tmp_path, *asked))["n"] == 8
    shipped = "import coconut_lm.sizing as s; print(s._shipped('gpt2-medium'))"
    assert "share/coconut-lm/models/gpt2.json" in said(clean, tmp_path, "python", "-c", shipped)
