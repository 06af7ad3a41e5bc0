"""A state read as data: torch's own reader would run whatever code its pickles name."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem

_LAYOUT = "torch.distributed.checkpoint.metadata"
_DATA = {
    *((_LAYOUT, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_LAYOUT, f"{kind}StorageMetadata") for kind in ("Bytes", "Chunk", "Tensor")),
    (_LAYOUT, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *((module, "PosixPath") for module in ("pathlib", "pathlib._local")),  # whichever Python wrote it
    *((module, "WindowsPath") for module in ("pathlib", "pathlib._local")),
}


class _Plain(pickle.Unpickler):
    """Knows the names that say where which tensor lies, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dtype or (module, name) in _DATA:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"not data, and it would be run: {module}.{name}")


class PlainReader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What torch reads, once nothing but data is known to be in it."""
        with open(Path(self.path) / ".metadata", "rb") as file:
            _Plain(file).load()
        return super().read_metadata(*args, **kwargs)


class PlainPlanner(DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """What is no tensor: torch reads it once it is known to be plain values."""
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)
