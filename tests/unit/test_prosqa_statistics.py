"""Made ProsQA against what was measured on the 800 released graphs."""

import time
from functools import cache
from math import sqrt
from statistics import fmean, pstdev

import pytest

from coconut_lm.data import graphs, prosqa
from coconut_lm.data.graphs import Puzzle

COUNT, RELEASED = 2000, 800

# Means over the released validation and test graphs.
MEASURED = {
    "nodes": 22.81,
    "edges": 36.00,
    "leaves": 7.37,
    "hops": 3.77,
    "shortest paths": 1.59,
    "label 0": 0.034,
    "label 1": 0.390,
    "label 2": 0.517,
    "label 3": 0.060,
    "2 entities": 0.576,
    "3 entities": 0.316,
    "4 entities": 0.085,
    "3 hops": 0.407,
    "4 hops": 0.438,
    "5 hops": 0.131,
    "6 hops": 0.024,
    "root 1": 0.636,
}
SHORTCUTS = {
    "fewer_mentions": 0.664,
    "no_entity_within_2_hops": 0.842,
    "far_from_nearest_entity": 0.916,
    "far_from_farthest_entity": 0.938,
}


def features(puzzle: Puzzle) -> dict[str, float]:
    graph, labels = puzzle.graph, graphs.labels(puzzle)
    entities, hops = len(graph.sources), puzzle.hops()
    return {
        "nodes": graph.size,
        "edges": len(graph.edges),
        "leaves": len(graph.leaves),
        "hops": hops,
        "shortest paths": puzzle.path_count(),
        **{f"label {label}": labels.count(label) / len(labels) for label in range(4)},
        **{f"{number} entities": float(entities == number) for number in (2, 3, 4)},
        **{f"{number} hops": float(hops == number) for number in (3, 4, 5, 6)},
        "root 1": float(puzzle.root == 1),
    }


@cache
def made(shape: str, count: int = COUNT) -> list[Puzzle]:
    return [prosqa.parse(example) for example in prosqa.make(count, shape=shape)]


@pytest.mark.parametrize("name", MEASURED)
def test_a_released_statistic_is_within_its_sampling_error(name: str) -> None:
    values = [features(puzzle)[name] for puzzle in made("released")]
    error = pstdev(values) * sqrt(1 / COUNT + 1 / RELEASED)
    assert abs(fmean(values) - MEASURED[name]) < 3 * error


def test_released_shortcuts_are_within_two_points() -> None:
    floors = graphs.shortcuts(made("released"))
    assert {rule: floors[rule] for rule in SHORTCUTS} == pytest.approx(SHORTCUTS, abs=0.02)


@pytest.mark.parametrize("shape", ["depth_matched", "sized", "broom"])
def test_no_blind_rule_works_where_depth_is_matched(shape: str) -> None:
    floors = graphs.shortcuts(made(shape, 600))
    assert max(floors[rule] for rule in graphs.BLIND_RULES) < 0.6


def test_depth_matched_graphs_are_as_large_and_as_long_as_released_ones() -> None:
    figures = graphs.statistics(made("depth_matched", 600))
    assert figures["hops_shares"] == figures["negative_hops_shares"]
    assert set(figures["hops_shares"]) == {"3", "4"}
    assert figures["nodes"]["mean"] == pytest.approx(22.8, abs=1)
    assert figures["edges"]["mean"] == pytest.approx(36.0, abs=2)


@pytest.mark.slow
def test_twenty_thousand_take_less_than_a_minute_on_two_cores() -> None:
    start = time.perf_counter()
    assert sum(1 for _ in prosqa.make(20_000, processes=2)) == 20_000
    assert time.perf_counter() - start < 60
