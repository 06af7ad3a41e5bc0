"""ProsQA as a reader sees it: the answer follows from the text, whatever the settings."""

import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError

ASSET = Path(__file__).parents[1] / "assets" / "coconut_paper_prosqa_valid.json.gz"
FIELDS = ["question", "answer", "steps", "idx_to_symbol", "edges", "root", "target", "neg_target"]


def released() -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(gzip.decompress(ASSET.read_bytes()))
    return records


def example_of(record: dict[str, Any]) -> Example:
    extra = {key: record[key] for key in FIELDS[3:]}
    return Example(record["question"], tuple(record["steps"]), record["answer"], extra)


class Reader:
    """Knows the text alone: the edges it tells, who is asked, and the two options."""

    def __init__(self, question: str) -> None:
        if "[R]" in question:
            body, _, ask = question.partition(" [Q] ")
            self.options, self.asked = tuple(ask.split()[:2]), ask.split()[-1]
            self.edges = [tuple(pair.split()) for pair in body.removesuffix(" |").split(" | ")]
            return
        *facts, ask = re.findall(r"[^.?]+[.?]", question)
        words = ask.rstrip("?").split()
        assert [words[0], words[2], words[4]] == ["Is", "a", "or"] and len(words) == 6
        self.asked, self.options = words[1], (words[3], words[5])
        self.edges = [self.edge(fact) for fact in facts]

    @staticmethod
    def edge(fact: str) -> tuple[str, ...]:
        found = re.fullmatch(r"(?:Every ([a-z]+)|([A-Z][a-z]+)) is a ([a-z]+)\.", fact.strip())
        assert found, fact
        return (found[1] or found[2], found[3])

    def hops(self, start: str) -> dict[str, int]:
        away = {start: 0}
        for _ in self.edges:
            for a, b in self.edges:
                if a in away:
                    away[b] = min(away.get(b, away[a] + 1), away[a] + 1)
        return away


def check(example: Example) -> None:
    """The gold option follows, the other does not, and the steps are a shortest way that the text tells."""
    reader = Reader(example.question)
    reached = reader.hops(reader.asked)
    gold = example.answer.removeprefix(f"{reader.asked} is a ").rstrip(".")
    (wrong,) = set(reader.options) - {gold}
    assert gold in reached and wrong not in reached
    assert len(example.steps) == reached[gold]
    if "[R]" in example.question:
        walk = list(pairwise([reader.asked, *example.steps]))
    else:
        assert all(step in example.question for step in example.steps)
        walk = [Reader.edge(step) for step in example.steps]
    assert all(step in reader.edges for step in walk)
    assert walk[0][0] == reader.asked and walk[-1][1] == gold
    assert all(left[1] == right[0] for left, right in pairwise(walk))


SHAPES = st.one_of(
    st.just({}),
    st.just({"shape": "depth_matched"}),
    st.builds(lambda hops: {"shape": "released", "hops": hops}, st.sampled_from(["3", "4", "3-5"])),
    st.integers(1, 4).flatmap(
        lambda hops: st.builds(lambda spare: {"hops": hops, "nodes": 2 * hops + 2 + spare}, st.integers(0, 9))
    ),
    st.builds(
        lambda branches, hops: {"shape": "broom", "branches": branches, "hops": hops},
        st.integers(1, 3),
        st.sampled_from([1, 3, "1-3"]),
    ),
)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(["sentences", "symbols"]), st.integers(0, 10**6))
def test_every_made_answer_and_its_twin_follow_from_the_text(
    shape: dict[str, Any], style: str, seed: int
) -> None:
    one, two = prosqa.make(1, seed=seed, style=style, counterfactual=True, **shape)
    check(one)
    check(two)
    assert one.answer != two.answer
    left, right = Reader(one.question), Reader(two.question)
    assert (left.edges, left.options) == (right.edges, right.options) and left.asked != right.asked


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(0, 8), st.floats(0, 1), st.integers(0, 1000))
def test_a_sized_graph_has_that_size(hops: int, spare: int, fullness: float, seed: int) -> None:
    nodes = 2 * hops + 2 + spare
    with pytest.raises(UserError) as refused:
        prosqa.make(1, nodes=nodes, hops=hops, edges=10**6)
    least, most = (int(n) for n in re.findall(r"(\d+) to (\d+) edges", str(refused.value))[0])
    edges = round(least + fullness * (most - least))
    (example,) = prosqa.make(1, seed=seed, nodes=nodes, hops=hops, edges=edges)
    check(example)
    assert (len(example.extra["idx_to_symbol"]), len(example.extra["edges"])) == (nodes, edges)
    assert len(example.steps) == hops


