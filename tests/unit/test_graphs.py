"""Graph search against brute force, and the published figures of the released validation file."""

import gzip
import json
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import graphs, prosqa
from coconut_lm.data.example import Example
from coconut_lm.data.graphs import Graph, Puzzle

ASSETS = Path(__file__).parents[1] / "assets"


def released(name: str) -> list[Example]:
    records = json.loads(gzip.decompress((ASSETS / f"coconut_paper_{name}_valid.json.gz").read_bytes()))
    return [Example(r.pop("question"), tuple(r.pop("steps")), r.pop("answer"), r) for r in records]


@st.composite
def acyclic(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(2, 7))
    return Graph(size, tuple(draw(st.sets(st.sampled_from(list(combinations(range(size), 2))), min_size=1))))


def all_paths(graph: Graph, start: int, end: int) -> list[tuple[int, ...]]:
    """Every path by trying every order of every choice of nodes."""
    between = [node for node in range(graph.size) if node not in (start, end)]
    tries = ((start, *some, end) for n in range(len(between) + 1) for some in permutations(between, n))
    edges = set(graph.edges)
    return [path for path in tries if all(step in edges for step in pairwise(path))]


@settings(deadline=None, max_examples=60)
@given(acyclic(), st.data())
def test_search_agrees_with_trying_every_path(graph: Graph, data: st.DataObject) -> None:
    start, end = data.draw(st.permutations(range(graph.size)))[:2]
    paths = all_paths(graph, start, end)
    found = graphs.shortest_path(graph, start, end)
    away = graphs.distances(graph.children, start)
    if not paths:
        assert found is None and end not in away
        return
    shortest = min(len(path) for path in paths)
    assert found is not None and tuple(found) in paths and len(found) == shortest == away[end] + 1


@settings(deadline=None, max_examples=60)
@given(acyclic(), st.data())
def test_path_count_and_hops_of_a_puzzle_agree_with_trying_every_path(
    graph: Graph, data: st.DataObject
) -> None:
    root, _ = data.draw(st.sampled_from(graph.edges))
    reached = [node for node in range(graph.size) if node != root and all_paths(graph, root, node)]
    target = data.draw(st.sampled_from(reached))
    paths = all_paths(graph, root, target)
    best = [path for path in paths if len(path) == min(map(len, paths))]
    puzzle = Puzzle(graph, root, root, target, target, first=target)
    assert puzzle.path_count() == len(best)
    assert {k: set(nodes) for k, nodes in puzzle.optimal().items()} == {
        str(hop): {path[hop] for path in best} for hop in range(len(best[0]))
    }
    assert all(set(nodes) <= set(puzzle.frontier()[k]) for k, nodes in puzzle.optimal().items())


def test_rules_read_depth_mentions_and_order() -> None:
    #  0 -> 2 -> 3 -> 4 (target)    1 -> 5 (negative)    6 -> 5
    puzzle = Puzzle(Graph(7, ((0, 2), (2, 3), (3, 4), (1, 5), (6, 5))), 0, 1, 4, 5, first=5)
    assert {rule: graphs.rule_score(puzzle, rule) for rule in graphs.RULES} == {
        "first_option": 0,
        "fewer_mentions": 1,
        "lower_in_degree": 1,
        "larger_index": 0,
        "more_ancestors": 1,
        "no_entity_within_2_hops": 1,
        "far_from_nearest_entity": 1,
        "far_from_farthest_entity": 1,
        "search_1_hops": 0.5,
        "search_2_hops": 0.5,
        "search_3_hops": 1,
        "search_4_hops": 1,
    }


def test_a_tie_counts_half() -> None:
    puzzle = Puzzle(Graph(4, ((0, 2), (1, 3))), 0, 1, 2, 3, first=2)
    ties = {rule for rule in graphs.RULES if graphs.rule_score(puzzle, rule) == 0.5}
    assert ties == set(graphs.BLIND_RULES) - {"first_option", "larger_index"}


# Published for the 300 validation graphs; the last two follow from the shares of path lengths.
VALID_SHORTCUTS = {
    "fewer_mentions": 0.667,
    "lower_in_degree": 0.667,
    "no_entity_within_2_hops": 0.853,
    "far_from_nearest_entity": 0.925,
    "far_from_farthest_entity": 0.945,
    "search_3_hops": 0.707,
    "search_4_hops": 0.928,
}


def test_shortcuts_of_the_released_validation_file() -> None:
    floors = prosqa.shortcuts(released("prosqa"))
    assert {rule: round(floors[rule], 3) for rule in VALID_SHORTCUTS} == VALID_SHORTCUTS


def test_each_example_says_whether_the_best_rule_is_right() -> None:
    scores = [prosqa.shortcut_right(example) for example in released("prosqa")]
    assert set(scores) <= {0.0, 0.5, 1.0} and sum(scores) == pytest.approx(0.945 * 300)


def test_statistics_of_the_released_validation_file() -> None:
    figures: dict[str, Any] = prosqa.statistics(released("prosqa"))
    assert figures["hops_shares"] == {"3": 124 / 300, "4": 133 / 300, "5": 36 / 300, "6": 7 / 300}
    assert figures["negative_hops_shares"] == {"1": 63 / 300, "2": 158 / 300, "3": 72 / 300, "4": 7 / 300}
    means = {name: round(figures[name]["mean"], 1) for name in ("nodes", "edges", "leaves")}
    assert means == {"nodes": 22.8, "edges": 36.3, "leaves": 7.4}
    assert round(figures["shortest_paths"]["mean"], 2) == 1.61
    assert (figures["nodes"]["min"], figures["nodes"]["max"]) == (17, 28)
