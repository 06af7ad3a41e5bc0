"""The site takes in what stands outside docs/, so that a link that works in the repository works there too.

A Markdown file that the nav names is a page, wherever it stands; other files that a page links to are copied.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|[/#<])([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for place in _named(config.nav):
        if place not in files.src_uris and (ROOT / place).is_file():
            files.append(_outside(config, place))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def led(target: re.Match[str]) -> str:
        uri = _uri(posixpath.normpath(posixpath.join(posixpath.dirname(here), target[0])))
        if uri not in files.src_uris:
            if uri.endswith(".md") or not (ROOT / uri).is_file():
                return target[0]  # MkDocs says what is wrong with it
            files.append(_outside(config, uri))
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    here = _place(page.file)
    return _TARGET.sub(led, markdown)


def _named(nav: Any) -> Iterator[str]:
    """The places that a nav names, at any depth."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, list | dict):
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(part)


def _outside(config: MkDocsConfig, place: str) -> File:
    return File.generated(config, place, abs_src_path=str(ROOT / place))


def _place(file: File) -> str:
    """Where it stands in the repository."""
    source = Path(file.abs_src_path) if file.abs_src_path else ROOT / "docs" / file.src_uri
    return source.relative_to(ROOT).as_posix()


def _uri(place: str) -> str:
    """Its name in the site, where a notebook has a page of its own."""
    notebook = place.endswith(".ipynb")
    return (place[: -len("ipynb")] + "md" if notebook else place).removeprefix("docs/")