def test_fields_and_sentences_are_those_of_the_released_files() -> None:
    (made,) = (example.to_json() for example in prosqa.make(1))
    record = released()[0]
    assert list(made) == FIELDS and set(record) == set(FIELDS)
    assert {key: type(made[key]) for key in FIELDS} == {key: type(record[key]) for key in FIELDS}
    for row in released()[:50]:
        check(example_of(row))
        symbols, entities = row["idx_to_symbol"], {row["root"], 1 - row["root"]}
        assert {symbols[n][0].isupper() for n in entities} == {True}
        told = Counter(Reader(row["question"]).edges)
        assert told == Counter((symbols[a], symbols[b]) for a, b in row["edges"])
        assert set(symbols) <= {*prosqa.ENTITIES, *prosqa.CONCEPTS}


def test_every_released_example_flips_when_the_other_entity_is_asked() -> None:
    for row in released():
        example = example_of(row)
        twin = prosqa.twin(example)
        check(twin)
        symbols = row["idx_to_symbol"]
        assert twin.answer == f"{symbols[1 - row['root']]} is a {symbols[row['neg_target']]}."
        assert {key: twin.extra[key] for key in ("root", "target", "neg_target")} == {
            "root": 1 - row["root"],
            "target": row["neg_target"],
            "neg_target": row["target"],
        }
        back = prosqa.twin(twin)
        assert (back.question, back.answer, back.extra) == (example.question, example.answer, example.extra)


def test_facts_and_options_stand_in_random_order() -> None:
    made, agree, first, ordered = 200, 0, 0, 0
    for example in prosqa.make(made, nodes=6, hops=2):
        symbols, reader = example.extra["idx_to_symbol"], Reader(example.question)
        told = [[symbols.index(a), symbols.index(b)] for a, b in reader.edges]
        agree += told.index(example.extra["edges"][0]) < told.index(example.extra["edges"][-1])
        ordered += reader.edges == sorted(reader.edges)  # one order of 24
        first += reader.options[0] == symbols[example.extra["target"]]
    assert 0.38 < agree / made < 0.62 and 0.38 < first / made < 0.62 and ordered < 24


def as_bytes(count: int, **given: Any) -> list[str]:
    return [json.dumps(example.to_json()) for example in prosqa.make(count, **given)]


def test_same_seed_same_bytes_for_any_number_of_processes() -> None:
    one = as_bytes(600, seed=5, hops=2)
    assert one == as_bytes(600, seed=5, hops=2, processes=3)
    assert one[:7] == as_bytes(7, seed=5, hops=2)
    assert len(set(one)) == 600 and not set(one) & set(as_bytes(600, seed=6, hops=2))


def test_pairs_carry_their_number_and_the_twin_says_so() -> None:
    examples = list(prosqa.make(3, counterfactual=True))
    marks = [(e.extra["pair"], e.extra["counterfactual"]) for e in examples]
    assert marks == [(0, False), (0, True), (1, False), (1, True), (2, False), (2, True)]
    assert [e.question for e in examples[::2]] == [e.question for e in prosqa.make(3)]


def test_neighbours_by_hop_are_there_on_request() -> None:
    for example in prosqa.make(20, neighbor_k=True, bfs_neighbor_k=True, counterfactual=True):
        extra, reader = example.extra, Reader(example.question)
        reached = reader.hops(reader.asked)
        symbols = extra["idx_to_symbol"]
        frontier = {symbols[n]: int(hop) for hop, nodes in extra["bfs_neighbor_k"].items() for n in nodes}
        assert frontier == reached
        assert extra["neighbor_k"]["0"] == [extra["root"]]
        assert extra["neighbor_k"][str(len(example.steps))] == [extra["target"]]
        walked = [Reader.edge(step)[1] for step in example.steps]
        assert all(
            node in [symbols[n] for n in extra["neighbor_k"][str(hop)]] for hop, node in enumerate(walked, 1)
        )


def test_symbols_are_written_as_edges_then_options_then_root() -> None:
    (example,) = prosqa.make(1, nodes=6, hops=2, style="symbols")
    assert re.fullmatch(r"(\d \d \| ){4}\[Q\] \d \d \[R\] \d", example.question)
    assert example.steps[-1] == example.answer and sorted(example.extra["idx_to_symbol"]) == list("012345")


