"""What `pip install coconut-lm` brings, without extras: read from the packages that are installed here."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def base() -> dict[str, Distribution]:
    """The distributions that the project needs, and what these need, by canonical name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(line) for line in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (key, extra) not in seen:
                seen.add((key, extra))
                found[key] = distribution(wanted.name)
                waiting += _needed(found[key], extra)
    return found


def _needed(of: Distribution, extra: str) -> Iterator[Requirement]:
    for line in of.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            yield wanted


def modules(of: Distribution) -> set[str]:
    """The names it puts into site-packages: modules, packages, and its metadata."""
    tops = {Path(file).parts[0] for file in of.files or ()}
    return {top for top in tops if top not in ("..", "__pycache__")}


def lend(packages: dict[str, Distribution], folder: Path) -> None:
    """Links to exactly these packages."""
    folder.mkdir()
    for each in packages.values():
        for name in modules(each):
            place, link = Path(str(each.locate_file(name))), folder / name
            if place.exists() and not link.exists():
                link.symlink_to(place.resolve())
