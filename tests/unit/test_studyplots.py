"""Plots of studies: what is where, several beside each other, and files that hold something else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakestudies
import pytest
from fakestudies import history as run
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import report
from coconut_lm.drawing import Plot, shortened
from coconut_lm.history import History, Study
from coconut_lm.plots import plots
from coconut_lm.studyplots import ARMS, study_plots

NAMES = ["battery", "noise", "noise_log", "noise_fits", "noise_map", "branches", "risk_coverage"]
MAKERS = {
    "robustness": fakestudies.robustness,
    "branches": fakestudies.branches,
    "battery": fakestudies.battery,
}


def drawn(*runs: History) -> dict[str, Plot]:
    found = study_plots(runs)
    assert len({plot.name for plot in found}) == len(found)
    return {plot.name: plot for plot in found}


@pytest.fixture(scope="module")
def whole() -> dict[str, Plot]:
    return drawn(run(*(make() for make in MAKERS.values())))


def data_of(plot: Plot) -> dict[str, Any]:
    """The legend's lines, by their names."""
    handles, names = plot.figure.axes[0].get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


def xs(handle: Any) -> list[float]:
    line = handle.lines[0] if hasattr(handle, "lines") else handle
    return [float(x) for x in line.get_xdata()]


def texts(plot: Plot) -> list[str]:
    return [each.get_text() for each in plot.figure.axes[0].texts]


def test_every_plot_is_there_and_in_the_page_s_colours(whole: dict[str, Plot]) -> None:
    assert list(whole) == NAMES
    for plot in whole.values():
        svg = plot.inline()
        assert plot.table and plot.shows and "nan" not in svg
        assert not re.findall(r"#[0-9a-f]{6}\b", svg), "a colour that the page does not know"


def test_more_noise_is_to_the_right(whole: dict[str, Plot]) -> None:
    lines = data_of(whole["noise_log"])
    scales = [1 / each["scale"] for each in fakestudies.robustness(["snr"])["curves"][0]["points"]]
    assert xs(lines["snr (at 1/scale)"]) == sorted(scales) and len(lines) == 8
    axes = whole["noise_log"].figure.axes[0]
    assert axes.get_xscale() == "log" and whole["noise"].figure.axes[0].get_xscale() == "linear"
    assert [text for text in texts(whole["noise"])] == ["no thoughts", "shortcut", "clean"]
    heights = [text.xy[1] for text in axes.texts]
    assert heights == sorted(heights) and heights[0] == pytest.approx(61, abs=0.5)


def test_a_scale_of_zero_is_not_on_a_logarithmic_axis() -> None:
    figures = fakestudies.robustness(["snr", "gaussian"])
    for curve in figures["curves"]:
        curve["points"].insert(0, {"scale": 0, "accuracy": fakestudies.rate(0.96, 300)})
    found = drawn(run(figures))
    assert all(xs(line)[0] == 0 for line in data_of(found["noise"]).values())
    assert all(xs(line)[0] > 0 for line in data_of(found["noise_log"]).values())


def test_inverses_do_not_press_other_kinds_together() -> None:
    figures = fakestudies.robustness(["snr", "gaussian"])
    figures["curves"][0]["points"].append({"scale": 0.01, "accuracy": fakestudies.rate(0.4, 300)})
    found = drawn(run(figures))
    assert max(xs(data_of(found["noise"])["snr (at 1/scale)"])) == 10 and "farther" in found["noise"].shows
    assert max(xs(data_of(found["noise_log"])["snr (at 1/scale)"])) == 100


def test_levels_that_are_near_have_names_apart() -> None:
    same = {"clean": fakestudies.rate(0.73, 300), "without thoughts": fakestudies.rate(0.727, 300)}
    axes = drawn(run(fakestudies.robustness(["gaussian"], baselines=same)))["noise"].figure.axes[0]
    low, high = axes.get_ylim()
    heights = [text.xy[1] for text in axes.texts]
    assert len(heights) == 3 and all(
        b - a > 0.05 * (high - low) for a, b in zip(heights, heights[1:], strict=False)
    )


def test_the_farthest_fall_is_fitted(whole: dict[str, Plot]) -> None:
    figures = fakestudies.robustness()
    drops = {
        each["noise"]: max(rates := [point["accuracy"]["rate"] for point in each["points"]]) - min(rates)
        for each in figures["curves"]
    }
    plot = whole["noise_fits"]
    assert plot.title == f"Fits to {max(drops, key=lambda kind: drops[kind]).replace('_', ' ')}"
    assert list(data_of(plot)) == ["logistic log, R² 0.991", "exponential, R² 0.840", "linear, R² 0.610"]
    assert [row[0] for row in plot.table.rows] == ["logistic log", "exponential", "linear"]
    assert texts(plot) == ["clean", "under 50 % at 2"]


def test_a_fit_goes_where_its_formula_says(whole: dict[str, Plot]) -> None:
    line = data_of(whole["noise_fits"])["exponential, R² 0.840"]
    slope = 0.5 / fakestudies.SLOPES["targeted_opposite"][0]
    assert line.get_ydata()[0] == pytest.approx(95 * 2.718281828 ** (-slope * xs(line)[0]))


def test_fits_to_a_ratio_go_by_its_inverse() -> None:
    figures = fakestudies.robustness(["snr"])
    plot = drawn(run(figures))["noise_fits"]
    axes = plot.figure.axes[0]
    left, right = axes.get_xlim()
    assert left < right and axes.get_xlabel() == "1/scale"
    line = data_of(plot)["logistic log, R² 0.991"]
    assert line.get_ydata()[0] > 90 > 50 > line.get_ydata()[-1], "more noise to the right"
    (upright,) = [
        each for each in axes.get_lines() if len(set(each.get_xdata())) == 1 == len(each.get_xdata()) - 1
    ]
    first = figures["curves"][0]["first_below_half"]
    assert upright.get_xdata()[0] == pytest.approx(1 / first)