def test_a_broom_hides_its_target_behind_equal_chains() -> None:
    firsts: Counter[tuple[int, int]] = Counter()
    for example in prosqa.make(400, shape="broom", branches=2, hops=3):
        extra = example.extra
        assert len(extra["idx_to_symbol"]) == 14 and len(extra["edges"]) == 12
        degree = Counter(a for a, _ in extra["edges"])
        assert degree[0] == degree[1] == 2 and set(degree[n] for n in range(2, 14)) == {0, 1}
        firsts[(extra["root"], extra["target"])] += 1
    assert len(firsts) == 4 and min(firsts.values()) > 70


def test_path_lengths_come_with_their_odds() -> None:
    made = prosqa.make(600, shape="broom", hops="1-3", hop_weights="1,0,3")
    lengths = Counter(len(example.steps) for example in made)
    assert set(lengths) == {1, 3} and 0.7 < lengths[3] / 600 < 0.8


IMPOSSIBLE: list[dict[str, Any]] = [
    {"count": -1},
    {"processes": 0},
    {"style": "prose"},
    {"shape": "tree"},
    {"nodes": 3},
    {"nodes": 0},
    {"nodes": 7, "hops": 3},
    {"nodes": 10, "hops": 3, "edges": 7},
    {"nodes": 10, "hops": 3, "edges": 100},
    {"nodes": 41, "hops": 3},
    {"hops": 0},
    {"hops": "3-1"},
    {"hops": "three"},
    {"hops": [2, 2]},
    {"hops": 40},
    {"hops": "1-3", "hop_weights": "1,2"},
    {"hops": "1-3", "hop_weights": "1,-2,1"},
    {"hops": "1-2", "hop_weights": [0, 0]},
    {"hops": "1-2", "hop_weights": "a,b"},
    {"shape": "released", "nodes": 20},
    {"shape": "released", "hops": 9},
    {"shape": "depth_matched", "hops": 6},
    {"shape": "sized", "branches": 2},
    {"shape": "broom", "branches": 0},
    {"shape": "broom", "branches": 7, "hops": 3},
    {"shape": "broom", "edges": 12},
]


@pytest.mark.parametrize("given", IMPOSSIBLE, ids=str)
def test_impossible_settings_are_refused_before_anything_is_made(given: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        prosqa.make(**({"count": 1} | given))


def test_symbols_name_more_nodes_than_sentences_can() -> None:
    (example,) = prosqa.make(1, nodes=60, hops=3, style="symbols")
    check(example)


@pytest.mark.parametrize("damage", [{"root": 99}, {"target": 0}, {"edges": None}, {"edges": [[0, 99]]}])
def test_a_record_without_a_sound_graph_is_no_prosqa(damage: dict[str, Any]) -> None:
    row = released()[0]
    with pytest.raises(UserError, match="not a ProsQA example"):
        prosqa.parse(example_of(row | damage))
    with pytest.raises(UserError, match="not a ProsQA example"):
        prosqa.parse(Example(row["question"], (), row["answer"]))


def test_a_twin_needs_a_question_about_its_root() -> None:
    row = released()[0]
    with pytest.raises(UserError, match="another node"):
        prosqa.twin(example_of(row | {"question": row["question"].replace("Is Tom a", "Is Davis a")}))


SCORES = [
    ("Tom is a terpus.\n### Tom is a lempus.", True, True),
    ("### tom is a  LEMPUS", True, False),
    ("#### Tom is a lempus", True, False),
    ("### Tom is a scrompus.", False, False),
    ("Every brimpus is a lempus.\nTom is a lempus.", True, False),
    ("### Tom is a lempus.\n\n", True, True),
    ("### Tom, is a lempus.", True, True),
    ("### Tom is a scrompus. ### Tom is a lempus.", True, True),
    ("###", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("output", "tolerant", "reference"), SCORES)
def test_scores(output: str, tolerant: bool, reference: bool) -> None:
    example = example_of(released()[0])
    assert prosqa.TASK.score(output, example).correct is tolerant
    assert type(prosqa.TASK)("prosqa", scoring="reference").score(output, example).correct is reference
    assert (prosqa.TASK.name, prosqa.TASK.max_new_tokens) == ("prosqa", 128)


def test_an_unknown_scoring_is_refused() -> None:
    with pytest.raises(UserError, match="unknown scoring"):
        type(prosqa.TASK)("prosqa", scoring="lenient")
