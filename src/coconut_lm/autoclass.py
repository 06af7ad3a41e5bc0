"""`import coconut_lm` teaches transformers' Auto classes our model type, without importing transformers.

They are told at once when they are loaded already, else in the moment they load.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

WATCHED = "transformers.models.auto.configuration_auto"
OURS = "coconut_lm.model"


class _Tell(Loader):
    """Loads the watched module as its own loader would, then imports our model, which registers itself."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module(OURS)


class _Watch(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Tell(spec.loader)
        return spec


def announce() -> None:
    if WATCHED in sys.modules:
        importlib.import_module(OURS)
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
