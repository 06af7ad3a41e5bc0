"""One thread per test process: two run side by side, and small models gain nothing from more.

Hypothesis looks for new examples on a developer's machine; CI repeats the same ones, so that it fails for a
change and not for a draw.
"""

import importlib.util
import os
import platform

from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start, too
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def mlx_has_wheels() -> bool:
    """Not for Windows, nor for an older glibc: there its tests are left out. Elsewhere they must run."""
    name, version = platform.libc_ver()
    newer = name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return platform.system() == "Darwin" or (platform.system() == "Linux" and newer)


if importlib.util.find_spec("mlx") is None and not mlx_has_wheels():
    collect_ignore_glob = ["*/test_mlx_*"]


settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
