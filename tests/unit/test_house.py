"""The house stands as docs/design.md draws it."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "coconut_lm"
MLX = importlib.util.find_spec("mlx") is not None


def listed_rooms() -> tuple[list[str], list[str]]:
    """All rooms in order, and those before the torch line."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```rooms\n(.*?)```", text, flags=re.S)
    rooms: list[str] = []
    neutral: list[str] = []
    for line in block.splitlines():
        if line.startswith("-- torch"):
            neutral = list(rooms)
        elif not line.startswith("--"):
            rooms.append(line.split()[0].removesuffix(".py").replace("/", "."))
    return rooms, neutral


ROOMS, NEUTRAL = listed_rooms()


def imports_of(room: str) -> set[str]:
    """The rooms that a room names in any import, lazy ones included."""
    tree = ast.parse((PACKAGE / (room.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coconut_lm"):
            module = node.module.removeprefix("coconut_lm").lstrip(".")
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {module} if module in ROOMS else {name for name in names if name in ROOMS}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("coconut_lm.")
                for alias in node.names
                if alias.name.startswith("coconut_lm.")
            }
    return found


def test_every_file_is_a_listed_room() -> None:
    files = {
        str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".") for path in PACKAGE.rglob("*.py")
    }
    assert {name for name in files if not name.endswith("__init__")} == set(ROOMS)


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in ("cli", "__main__")])
def test_a_room_imports_only_rooms_above(room: str) -> None:
    below = imports_of(room) - set(ROOMS[: ROOMS.index(room)])
    assert not below, f"{room} imports {sorted(below)}, which stand below it in docs/design.md"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_neutral_rooms_load_neither_torch_nor_mlx() -> None:
    imports = "; ".join(f"import coconut_lm.{room}" for room in NEUTRAL)
    heavy = "[m for m in ('torch', 'mlx', 'mlx_lm') if m in sys.modules]"
    assert run_python(f"import sys; {imports}; print({heavy})") == "[]"


def test_mlx_is_loaded_where_it_is_asked_for_alone() -> None:
    """Torch may be all there is."""
    rooms = [room for room in ROOMS if not room.startswith("mlx.") and room != "__main__"]
    imports = "; ".join(f"import coconut_lm.{room}" for room in rooms)
    assert run_python(f"import sys; {imports}; print([m for m in sys.modules if m[:3] == 'mlx'])") == "[]"


def test_importing_the_package_is_fast_and_light() -> None:
    code = "import time; t = time.perf_counter(); import coconut_lm; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.3


def test_every_torch_room_can_be_imported_first() -> None:
    """Whichever comes first pulls in transformers, and our model may not be asked for too early."""
    absent = () if MLX else ("mlx.",)
    torch_rooms = [
        room
        for room in ROOMS[len(NEUTRAL) :]
        if room not in ("cli", "__main__") and not room.startswith(absent)
    ]
    forks = "import os, sys, importlib, torch\nfor room in sys.argv[1:]:\n"
    forks += (
        "    pid = os.fork()\n    if pid == 0: importlib.import_module('coconut_lm.' + room); os._exit(0)\n"
    )
    forks += "    assert os.waitpid(pid, 0)[1] == 0, room\n"
    done = subprocess.run([sys.executable, "-c", forks, *torch_rooms], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    import coconut_lm

    for name in coconut_lm.__all__:
        assert getattr(coconut_lm, name) is not None
        assert name not in ROOMS, "the room of that name would take its place once it is imported"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = coconut_lm.nothing


def test_functions_and_files_keep_the_size_of_the_house() -> None:
    long_files = [str(p) for p in PACKAGE.rglob("*.py") if len(p.read_text("utf-8").splitlines()) > 350]
    most = {"train.py": 40}  # two screens for a loop that is read
    long_functions = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > most.get(path.name, 60)
    ]
    assert not long_files and not long_functions
