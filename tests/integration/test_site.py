"""The site builds without a warning, leaves no page out, and asks nothing of a network."""

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import coconut_lm
from coconut_lm.schema import Icot, Lora, Schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
pytest.importorskip("mkdocs", reason="mkdocs is not installed")
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BODY = re.compile(r"<article.*?>(.*)</article>", flags=re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def text_of(page: Path) -> str:
    (body,) = BODY.findall(page.read_text(encoding="utf-8"))
    return re.sub(r"<[^>]+>", " ", body)


def test_every_page_of_docs_is_in_the_nav() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.md")}
    pages |= {path.with_suffix(".md").name for path in DOCS.glob("*.ipynb")}
    left_out = {page for page in pages if not re.search(rf": {re.escape(page)}$", nav, flags=re.M)}
    assert not left_out, "the nav of mkdocs.yml has a place for each (of a notebook, for its .md)"


def test_no_page_is_empty(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 20
    assert not {str(page) for page in pages if len(text_of(page).split()) < 50}


def test_nothing_is_fetched(site: Path) -> None:
    found = {tag for page in site.rglob("*.html") for tag in FETCHED.findall(page.read_text("utf-8"))}
    styles = {
        path.name for path in site.rglob("*.css") if re.search(r"url\(.?https?:", path.read_text("utf-8"))
    }
    assert not found and not styles


def test_every_key_and_every_command_is_there(site: Path) -> None:
    keys = (site / "reference" / "keys.html").read_text(encoding="utf-8")
    wanted = {*Schema.model_fields, *(f"icot.{key}" for key in Icot.model_fields)}
    wanted |= {f"lora.{key}" for key in Lora.model_fields}
    assert wanted == set(re.findall(r'<h3 id="([^"]+)"', keys))
    named = set(
        re.findall(r"<h2 [^>]*>coconut-lm ([^<]+)", (site / "reference" / "commands.html").read_text())
    )
    files = {path.stem for path in (ROOT / "src/coconut_lm/commands").glob("[a-z]*.py")}
    assert {command.split()[0] for command in named} == files
    assert "data make prosqa" in named


def test_every_exported_name_is_in_the_reference(site: Path) -> None:
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    known = {line.split()[0] for line in lines}
    exported = {f"coconut_lm.{room}.{name}" for name, room in coconut_lm._EXPORTS.items()}
    assert not exported - known, "no page of docs/api names it"


def test_files_outside_docs_came_along(site: Path) -> None:
    training = (site / "training.html").read_text(encoding="utf-8")
    assert 'href="configs/index.html"' in training
    assert "one claim" in text_of(site / "configs" / "index.html")


def test_search_works_from_a_folder_and_pages_fit_a_phone(site: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium here; $CHROMIUM may name one")
    asked: list[str] = []
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none for root
        chromium = playwright.chromium.launch(executable_path=browser, args=sandbox)
        page = chromium.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        for file in sorted(site.rglob("*.html")):
            if file.name != "404.html":  # made for the root of a server
                page.goto(file.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= 390, file
        page.set_viewport_size({"width": 1280, "height": 844})
        page.goto((site / "index.html").as_uri())
        page.click("input[name=query]")
        page.keyboard.type("uniform_prob")
        page.wait_for_selector(".md-search-result__item a[href$='keys.html?h=uniform_prob#uniform_prob']")
        chromium.close()
    assert not complaints
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "site" / "notebooks.py")
    assert spec and spec.loader
    notebooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebooks)
    outputs = [
        {"output_type": "stream", "text": ["2\n", "3\n"]},
        {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/plain": ["<b>four</b>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# First\n", "steps"]},
        {"cell_type": "code", "source": "print(2)", "outputs": outputs},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    path = tmp_path / "tour.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    text = notebooks.markdown(path)
    assert text.startswith("# First\nsteps\n\n<a") and 'href="tour.ipynb" download' in text
    assert "```python\nprint(2)\n```" in text and "2\n3\n```" in text
    assert '"data:image/png;base64,aGk="' in text and "<Figure>" not in text
    assert "\n<b>four</b>\n```" in text  # text, not HTML


def test_docstrings_are_plain_text_with_examples(site: Path) -> None:
    assert "<unk>" in html.unescape(text_of(site / "api" / "rows.html"))
    assert 'class="gp">&gt;&gt;&gt;' in (site / "api" / "runs.html").read_text(encoding="utf-8")  # a prompt
