"""What is asked of a graph question: search, the shortcuts that answer it unread, statistics.

A puzzle is a directed graph, the asked node (`root`) and two options: the root reaches `target`; the `other`
main entity reaches `negative`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, pstdev
from typing import Any

Edge = tuple[int, int]


@dataclass(frozen=True)
class Graph:
    size: int
    edges: tuple[Edge, ...]

    @cached_property
    def children(self) -> list[list[int]]:
        return self._neighbours((a, b) for a, b in self.edges)

    @cached_property
    def parents(self) -> list[list[int]]:
        return self._neighbours((b, a) for a, b in self.edges)

    def _neighbours(self, pairs: Iterable[Edge]) -> list[list[int]]:
        table: list[list[int]] = [[] for _ in range(self.size)]
        for a, b in pairs:
            table[a].append(b)
        return table

    @cached_property
    def sources(self) -> list[int]:
        """The nodes without a parent: those that carry an entity's name."""
        return [node for node in range(self.size) if not self.parents[node]]

    @cached_property
    def leaves(self) -> list[int]:
        """The nodes with parents and without children."""
        return [node for node in range(self.size) if self.parents[node] and not self.children[node]]


def distances(neighbours: Sequence[Sequence[int]], start: int) -> dict[int, int]:
    """Hops from `start` to every node it reaches, in the order of the search."""
    found = {start: 0}
    queue = [start]
    for node in queue:
        for after in neighbours[node]:
            if after not in found:
                found[after] = found[node] + 1
                queue.append(after)
    return found


def shortest_path(
    graph: Graph, start: int, end: int, choose: Callable[[list[int]], int] = min
) -> list[int] | None:
    """The nodes of one shortest path, both ends included; `choose` decides between equals."""
    left = distances(graph.parents, end)
    if start not in left:
        return None
    path = [start]
    while path[-1] != end:
        here = left[path[-1]]
        path.append(choose([node for node in graph.children[path[-1]] if left.get(node) == here - 1]))
    return path


@dataclass(frozen=True)
class Puzzle:
    graph: Graph
    root: int
    other: int
    target: int
    negative: int
    first: int  # the option that the question names first

    @property
    def options(self) -> tuple[int, int]:
        return (self.first, self.negative if self.first == self.target else self.target)

    @cached_property
    def depth(self) -> dict[int, int]:
        """Hops from the root."""
        return distances(self.graph.children, self.root)

    @cached_property
    def height(self) -> dict[int, dict[int, int]]:
        """Hops up from each option to every ancestor of it, itself included."""
        return {option: distances(self.graph.parents, option) for option in (self.target, self.negative)}

    def hops(self) -> int:
        return self.depth[self.target]

    def frontier(self) -> dict[str, list[int]]:
        """Per hop, all nodes at that distance from the root."""
        return self._by_hop(list(self.depth))

    def optimal(self) -> dict[str, list[int]]:
        """Per hop, the nodes on shortest paths to the target."""
        left, length = self.height[self.target], self.hops()
        return self._by_hop([n for n in self.depth if self.depth[n] + left.get(n, length + 1) == length])

    def _by_hop(self, nodes: list[int]) -> dict[str, list[int]]:
        table: dict[str, list[int]] = {}
        for node in nodes:
            table.setdefault(str(self.depth[node]), []).append(node)
        return table

    def path_count(self) -> int:
        """The number of shortest paths from root to target."""
        ways = {self.root: 1}
        for node in [n for nodes in self.optimal().values() for n in nodes][1:]:
            ways[node] = sum(
                ways.get(above, 0)
                for above in self.graph.parents[node]
                if self.depth.get(above) == self.depth[node] - 1
            )
        return ways[self.target]


# A rule gives each option a score, the higher one is its answer. All but the searches are blind to the
# question: they never look at which entity is asked.
Rule = Callable[[Puzzle, int], float]


def _entity_heights(puzzle: Puzzle, option: int) -> list[int]:
    height = puzzle.height[option]
    return [height[entity] for entity in puzzle.graph.sources if entity in height]


