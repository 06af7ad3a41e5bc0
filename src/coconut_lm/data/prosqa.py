"""ProsQA: which of two concepts does an entity reach in a graph told in sentences (or in symbols)?

An example carries the graph beside its text: `idx_to_symbol`, `edges`, `root`, `target`, `neg_target`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from coconut_lm.data import graphs
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example
from coconut_lm.data.graphs import Graph, Puzzle
from coconut_lm.data.making import spread
from coconut_lm.data.shapes import Recipe, recipe
from coconut_lm.errors import UserError

TASK = WordedTask("prosqa")

_ENTITIES = "Tom Bob Max Gabriel Polly Oliver Alex Jack Carol Sam Stella Sally Eva Fae Rex Davis Wren"
_CONCEPTS = """
quimpus sterpus scrompus vumpus terpus wumpus tumpus grimpus storpus zumpus rorpus bompus fompus jompus lorpus
boompus brimpus yerpus rempus gorpus shumpus lempus impus hilpus yimpus gerpus jelpus kerpus felpus rompus
worpus numpus zhorpus dumpus gwompus timpus chorpus yumpus
"""
ENTITIES, CONCEPTS = _ENTITIES.split(), _CONCEPTS.split()
FIELDS = ("idx_to_symbol", "edges", "root", "target", "neg_target")


@dataclass(frozen=True)
class Style:
    """How a puzzle is written; `fact` and `step` take two names and whether the first is an entity."""

    names: Callable[[Random, Graph, Recipe], list[str]]
    fact: Callable[[str, str, bool], str]
    step: Callable[[str, str, bool], str]
    answer: Callable[[str, str], str]
    ask: Callable[[str], str]  # the part of the question that names the asked node
    close: Callable[[str, str, str], str]  # asked node and the two options, in their order
    first_option: int  # which word of the question it is


def _words(random: Random, graph: Graph, recipe: Recipe) -> list[str]:
    entities, concepts = random.sample(ENTITIES, len(ENTITIES)), random.sample(CONCEPTS, len(CONCEPTS))
    sources = set(graph.sources)
    return [entities.pop() if node in sources else concepts.pop() for node in range(graph.size)]


def _numbers(random: Random, graph: Graph, recipe: Recipe) -> list[str]:
    """From the same range for every graph of a recipe, so that no number says how large the graph is."""
    return [str(number) for number in random.sample(range(recipe.nodes), graph.size)]


def _sentence(a: str, b: str, entity: bool) -> str:
    return f"{a} is a {b}." if entity else f"Every {a} is a {b}."


STYLES = {
    "sentences": Style(
        names=_words,
        fact=_sentence,
        step=_sentence,
        answer=lambda root, target: f"{root} is a {target}.",
        ask=lambda root: f"Is {root} a ",
        close=lambda root, first, second: f"Is {root} a {first} or {second}?",
        first_option=-3,
    ),
    "symbols": Style(
        names=_numbers,
        fact=lambda a, b, entity: f"{a} {b} |",
        step=lambda a, b, entity: b,
        answer=lambda root, target: target,
        ask=lambda root: f"[R] {root}",
        close=lambda root, first, second: f"[Q] {first} {second} [R] {root}",
        first_option=-4,
    ),
}


def style_of(example: Example) -> Style:
    """In words or in symbols: an example shows it."""
    return STYLES["symbols" if "[R]" in example.question else "sentences"]


def parse(example: Example) -> Puzzle:
    """The puzzle of an example that carries its graph."""
    words = example.question.split()
    try:
        symbols, edges, root, target, negative = (example.extra[field] for field in FIELDS)
        graph = Graph(len(symbols), tuple((a, b) for a, b in edges))
        first_word = words[style_of(example).first_option]
        first = target if first_word == symbols[target] else negative
        puzzle = Puzzle(graph, root, _other(graph, root, target, negative), target, negative, first)
        if target in puzzle.depth:
            return puzzle
    except (TypeError, ValueError, LookupError):  # a field or a node that is not there
        pass
    raise UserError(
        "not a ProsQA example",
        given=" ".join(["...", *words[-8:]]),
        expected=f"{', '.join(FIELDS)}, where root reaches target and another entity reaches neg_target",
        do="check the file, or choose another task",
    )


def _other(graph: Graph, root: int, target: int, negative: int) -> int:
    """The main entity that was not asked: it reaches the negative and not the target."""
    sources = set(graph.sources)
    wrong = [n for n in graphs.distances(graph.parents, negative) if n in sources]
    right = graphs.distances(graph.parents, target)
    found = [n for n in wrong if n != root and n not in right]
    return 1 - root if 1 - root in found else min(found)


def _steps(
    style: Style, puzzle: Puzzle, symbols: Sequence[str], choose: Callable[[list[int]], int]
) -> tuple[str, ...]:
    path = graphs.shortest_path(puzzle.graph, puzzle.root, puzzle.target, choose)
    assert path is not None
    sources = set(puzzle.graph.sources)
    return tuple(
        style.step(symbols[a], symbols[b], a in sources) for a, b in zip(path, path[1:], strict=False)
    )


def _extra(puzzle: Puzzle, symbols: list[str], wanted: Iterable[str]) -> dict[str, Any]:
    """The record's fields beside its text; `wanted` names those that are there on request."""
    on_request = {"neighbor_k": puzzle.optimal, "bfs_neighbor_k": puzzle.frontier}
    return {
        "idx_to_symbol": symbols,
        "edges": [list(edge) for edge in puzzle.graph.edges],
        "root": puzzle.root,
        "target": puzzle.target,
        "neg_target": puzzle.negative,
        **{name: on_request[name]() for name in on_request if name in wanted},
    }


