"""The shapes a graph puzzle is drawn in: as released, depth-matched, of a given size, or a broom."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from random import Random

from coconut_lm.data.graphs import Edge, Graph, Puzzle, distances
from coconut_lm.data.making import length_weights, path_lengths
from coconut_lm.errors import UserError

GROWN_NODES = 28  # before the isolated ones are dropped
GROWN_HOPS = {"released": range(2, 8), "depth_matched": range(2, 6)}  # what the growth yields often enough
RELEASED_HOPS = range(3, 7)  # what the released files hold
MATCHED_HOPS = (3, 4)  # as often one as the other; five hops take 400 attempts
ATTEMPTS = 40_000
SHARED = 2  # the owner of nodes that both roots may reach


@dataclass(frozen=True)
class Recipe:
    """What to draw. `hops` are the path lengths and `weights` their odds; no hops: the growth's own."""

    shape: str
    hops: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    nodes: int = GROWN_NODES
    edges: int = 0
    branches: int = 0

    def draw(self, random: Random) -> Puzzle:
        hops = random.choices(self.hops, self.weights)[0] if self.hops else None
        return SHAPES[self.shape](random, self, hops)


def recipe(
    shape: str | None = None,
    *,
    nodes: int | None = None,
    edges: int | None = None,
    hops: int | str | Sequence[int] | None = None,
    hop_weights: str | Sequence[float] | None = None,
    branches: int | None = None,
) -> Recipe:
    """A checked recipe. Unnamed, the shape is `broom` with branches, `sized` with a size, else `released`."""
    if shape is None:
        shape = "broom" if branches else "sized" if (nodes or edges or hops) else "released"
    if shape not in SHAPES:
        raise UserError("unknown shape", given=shape, expected=", ".join(SHAPES))
    _only_for("sized", shape, nodes=nodes, edges=edges)
    _only_for("broom", shape, branches=branches)
    lengths = path_lengths(hops)
    weights = length_weights(hop_weights, lengths)
    if shape == "broom":
        return _broom_recipe(lengths or (3,), weights or (1.0,), 2 if branches is None else branches)
    if shape == "sized":
        return _sized_recipe(lengths, weights, nodes, edges)
    return _grown_recipe(shape, lengths, weights)


def _only_for(owner: str, shape: str, **settings: int | None) -> None:
    for name, value in settings.items():
        if value is not None and shape != owner:
            raise UserError(
                f"{name} says nothing about a {shape} graph",
                given=f"{name}={value}",
                do=f"leave {name} out, or set the shape to {owner}",
            )


# -- released and depth-matched: grown node by node


def _grown_recipe(shape: str, lengths: tuple[int, ...], weights: tuple[float, ...]) -> Recipe:
    possible = GROWN_HOPS[shape]
    if any(length not in possible for length in lengths):
        raise UserError(
            f"a {shape} graph has no such path length",
            given=f"hops {list(lengths)}",
            expected=f"{possible[0]} to {possible[-1]}",
            do="set the shape to sized, or to broom, for other lengths",
        )
    if shape == "depth_matched" and not lengths:
        lengths, weights = MATCHED_HOPS, (1.0, 1.0)
    return Recipe(shape, lengths, weights)


@dataclass
class _Growth:
    """Nodes in order of creation; `label` says which of the two roots reach a node."""

    parents: list[list[int]]
    label: list[int]
    depth: list[int]


