"""ProntoQA: does a property follow from rules about made-up concepts, among distractors?"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from coconut_lm.data import records
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example
from coconut_lm.data.making import length_weights, path_lengths, spread
from coconut_lm.errors import UserError
from coconut_lm.files import read_text

TASK = WordedTask("prontoqa")

HOPS = range(1, 6)
_NAMES = "Alex Fae Max Polly Rex Sally Sam Stella Wren"
_CONCEPTS = """
brimpus dumpus gorpus grimpus impus jompus lempus lorpus numpus rompus shumpus sterpus tumpus vumpus
wumpus yumpus zumpus
"""
_FAMILIES = """
aggressive amenable angry kind mean; bitter sour spicy sweet; blue brown orange red; bright dull
cold hot temperate; discordant loud melodic muffled; earthy floral fruity; fast moderate slow
feisty happy nervous shy; large small; liquid luminous metallic wooden; opaque transparent
overcast rainy snowy sunny windy
"""
NAMES, CONCEPTS = _NAMES.split(), _CONCEPTS.split()
FAMILIES = [family.split() for family in re.split(r"[;\n]", _FAMILIES.strip())]  # no question has two of one

# How often a rule is negated, measured by where it stands: on the chain, beside it, as the one asked for.
NEGATED = {"chain": 0.27, "side": 0.33, "asked": 0.45}
TRAIN_PERCENT, VALID_PERCENT = 90, 2


@dataclass(frozen=True)
class Rule:
    """Concept `of` is a concept, or has a property or its opposite."""

    of: str
    what: str
    concept: bool
    negated: bool = False

    def write(self, random: Random) -> str:
        """A sentence, worded one of the usual ways."""
        no = "not " if self.negated else ""
        if random.random() < 0.5:
            return f"{self.of.capitalize()}es are {no}{self.what}{'es' if self.concept else ''}."
        subject = f"{random.choice(('Each', 'Every'))} {self.of} is"
        return f"{subject} {_with_article(self.what) if self.concept else no + self.what}."


def _with_article(concept: str) -> str:
    return f"{'an' if concept[0] in 'aeiou' else 'a'} {concept}"


@dataclass(frozen=True)
class Ontology:
    """The chain the answer follows from, all else that is said, and the two concepts the entity has."""

    chain: list[Rule]  # its last rule gives the property that is asked for
    rest: list[Rule]
    facts: tuple[str, str]


def ontology(random: Random, hops: int) -> Ontology:
    """A chain of `hops` concepts, each with a property and a dead end; a second concept of the entity with a
    dead end of its own; and a lone concept with the opposite of the property that is asked for."""
    names = iter(random.sample(CONCEPTS, 2 * hops + 4))
    families = iter(random.sample(FAMILIES, 2 * hops + 1))

    def has(concept: str, place: str) -> Rule:
        return Rule(concept, random.choice(next(families)), False, random.random() < NEGATED[place])

    concepts = [next(names) for _ in range(hops)]
    ends = [next(names) for _ in concepts]
    second, second_end, last_end, lone = names
    asked = has(concepts[-1], "asked")
    chain = [Rule(a, b, True) for a, b in zip(concepts, concepts[1:], strict=False)]
    rest = [Rule(a, b, True) for a, b in zip(concepts, ends, strict=True)]
    rest += [Rule(concepts[-1], last_end, True), Rule(second, second_end, True), has(second, "side")]
    rest += [has(concept, "chain") for concept in concepts[:-1]] + [has(end, "side") for end in ends]
    rest += [Rule(lone, asked.what, False, not asked.negated)]
    return Ontology([*chain, asked], rest, (concepts[0], second))


def example(random: Random, hops: int) -> Example:
    """One question whose chain has so many concepts."""
    world, name = ontology(random, hops), random.choice(NAMES)
    chain = [rule.write(random) for rule in world.chain]
    rules = chain + [rule.write(random) for rule in world.rest]
    facts = [f"{name} is {_with_article(concept)}." for concept in world.facts]
    said = [facts[0]]
    for rule, text in zip(world.chain, chain, strict=True):
        said += [text, f"{name} is {_with_article(rule.what)}."]
    asked = world.chain[-1]
    said[-1] = _claim(name, asked.what, asked.negated)
    random.shuffle(rules)
    random.shuffle(facts)
    negated = random.random() < 0.5
    query = f"True or false: {_claim(name, asked.what, negated)}"
    return Example(" ".join([*rules, *facts, query]), _in_pairs(said), str(negated == asked.negated))


def _claim(name: str, what: str, negated: bool) -> str:
    return f"{name} is {'not ' if negated else ''}{what}."


def _in_pairs(sentences: Sequence[str]) -> tuple[str, ...]:
    return tuple(" ".join(sentences[at : at + 2]) for at in range(0, len(sentences), 2))


@dataclass(frozen=True)
class _Job:
    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def at(self, index: int) -> list[Example]:
        random = Random(f"prontoqa {self.seed} {index}")
        return [example(random, random.choices(self.lengths, self.weights)[0])]


def make(
    count: int,
    *,
    seed: int = 0,
    hops: int | str | Sequence[int] = 5,
    hop_weights: str | Sequence[float] | None = None,
    processes: int = 1,
) -> Iterator[Example]:
    """`count` examples, the same for any number of processes; five hops is the published setting."""
    lengths = path_lengths(hops)
    if any(length not in HOPS for length in lengths):
        raise UserError("no such number of hops", given=hops, expected=f"{HOPS[0]} to {HOPS[-1]}")
    return spread(_Job(lengths, length_weights(hop_weights, lengths), seed).at, count, processes)


def convert(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, list[Example]]:
    """The original generator's JSON, split in its order: 90 % train, 2 % valid (rounded down), rest test."""
    content = source if isinstance(source, Mapping) else _read(Path(source))
    named = "the generator's records" if isinstance(source, Mapping) else str(source)
    expected = 'objects like {"test_example": {"question", "query", "chain_of_thought", "answer"}}'
    examples = records.parse(
        content.items(), _converted, skip_bad=False, source=named, expected=expected
    ).examples
    train, valid = (len(examples) * percent // 100 for percent in (TRAIN_PERCENT, VALID_PERCENT))
    return {
        "train": examples[:train],
        "valid": examples[train : train + valid],
        "test": examples[train + valid :],
    }


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise UserError(f"{path} is not JSON as it should be", given=error) from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not the ProntoQA generator's",
            given=type(content).__name__,
            expected='an object: {"example1": {"test_example": ...}, ...}',
        )
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two records with one name, JSON would silently keep the last."""
    if len(found := dict(pairs)) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{name!r} occurs twice")
    return found


def _converted(record: Any) -> list[Example]:
    raw = records.with_text(
        record.get("test_example") if isinstance(record, dict) else None, "question", "query", "answer"
    )
    chain = raw.get("chain_of_thought")
    if not isinstance(chain, list) or not chain or not all(isinstance(said, str) for said in chain):
        raise records.BadRecord("no list of sentences under 'chain_of_thought'")
    return [Example(f"{raw['question']} {raw['query']}", _in_pairs(chain), raw["answer"])]


@dataclass(frozen=True)
class Text:
    """A question cut into its rules, the facts about its entity, and the query."""

    rules: list[str]
    facts: list[str]
    name: str
    what: str
    negated: bool


def parse(question: str) -> Text:
    """Rules, facts and what is asked, as the question words them."""
    context, mark, query = question.rpartition("True or false: ")
    words = query.rstrip(". ").split()
    if not mark or len(words) not in (3, 4):
        raise UserError(
            "not a ProntoQA question",
            given=question[-60:],
            expected='... True or false: NAME is [not] WORD."',
        )
    sentences = [part.strip() for part in context.split(".") if part.strip()]
    facts = [sentence for sentence in sentences if sentence.startswith(words[0] + " ")]
    rules = [sentence for sentence in sentences if sentence not in facts]
    return Text(rules, facts, words[0], words[-1], "not" in words)


def _concepts(sentence: str) -> list[str]:
    return [re.sub("es$", "", word) for word in re.findall(r"\w+pus(?:es)?\b", sentence.lower())]


def _polarity(question: str) -> str:
    return str(not parse(question).negated)


def _linked_rule(question: str) -> str | None:
    """Of the two rules about the asked property, believes the one whose concept is named elsewhere too."""
    text = parse(question)
    named = Counter(concept for sentence in text.rules + text.facts for concept in _concepts(sentence))
    linked = [rule for rule in text.rules if rule.split()[-1] == text.what and named[_concepts(rule)[0]] > 1]
    return str(("not" in linked[0].split()) == text.negated) if len(linked) == 1 else None


RULES = {"always_false": lambda question: "False", "polarity": _polarity, "linked_rule": _linked_rule}


def shortcut_right(example: Example, rule: str = "polarity") -> float:
    """1 where the rule answers this example, 0 where it errs, 1/2 where it cannot tell."""
    guess = RULES[rule](example.question)
    return 0.5 if guess is None else float(guess == example.answer)


def shortcuts(examples: Sequence[Example]) -> dict[str, float]:
    """The accuracy of rules that never follow the chain: the floors of this file."""
    return {"guess": 0.5} | {
        name: fmean(shortcut_right(example, name) for example in examples) for name in RULES
    }


def statistics(examples: Iterable[Example]) -> dict[str, Any]:
    """Sizes, and how often the answer and the question are negative."""
    examples = list(examples)
    texts = [parse(example.question) for example in examples]
    asked = [sum(rule.split()[-1] == text.what for rule in text.rules) for text in texts]
    concepts = {concept for text in texts for rule in text.rules for concept in _concepts(rule)}
    return {
        "examples": len(examples),
        "context_sentences": fmean(len(text.rules) + len(text.facts) for text in texts),
        "facts": fmean(len(text.facts) for text in texts),
        "rules_about_asked_property": fmean(asked),
        "steps_shares": _shares([len(example.steps) for example in examples]),
        "question_words": fmean(len(example.question.split()) for example in examples),
        "answer_false": fmean(example.answer == "False" for example in examples),
        "query_negated": fmean(text.negated for text in texts),
        "negated_rules": fmean(sum("not" in rule.split() for rule in text.rules) for text in texts),
        "concepts": len(concepts),
        "names": len({text.name for text in texts}),
    }


def _shares(values: list[int]) -> dict[str, float]:
    return {str(value): values.count(value) / len(values) for value in sorted(set(values))}