def write(puzzle: Puzzle, style: Style, names: list[str], random: Random, wanted: Iterable[str]) -> Example:
    """The puzzle in words: every edge once, in random order, then the question."""
    sources = set(puzzle.graph.sources)
    facts = [style.fact(names[a], names[b], a in sources) for a, b in puzzle.graph.edges]
    random.shuffle(facts)
    first, second = (names[option] for option in puzzle.options)
    return Example(
        question=" ".join([*facts, style.close(names[puzzle.root], first, second)]),
        steps=_steps(style, puzzle, names, random.choice),
        answer=style.answer(names[puzzle.root], names[puzzle.target]),
        extra=_extra(puzzle, names, wanted),
    )


def twin(example: Example) -> Example:
    """The same text asked of the other main entity: the gold answer flips; its steps are a shortest path."""
    style, old = style_of(example), parse(example)
    new = replace(old, root=old.other, other=old.root, target=old.negative, negative=old.target)
    symbols = list(example.extra["idx_to_symbol"])
    head, asked, tail = example.question.rpartition(style.ask(symbols[old.root]))
    if not asked:
        raise UserError("the question asks for another node than its root", given=example.question[-60:])
    return Example(
        question=head + style.ask(symbols[new.root]) + tail,
        steps=_steps(style, new, symbols, min),
        answer=style.answer(symbols[new.root], symbols[new.target]),
        extra={**example.extra, **_extra(new, symbols, example.extra)},
    )


@dataclass(frozen=True)
class _Job:
    """All that decides the examples; (seed, index) decides the rest."""

    recipe: Recipe
    style: str
    seed: int
    pairs: bool
    wanted: tuple[str, ...]

    def at(self, index: int) -> list[Example]:
        random = Random(f"prosqa {self.seed} {index}")
        style = STYLES[self.style]
        puzzle = self.recipe.draw(random)
        names = style.names(random, puzzle.graph, self.recipe)
        example = write(puzzle, style, names, random, self.wanted)
        if not self.pairs:
            return [example]
        example = replace(example, extra={**example.extra, "pair": index, "counterfactual": False})
        swapped = twin(example)
        return [example, replace(swapped, extra={**swapped.extra, "counterfactual": True})]


def make(
    count: int,
    *,
    seed: int = 0,
    style: str = "sentences",
    counterfactual: bool = False,
    neighbor_k: bool = False,
    bfs_neighbor_k: bool = False,
    processes: int = 1,
    **shape: Any,
) -> Iterator[Example]:
    """`count` examples, the same for any number of processes; `counterfactual` lets its twin follow each.

    `shape` takes the settings of shapes.recipe: shape, nodes, edges, hops, hop_weights, branches.
    """
    if style not in STYLES:
        raise UserError("unknown style", given=style, expected=", ".join(STYLES))
    chosen = recipe(**shape)
    _check_names(chosen, style)
    wanted = [name for name, on in (("neighbor_k", neighbor_k), ("bfs_neighbor_k", bfs_neighbor_k)) if on]
    job = _Job(chosen, style, seed, counterfactual, tuple(wanted))
    return spread(job.at, count, processes)


def _check_names(recipe: Recipe, style: str) -> None:
    if style == "sentences" and recipe.nodes - 2 > len(CONCEPTS):
        raise UserError(
            "more nodes than there are concepts to name them",
            given=f"up to {recipe.nodes} nodes",
            expected=f"at most {len(CONCEPTS) + 2} in sentences",
            do="set the style to symbols, or make the graph smaller",
        )


def statistics(examples: Iterable[Example]) -> dict[str, Any]:
    """Sizes of the graphs and lengths of the ways in them: means, and shares of each value."""
    return graphs.statistics([parse(example) for example in examples])


def shortcuts(examples: Iterable[Example]) -> dict[str, float]:
    """The accuracy that rules reach which never follow the chain: the floors of this file."""
    return graphs.shortcuts([parse(example) for example in examples])


def shortcut_right(example: Example, rule: str = graphs.STRONGEST) -> float:
    """1 where the rule answers this example, 0 where it errs, 1/2 where it cannot tell: to group by."""
    return graphs.rule_score(parse(example), rule)