def test_the_map_is_blank_where_nothing_was_measured(whole: dict[str, Plot]) -> None:
    table = whole["noise_map"].table
    assert table.head == ["noise", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10"]
    assert [row[-3:] for row in table.rows if row[0] == "dropout"] == [["–"] * 3]
    axes = whole["noise_map"].figure.axes[0]
    assert len(axes.texts) == len(axes.patches) == 8 * 8 - 3
    full = {text.get_text(): patch.get_alpha() for text, patch in zip(axes.texts, axes.patches, strict=True)}
    assert full["96"] > full["66"] > full["43"] and max(full.values()) < 0.5, "letters stay readable"


def test_branches_and_what_agreement_is_worth(whole: dict[str, Plot]) -> None:
    arms = [name.replace("_", " ") for name, *_ in fakestudies.ARMS]
    assert list(data_of(whole["branches"])) == arms
    assert [row[0] for row in whole["branches"].table.rows] == ["1", "3", "5", "9"]
    assert texts(whole["branches"]) == ["no thoughts", "clean"]
    names = list(data_of(whole["risk_coverage"]))
    assert [name.split(", AURC ")[0] for name in names] == arms and names[0].endswith("0.012")
    assert all(xs(line)[-1] == 100 for line in data_of(whole["risk_coverage"]).values())


def test_the_battery_goes_by_groups(whole: dict[str, Plot]) -> None:
    axes = whole["battery"].figure.axes[0]
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels[:3] == ["dropped", "no thoughts", "another number"] and len(labels) == 14 + 6
    assert len(texts(whole["battery"])) == 14 and texts(whole["battery"])[0] == "64.3 %"
    assert whole["battery"].table.rows[0] == ["no thoughts", "-32.0 [-40.1, -23.9]"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first is at the top"


# -- several --


def test_studies_of_several_runs_are_told_apart() -> None:
    first = run(*(make() for make in MAKERS.values()), name="one")
    other = run(*(make(clean=0.9) for make in MAKERS.values()), name="two")
    found = drawn(first, other)
    assert found["noise-2"].title == "Accuracy by noise (two)" and "branches-2" in found
    assert list(data_of(found["battery"])) == list(data_of(found["noise_beside"])) == ["one", "two"]
    assert not texts(found["battery"])


def test_studies_of_one_run_go_by_what_differs() -> None:
    kinds = ["gaussian", "snr"]
    found = drawn(run(fakestudies.robustness(kinds), fakestudies.robustness(kinds, where="first", decay=0.9)))
    assert list(data_of(found["noise_beside"])) == ["where all, decay 0.5", "where first, decay 0.9"]
    same = drawn(run(fakestudies.robustness(kinds), fakestudies.robustness(kinds)))
    assert list(data_of(same["noise_beside"])) == ["test-0", "test-1"]


def test_no_more_is_drawn_than_can_be_seen() -> None:
    figures = fakestudies.branches()
    figures["arms"] = [figures["arms"][0] | {"name": f"arm {n}"} for n in range(30)]
    many = [fakestudies.robustness(["gaussian"], seed=n) for n in range(9)]
    found = drawn(run(figures, *many))
    assert len(data_of(found["branches"])) == len(data_of(found["risk_coverage"])) == ARMS
    assert "noise-4" in found and "noise-5" not in found and len(data_of(found["noise_beside"])) == 7


def test_a_long_name_keeps_its_ends() -> None:
    assert shortened("a" * 30, 30) == "a" * 30
    assert shortened("a" * 20 + "b" * 20, 30) == "a" * 14 + "…" + "b" * 14


# -- other files --


def test_nothing_is_drawn_of_nothing() -> None:
    assert (
        plots(
            [
                run(
                    {"kind": "robustness"},
                    {"kind": "branches", "arms": [{}]},
                    {"kind": "battery", "rows": [1]},
                )
            ]
        )
        == []
    )


def test_one_point_suffices() -> None:
    figures = fakestudies.robustness(["gaussian"])
    figures["curves"][0]["points"] = figures["curves"][0]["points"][:1]
    found = drawn(run(figures | {"baselines": None, "floors": None}))
    assert "noise" in found and "noise_map" not in found
    assert all("nan" not in plot.inline() for plot in found.values())


def places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is."""
    pairs: Any = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in pairs:
        yield (*above, key)
        yield from places(value, (*above, key))


ODD = st.sampled_from(
    [None, "?", "", [], {}, [None], {"rate": "x"}, True, -1, 0, 7.5, 1e308, float("nan"), [[1]]]
)
SMALL = {
    "robustness": fakestudies.robustness(["gaussian", "snr"]),
    "branches": fakestudies.branches(),
    "battery": fakestudies.battery(),
}


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_whatever_a_file_holds_is_shown_or_left_out(data: st.DataObject) -> None:
    """A few values are something else."""
    figures = json.loads(json.dumps(SMALL[data.draw(st.sampled_from(sorted(SMALL)))]))
    kind = figures["kind"]
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(list(places(figures))))
        inner = figures
        for key in path:
            inner = inner[key]
        inner[last] = data.draw(ODD)
    history = History("a", Path("a"), studies=[Study(kind, "test", figures)])
    assert "<section" in report.render([history], study_plots([history]), "a")
    assert report.markdown([history], [], "a").startswith("# a")


def test_an_odd_scale_is_no_place() -> None:
    figures = fakestudies.robustness(["gaussian"])
    figures["curves"][0]["first_below_half"] = -1
    plot = drawn(run(figures))["noise_fits"]
    assert texts(plot) == ["clean"] and "<svg" in plot.inline()
