"""`import coconut_lm` teaches transformers' Auto classes our model type, without importing transformers.

They are given a name and a promise, at once when they are loaded already, else in the moment they load. The
promise imports our model when the name is first asked for: while transformers loads, that would be too early.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

WATCHED = "transformers.models.auto.configuration_auto"


class _Promise(ModuleType):
    """Stands where transformers looks for the module of our configuration."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("coconut_lm.model"), name)


def _tell(auto: Any) -> None:
    auto.CONFIG_MAPPING._mapping.setdefault("coconut", "CoconutConfig")
    auto.CONFIG_MAPPING._modules.setdefault("coconut", _Promise("coconut"))


class _Telling(Loader):
    """Loads the watched module as its own loader would, then tells it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _tell(module)


class _Watch(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Telling(spec.loader)
        return spec


def announce() -> None:
    if WATCHED in sys.modules:
        _tell(sys.modules[WATCHED])
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