def _poisson(random: Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        count += 1
    return count


def _weighted_sample(random: Random, items: list[int], weights: list[float], count: int) -> list[int]:
    """`count` of the items without replacement."""
    items, weights, taken = list(items), list(weights), []
    for _ in range(count):
        at = random.choices(range(len(items)), weights)[0]
        taken.append(items.pop(at))
        weights.pop(at)
    return taken


def _grow(random: Random) -> _Growth:
    """The growth whose statistics fit the released files (docs/data.md has the fit)."""
    growth = _Growth(parents=[[], []], label=[1, 2], depth=[0, 0])
    of_label: dict[int, list[int]] = {0: [], 1: [0], 2: [1], 3: []}
    for node in range(2, GROWN_NODES):
        count = _poisson(random, 1.5)
        if random.random() <= 0.35:
            candidates = of_label[1]
        elif random.random() <= 0.70:  # a fresh draw: the odds are .35, .455, .195
            candidates = of_label[2]
        else:
            candidates = list(range(node))
        weights = [1.5 * growth.depth[n] + 1 for n in candidates] if count else []
        chosen = _weighted_sample(random, candidates, weights, min(count, len(candidates)))
        label = reduce(or_, (growth.label[parent] for parent in chosen), 0)
        of_label[label].append(node)
        growth.parents.append(chosen)
        growth.label.append(label)
        growth.depth.append(1 + min((growth.depth[parent] for parent in chosen), default=-1))
    return growth


def _pruned(growth: _Growth) -> tuple[Graph, list[int]]:
    """The graph without its isolated nodes, edges listed by destination, and the labels of its nodes."""
    fathers = {parent for parents in growth.parents for parent in parents}
    kept = [n for n, parents in enumerate(growth.parents) if n < 2 or parents or n in fathers]
    index = {node: at for at, node in enumerate(kept)}
    edges = tuple((index[parent], index[node]) for node in kept for parent in growth.parents[node])
    return Graph(len(kept), edges), [growth.label[node] for node in kept]


def _exclusive_leaves(random: Random) -> tuple[Graph, list[dict[int, int]]]:
    """A grown graph, and for each of its two roots the leaves that only it reaches, with their distances."""
    graph, label = _pruned(_grow(random))
    found = []
    for root in (0, 1):
        away = distances(graph.children, root)
        found.append({leaf: away[leaf] for leaf in graph.leaves if label[leaf] == root + 1})
    return graph, found


def _pose(random: Random, graph: Graph, root: int, target: int, negative: int) -> Puzzle:
    return Puzzle(graph, root, 1 - root, target, negative, first=random.choice((target, negative)))


def _deepest(leaves: dict[int, int]) -> int:
    return max(leaves.values(), default=0)


def _at(leaves: dict[int, int], depth: int) -> list[int]:
    return [leaf for leaf, away in leaves.items() if away == depth]


def _released(random: Random, recipe: Recipe, hops: int | None) -> Puzzle:
    """The deeper root is asked for its deepest leaf; the distractor is any leaf of the other root alone."""
    for _ in range(ATTEMPTS):
        graph, leaves = _exclusive_leaves(random)
        best = [_deepest(leaves[0]), _deepest(leaves[1])]
        root = random.randrange(2) if best[0] == best[1] else best.index(max(best))
        if leaves[1 - root] and best[root] in ((hops,) if hops else RELEASED_HOPS):
            target = random.choice(_at(leaves[root], best[root]))
            return _pose(random, graph, root, target, random.choice(list(leaves[1 - root])))
    raise AssertionError(f"no released graph in {ATTEMPTS} attempts")


def _depth_matched(random: Random, recipe: Recipe, hops: int | None) -> Puzzle:
    """Both options are equally deep under their roots, and a coin says which root is asked."""
    assert hops is not None
    for _ in range(ATTEMPTS):
        graph, leaves = _exclusive_leaves(random)
        if hops in leaves[0].values() and hops in leaves[1].values():
            root = random.randrange(2)
            target, negative = (random.choice(_at(leaves[r], hops)) for r in (root, 1 - root))
            return _pose(random, graph, root, target, negative)
    raise AssertionError(f"no depth-matched graph in {ATTEMPTS} attempts")


# -- sized: two spines of equal length, dead ends, and as many edges as asked for


def _sized_recipe(
    lengths: tuple[int, ...], weights: tuple[float, ...], nodes: int | None, edges: int | None
) -> Recipe:
    usual = 3 if nodes is None else max(1, min(3, nodes // 2 - 1))
    lengths, weights = lengths or (usual,), weights or (1.0,)
    longest = max(lengths)
    nodes = max(16, 3 * longest + 2) if nodes is None else nodes
    if nodes < 2 * (longest + 1):
        raise UserError(
            "too few nodes for two paths of that length",
            given=f"nodes {nodes}, hops {longest}",
            expected=f"at least {2 * (longest + 1)} nodes",
        )
    most = min(_most_edges(nodes, length) for length in lengths)
    edges = min(most, round(1.5 * (nodes - 2))) if edges is None else edges
    if not nodes - 2 <= edges <= most:
        raise UserError(
            "no such graph",
            given=f"edges {edges}, nodes {nodes}, hops {list(lengths)}",
            expected=f"{nodes - 2} to {most} edges",
        )
    return Recipe("sized", lengths, weights, nodes, edges)


def _most_edges(nodes: int, hops: int) -> int:
    """What a plan holds whose spare nodes are all dense: see _plan."""
    spare = nodes - 2 * (hops + 1)
    return 2 * hops + (2 if hops == 1 else 4) * spare + spare * (spare - 1) // 2


@dataclass(frozen=True)
class _Spot:
    """A node to be: how deep it lies, which root owns it, and whether it ends a spine."""

    depth: int
    owner: int
    end: bool = False

    def may_lead_to(self, later: "_Spot") -> bool:
        """Edges that leave every distance as it is and each end to the root that owns it."""
        near = later.depth - self.depth in (0, 1) and later.depth > 0
        return near and not self.end and later.owner in (self.owner, SHARED)


def _plan(random: Random, hops: int, spare: int, dense: int) -> list[_Spot]:
    """Spots in the order of their depth; the first `dense` spare ones take edges from everywhere."""
    spines = [_Spot(depth, owner, depth == hops) for depth in range(1, hops + 1) for owner in (0, 1)]
    spread = [
        _Spot(random.randint(1, hops), random.choices((0, 1, SHARED), (2, 2, 1))[0])
        for _ in range(spare - dense)
    ]
    rest = [_Spot(1, SHARED)] * dense + spines + spread
    random.shuffle(rest)
    rest.sort(key=lambda spot: (spot.depth, spot.end, spot.owner == SHARED))
    return [_Spot(0, 0), _Spot(0, 1), *rest]


def _allowed(plan: list[_Spot]) -> list[Edge]:
    return [(a, b) for b, later in enumerate(plan) for a in range(b) if plan[a].may_lead_to(later)]


def _sized(random: Random, recipe: Recipe, hops: int | None) -> Puzzle:
    assert hops is not None
    spare = recipe.nodes - 2 * (hops + 1)
    for dense in range(spare + 1):
        plan = _plan(random, hops, spare, dense)
        allowed = _allowed(plan)
        if len(allowed) >= recipe.edges:
            break
    tree = {
        random.choice([(a, b) for a, b in allowed if b == node and plan[a].depth < plan[node].depth])
        for node in range(2, recipe.nodes)
    }
    more = random.sample([edge for edge in allowed if edge not in tree], recipe.edges - len(tree))
    edges = sorted({*tree, *more}, key=lambda edge: (edge[1], edge[0]))
    ends = {spot.owner: node for node, spot in enumerate(plan) if spot.end}
    root = random.randrange(2)
    return _pose(random, Graph(recipe.nodes, tuple(edges)), root, ends[root], ends[1 - root])


# -- broom: two roots, each the start of as many equal chains


def _broom_recipe(lengths: tuple[int, ...], weights: tuple[float, ...], branches: int) -> Recipe:
    if branches < 1:
        raise UserError("a broom needs branches", given=f"branches {branches}", expected="1 or more")
    return Recipe("broom", lengths, weights, nodes=2 + 2 * branches * max(lengths), branches=branches)


def _broom(random: Random, recipe: Recipe, hops: int | None) -> Puzzle:
    """Nothing but the end of a chain says which of the root's chains holds the target: the first step of a
    written chain is a guess."""
    assert hops is not None
    chains = 2 * recipe.branches
    # Level by level; chain c starts at root c % 2, and node 2 + level * chains + c is its next one.
    edges = [(chain % 2, 2 + chain) for chain in range(chains)]
    edges += [(node - chains, node) for node in range(2 + chains, 2 + chains * hops)]
    root = random.randrange(2)
    last = 2 + chains * (hops - 1)
    target, negative = (last + 2 * random.randrange(recipe.branches) + side for side in (root, 1 - root))
    return _pose(random, Graph(2 + chains * hops, tuple(edges)), root, target, negative)


SHAPES: dict[str, Callable[[Random, Recipe, int | None], Puzzle]] = {
    "released": _released,
    "depth_matched": _depth_matched,
    "sized": _sized,
    "broom": _broom,
}
