"""The report in a real browser: nothing complains, filter and search work, it can be read by everybody.

Screenshots are left in $ARTIFACTS, or in pytest's folder.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeruns
import fakestudies
import pytest

from coconut_lm.report import write

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; $CHROMIUM may name one")
EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>. How many?"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    runs = fakeruns.three(place)
    fakestudies.all_three(runs[1])
    for run in runs:
        for file in (*run.glob("eval/*/predictions.jsonl"), *run.glob("eval/*/thoughts.json")):
            text = file.read_text("utf-8")
            first = text.split('"question": "', 1)[1].split('"', 1)[0]
            file.write_text(text.replace(first, EVIL), "utf-8")
    return write(runs, place / "three.html", "Three runs")[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none for root
        launched = playwright.chromium.launch(executable_path=BROWSER, args=sandbox)
        yield launched
        launched.close()


@pytest.fixture
def look(browser: Any, page_file: Path) -> Iterator[Any]:
    """Opens the page; afterwards nothing may have complained, and nothing been asked of a network."""
    complaints: list[str] = []

    def opened(scheme: str = "light", width: int = 1280) -> Any:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 844})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:")) else complaints.append(request.url)
            ),
        )
        page.goto(page_file.as_uri())
        pages.append(page)
        return page

    pages: list[Any] = []
    yield opened
    assert [page.evaluate("window.broken") for page in pages] == [None] * len(pages)
    for page in pages:
        page.close()
    assert not complaints


def keep(page: Any, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ARTIFACTS") or tmp_path)
    page.screenshot(path=folder / f"report-{name}.png", full_page=True)


def violations(page: Any) -> list[str]:
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]


def test_filter_search_and_leafing(look: Any) -> None:
    page = look()
    count, shown = page.locator("#count"), page.locator(".example")
    examples = page.evaluate("JSON.parse(document.getElementById('data').textContent).examples")

    def expect(found: list[Any]) -> None:
        where = (
            f"1 to {min(10, len(found))} of {len(found)} (of 300 in all)" if found else "none (of 300 in all)"
        )
        assert count.inner_text() == where and shown.count() == min(10, len(found))

    assert count.inner_text() == "1 to 10 of 300"
    page.get_by_role("button", name="after").click()
    assert count.inner_text() == "11 to 20 of 300"
    page.locator("#verdicts").select_option("runs differ")
    differ = [each for each in examples if len({answer["ok"] for answer in each["answers"]}) == 2]
    assert 20 < len(differ) < 200
    expect(differ)
    page.locator("#verdicts").select_option("prosqa-cot wrong")
    wrong = [each for each in examples if not each["answers"][0]["ok"]]
    expect(wrong)
    assert page.locator(".answer:first-child .wrong").count() == 10
    page.locator("#steps").select_option("4")
    expect([each for each in wrong if each["steps"] == 4])
    page.locator("#search").fill("no such words")
    expect([])
    page.locator("#verdicts").select_option("all")
    page.locator("#steps").select_option("any number")
    page.locator("#search").fill("ONERROR")
    assert count.inner_text() == "1 to 1 of 1 (of 300 in all)"
    assert shown.locator("summary").inner_text() == "How many?"
    shown.locator("summary").click()
    assert EVIL in shown.locator(".question").inner_text()


def test_the_theme_can_be_chosen(look: Any) -> None:
    page = look()
    ground = "getComputedStyle(document.body).backgroundColor"
    light, button = page.evaluate(ground), page.locator("#theme")
    axis = "getComputedStyle(document.querySelector('#loss svg text')).fill"
    inks = {page.evaluate(axis)}
    button.click()
    assert button.inner_text() == "theme: light" and page.evaluate(ground) == light
    button.click()
    assert button.inner_text() == "theme: dark" and page.evaluate(ground) != light
    assert len(inks | {page.evaluate(axis)}) == 2, "plots follow the theme"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_it_can_be_read_by_everybody(look: Any, scheme: str, width: int, tmp_path: Path) -> None:
    page = look(scheme, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width, "no scrolling sideways"
    keep(page, f"{scheme}-{width}", tmp_path)
    assert violations(page) == []
    scale = "(plot) => plot.getBoundingClientRect().width / plot.viewBox.baseVal.width"
    scales = page.evaluate(f"[...document.querySelectorAll('figure svg')].map({scale})")
    assert len(scales) == 10 + 7 and min(scales) > 0.9, (
        "letters of a plot are about as high as they were drawn"
    )
