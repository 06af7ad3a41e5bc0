"""Files appear whole or not at all: written beside their place, then renamed into it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from coconut_lm.errors import UserError


def refuse_overwrite(path: Path, force: bool) -> None:
    """Says before the work what would be found after it: something is there, or nothing can be."""
    if path.is_dir():
        raise UserError(f"{path} is a folder", expected="the name of a file")
    if path.exists() and not force:
        raise UserError(f"{path} exists", do="choose another name, or add --force to replace it")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "it may not be written" if above.is_dir() else "it is not a folder"
        raise UserError(f"nothing can be put into {above}", given=why, do="choose another place")


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, force: bool = True) -> Iterator[TextIO]:
    """Opens a UTF-8 text file that takes the name `path` if the block ends well; `.buffer` takes bytes."""
    path = Path(path)
    refuse_overwrite(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """A folder to fill, which takes the name `path` if the block ends well."""
    path = Path(path)
    refuse_overwrite_folder(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    old = beside.with_suffix(".old")
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        if path.exists():  # what had the name goes only when its successor has it
            path.rename(old)
        beside.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def refuse_overwrite_folder(path: Path, force: bool) -> None:
    """As for a file; an empty folder is taken as it is."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file", expected="the name of a folder")
    if path.is_dir() and not force and any(path.iterdir()):
        raise UserError(f"{path} exists", do="choose another name, or add --force to replace it")
    refuse_overwrite(path / "inside", force)


def read_text(path: str | os.PathLike[str]) -> str:
    """A UTF-8 file, with or without a byte order mark, its line ends made \\n."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}", given=error.strerror, expected="a UTF-8 text file") from None
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8",
            given=f"byte 0x{data[error.start]:02x} at offset {error.start}, in line {line}",
            do="save the file as UTF-8",
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
