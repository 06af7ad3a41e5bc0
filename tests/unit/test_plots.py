"""Plots are made from what there is, look the same each time, and take a page's colours."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import fakeruns
import pytest
from matplotlib.colors import to_hex, to_rgb

from coconut_lm.curves import accuracy, window
from coconut_lm.drawing import COLOURS, SERIES, Line, Plot
from coconut_lm.history import Evaluation, History, read
from coconut_lm.plots import plots

NAMES = ["loss", "accuracy", "lengths", "thoughts", "tokens", "norm_ratio", "cosine", "effective_rank"]
NAMES += ["gradients", "window"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[History]:
    return read(fakeruns.three(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def drawn(runs: list[History]) -> list[Plot]:
    return plots(runs)


def test_every_plot_is_there_with_its_numbers(drawn: list[Plot]) -> None:
    assert [plot.name for plot in drawn] == NAMES
    assert all(plot.table and plot.shows and plot.title for plot in drawn)
    table = drawn[1].table
    assert table.head == ["epoch", "prosqa-cot", "prosqa-coconut", "prosqa-window"]
    assert len(table.rows) == 20 and table.rows[-1][1].endswith(" %")
    assert "stages" in drawn[1].shows and "prosqa-cot: " in drawn[1].told


def test_files_are_the_same_each_time(runs: list[History], tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        for make in (accuracy, window):
            assert (plot := make(runs))
            plot.save(folder)
    for name in ("accuracy.svg", "accuracy.png", "window.svg", "window.png"):
        first, second = ((tmp_path / each / name).read_bytes() for each in "ab")
        assert first == second and len(first) > 5000
    assert b"<dc:date>" not in (tmp_path / "a" / "window.svg").read_bytes()


def test_within_a_page_a_plot_has_its_own_names_and_the_page_s_colours(drawn: list[Plot]) -> None:
    names = list[str]()
    for plot in drawn:
        svg = plot.inline()
        root = ET.fromstring(svg.replace("xlink:href", "href"))
        own = re.findall(r'\bid="([^"]+)"', svg)
        names += own
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(own)
        assert root.get("role") == "img" and root.get("width") is None and root.get("viewBox")
        title, told = list(root)[:2]
        assert title.text == plot.title and told.text and told.text.startswith(plot.shows)
        assert not re.findall(r"#[0-9a-f]{6}\b", svg), "a colour that the page does not know"
        assert "var(--ink)" in svg and "DejaVu" not in svg
    assert len(names) == len(set(names))


def test_colours_are_distinct_also_in_grey() -> None:
    assert len(COLOURS) == len(SERIES) + 5 and all(to_hex(colour) == colour for colour in COLOURS)
    greys = [
        sum(weight * part for weight, part in zip((0.3, 0.59, 0.11), to_rgb(c), strict=True)) for c in SERIES
    ]
    assert len({round(grey, 2) for grey in greys}) == len(SERIES)


def run(name: str = "a", **given: object) -> History:
    return History(name, Path(name), **given)  # type: ignore[arg-type]


def test_nothing_is_drawn_of_nothing() -> None:
    odd = {"epoch": 0, "val_accuracy": None, "val_loss": "?", "monitors": None, "window": [], "stage": None}
    assert plots([run(), run("b", epochs=[odd], steps=[{"step": 1, "loss": float("nan")}])]) == []


def test_one_point_suffices() -> None:
    rate = {"rate": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    chief = Evaluation("e", {"accuracy": rate, "tokens": {"mean": 8.0}, "groups": {"steps": {"3": rate}}})
    row = {"epoch": 0, "stage": 0, "step": 9, "val_accuracy": 1.0, "val_loss": 0.0, "window": [1.0]}
    row["monitors"] = {"norm_ratio": 1.0, "cosine": 0.0, "effective_rank": 1.0, "gradient_norms": [0.0]}
    steps = [{"step": 1, "loss": 0.0, "stage": 0}]
    found = plots([run(epochs=[row], steps=steps, evaluations=[chief], chief=chief)])
    assert [plot.name for plot in found] == [name for name in NAMES if name not in ("thoughts", "lengths")]
    assert all("nan" not in plot.inline() for plot in found)


def test_many_steps_are_thinned_and_the_last_one_stays() -> None:
    steps = [{"step": n, "loss": 3 - n / 5000, "stage": 0} for n in range(1, 10_000)]
    (plot,) = plots([run(steps=steps)])
    (line,) = [line for line in plot.figure.axes[0].get_lines() if line.get_label() == "training, smoothed"]
    assert 200 < len(line.get_xdata()) <= 300 and line.get_xdata()[-1] == 9999
    assert abs(line.get_ydata()[-1] - 1.05) < 0.02  # the mean of the last steps, not of all


def test_stages_are_marked_only_where_runs_share_them() -> None:
    def staged(length: int) -> History:
        rows = [{"epoch": n, "stage": n // length, "val_accuracy": 0.5} for n in range(8)]
        return run(str(length), epochs=rows)

    (same,) = plots([staged(4), staged(4)])
    (other,) = plots([staged(4), staged(2)])
    assert "Bands" in same.shows and "Bands" not in other.shows


def test_names_of_users_are_text() -> None:
    evil = '<b>"$x_1$'
    rows = [{"epoch": n, "stage": 0, "val_accuracy": 0.5} for n in range(2)]
    (plot,) = plots([run(evil, epochs=rows), run("b", epochs=rows)])
    root = ET.fromstring(plot.inline().replace("xlink:href", "href"))
    assert any(evil in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_more_runs_than_colours_differ_in_dashes() -> None:
    rows = [{"epoch": n, "stage": 0, "val_accuracy": 0.5} for n in range(2)]
    (plot,) = plots([run(str(n), epochs=rows) for n in range(9)])
    looks = {(line.get_color(), line.get_linestyle()) for line in plot.figure.axes[0].get_lines()}
    assert len(looks) == 9


def test_values_far_apart_get_a_logarithmic_axis() -> None:
    for last, scale in ((2.5, "linear"), (0.2, "log"), (0.0, "linear")):
        (plot,) = plots([run(steps=[{"step": 1, "loss": 4.0}, {"step": 2, "loss": last}])])
        assert plot.figure.axes[0].get_yscale() == scale


def test_a_line_scales_with_its_interval() -> None:
    line = Line("a", 0, [(1, 0.5, 0.4, 0.6)]).scaled(100)
    assert line.ys == [50] and line.interval == ([40], [60])
    assert Line("a", 0, [(1, 2.0)]).interval is None
