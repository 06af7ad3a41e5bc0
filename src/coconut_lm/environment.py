"""What a run was made with: versions, code, devices, command. Nothing in it names a person."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    *("coconut-lm", "torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "safetensors"),
    *("numpy", "bitsandbytes", "mlx", "mlx-lm"),
)
HERE = Path(__file__)


def describe() -> dict[str, Any]:
    """The content of env.json. Devices are named once torch is loaded; nothing heavy is loaded for it."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "git": revision(HERE),
        "world_size": int(os.environ.get("WORLD_SIZE", 1)),
        "cpu": {"name": _cpu(), "cores": os.cpu_count()},
        **_devices(),
    }


def command() -> str:
    """How this process was started, home folders as ~."""
    words = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
    home = os.path.expanduser("~").rstrip("/")
    return words.replace(home, "~") if home else words


def packages() -> dict[str, str]:
    """Versions of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision(file: Path) -> dict[str, Any] | None:
    """The commit of the repository that holds this file, and whether something in it was changed since."""
    tracked = _git(file.parent, "ls-files", "--error-unmatch", file.name)
    # Installed into an environment inside someone's repository, the code is not of that repository.
    state = (
        _git(file.parent, "status", "--porcelain=v2", "--branch", "--untracked-files=no") if tracked else None
    )
    if not state:
        return None
    said = state.splitlines()
    commits = [line.split()[-1] for line in said if line.startswith("# branch.oid")]
    return {"revision": commits[0], "dirty": any(not line.startswith("#") for line in said)}


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None without git, without a repository, or where it does not answer."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=folder, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _devices() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {"devices": []}
    cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    devices = [{"name": each.name, "memory": each.total_memory} for each in cuda]
    if torch.backends.mps.is_available():
        devices.append({"name": "mps"})
    return {"devices": devices, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
