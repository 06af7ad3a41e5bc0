"""One thread per test process: two run side by side, and small models gain nothing from more.

Hypothesis looks for new examples on a developer's machine; CI repeats the same ones, so that it fails for a
change and not for a draw.
"""

import importlib.util
import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start, too
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if os.name == "nt" and importlib.util.find_spec("mlx") is None:  # there is none for Windows
    collect_ignore_glob = ["*/test_mlx_*"]

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