def _mentions(puzzle: Puzzle, option: int) -> int:
    return len(puzzle.graph.parents[option]) + len(puzzle.graph.children[option])


def _search(hops: int) -> Rule:
    return lambda puzzle, option: float(puzzle.depth.get(option, hops + 1) <= hops)


BLIND_RULES: dict[str, Rule] = {
    "first_option": lambda puzzle, option: option == puzzle.first,
    "fewer_mentions": lambda puzzle, option: -_mentions(puzzle, option),
    "lower_in_degree": lambda puzzle, option: -len(puzzle.graph.parents[option]),
    "larger_index": lambda puzzle, option: option,
    "more_ancestors": lambda puzzle, option: len(puzzle.height[option]),
    "no_entity_within_2_hops": lambda puzzle, option: min(_entity_heights(puzzle, option), default=0) > 2,
    "far_from_nearest_entity": lambda puzzle, option: min(_entity_heights(puzzle, option), default=0),
    "far_from_farthest_entity": lambda puzzle, option: max(_entity_heights(puzzle, option), default=0),
}
SEARCH_RULES: dict[str, Rule] = {f"search_{hops}_hops": _search(hops) for hops in (1, 2, 3, 4)}
RULES = BLIND_RULES | SEARCH_RULES
STRONGEST = "far_from_farthest_entity"


def rule_score(puzzle: Puzzle, rule: str = STRONGEST) -> float:
    """1 where the rule gives the gold answer, 0 where the other one, 1/2 where it cannot tell."""
    right, wrong = (RULES[rule](puzzle, option) for option in (puzzle.target, puzzle.negative))
    return 0.5 if right == wrong else float(right > wrong)


def shortcuts(puzzles: Sequence[Puzzle]) -> dict[str, float]:
    """The accuracy of every rule; 'guess' is the coin. A search as long as the longest path is none."""
    longest = max(puzzle.hops() for puzzle in puzzles)
    searches = list(SEARCH_RULES)[: longest - 1]
    rules = [*BLIND_RULES, *searches]
    return {"guess": 0.5} | {rule: fmean(rule_score(puzzle, rule) for puzzle in puzzles) for rule in rules}


def labels(puzzle: Puzzle) -> list[int]:
    """Per node: 1 if the first main entity reaches it, 2 if the second does, 3 both, 0 neither."""
    reach = [distances(puzzle.graph.children, node) for node in sorted((puzzle.root, puzzle.other))]
    return [(node in reach[0]) + 2 * (node in reach[1]) for node in range(puzzle.graph.size)]


def _summary(values: Sequence[int]) -> dict[str, float]:
    return {"mean": fmean(values), "std": pstdev(values), "min": min(values), "max": max(values)}


def _shares(values: Iterable[int]) -> dict[str, float]:
    counts = Counter(values)
    return {str(value): counts[value] / counts.total() for value in sorted(counts)}


def statistics(puzzles: Sequence[Puzzle]) -> dict[str, Any]:
    """The figures of a set of puzzles: means over graphs and shares of each value."""
    hops = [puzzle.hops() for puzzle in puzzles]
    return {
        "examples": len(puzzles),
        "nodes": _summary([puzzle.graph.size for puzzle in puzzles]),
        "edges": _summary([len(puzzle.graph.edges) for puzzle in puzzles]),
        "leaves": _summary([len(puzzle.graph.leaves) for puzzle in puzzles]),
        "hops": _summary(hops),
        "shortest_paths": _summary([puzzle.path_count() for puzzle in puzzles]),
        "reachable": fmean(len(puzzle.depth) / puzzle.graph.size for puzzle in puzzles),
        "hops_shares": _shares(hops),
        "negative_hops_shares": _shares(puzzle.height[puzzle.negative][puzzle.other] for puzzle in puzzles),
        "label_shares": _shares(label for puzzle in puzzles for label in labels(puzzle)),
        "entities_shares": _shares(len(puzzle.graph.sources) for puzzle in puzzles),
        "root_shares": _shares(puzzle.root for puzzle in puzzles),
        "first_option_is_target": fmean(puzzle.first == puzzle.target for puzzle in puzzles),
    }
