"""What may be done to the thoughts about a file of examples: the list that the battery goes through."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coconut_lm import base as bases
from coconut_lm import substitutes
from coconut_lm.answer import Read
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.data.survey import readable
from coconut_lm.errors import UserError
from coconut_lm.exam import Examiner
from coconut_lm.methods import Row, Rows
from coconut_lm.study import DEFAULT_BATCH
from coconut_lm.substitutes import Recorded, Substitute, anothers, fed, interchanged, record, telling
from coconut_lm.tokens import LATENT, PAUSE

CLEAN, ASKED = "clean", "asked"
SHARES = (0.25, 0.5, 0.75)
PLACES = 8  # thoughts that are disturbed one by one, at most


@dataclass(frozen=True)
class Donors:
    """Whose thoughts an example is given, None where it keeps its own; in the trial `answered` they are asked
    what they are asked here."""

    of: Sequence[int | None]
    prompts: Rows
    answered: str = CLEAN

    @property
    def paired(self) -> int:
        return sum(donor is not None for donor in self.of)

    @property
    def or_self(self) -> list[int]:
        return [own if donor is None else donor for own, donor in enumerate(self.of)]

    @property
    def notes(self) -> list[dict[str, int | None]]:
        return [{"donor": donor} for donor in self.of]


@dataclass(frozen=True)
class Treatment:
    """How examples are asked, and in words what is done to their thoughts."""

    name: str
    group: str
    title: str
    read: Read | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)  # more for the trial
    donors: Donors | None = None
    keeps_thoughts: bool = False  # the question is the donor's


class Counted(Rows):
    """The same prompts with so many thoughts each."""

    def __init__(self, rows: Rows, counts: Sequence[int]) -> None:
        vars(self).update(vars(rows))
        self.counts = counts

    def prompt(self, index: int, stage: int, thoughts: int | None = None) -> Row:
        return super().prompt(index, stage, self.counts[index])


def deranged(kinds: Sequence[Hashable], golds: Sequence[str], seed: int) -> list[int | None]:
    """For each example another of its kind, of another gold answer wherever that can be; None for who is
    alone. Nobody is given to two."""
    groups = defaultdict[Hashable, list[int]](list)
    for member in np.random.default_rng(seed).permutation(len(kinds)).tolist():
        groups[kinds[member]].append(member)
    donors: list[int | None] = [None] * len(kinds)
    for members in groups.values():
        sizes = Counter(golds[member] for member in members)
        order = {gold: place for place, (gold, _) in enumerate(sizes.most_common())}
        members.sort(key=lambda member: order[golds[member]])
        largest = max(sizes.values())
        turn = largest if largest < len(members) else 1  # past the end of every block of one gold answer
        for place, member in enumerate(members if len(members) > 1 else ()):
            donors[member] = members[(place + turn) % len(members)]
    return donors


class Treatments:
    """All that can be done here, in order; `left_out` says what cannot, and why."""

    def __init__(self, examiner: Examiner, seed: int) -> None:
        self.examiner, self.seed = examiner, seed
        self.left_out: list[str] = []
        self.prompts = self._prompts(examiner.prompts)
        self.slots = [prompt.thoughts for prompt in self.prompts]
        self.most = max(self.slots, default=0)

    def __iter__(self) -> Iterator[Treatment]:
        self.left_out.clear()
        yield Treatment("dropped", "dropped", "no thoughts", asked={"thoughts": 0})
        yield from self._numbers()
        yield from self._replaced()
        yield from self._moved()
        yield from self._interchanged()
        yield from self._of_twins()

    # -- another number of thoughts --

    def _numbers(self) -> Iterator[Treatment]:
        slots, most = self.slots, self.most
        alike = len({*slots}) == 1
        for k in range(1, most):
            title = f"{k} of {most} thoughts" if alike else f"at most {k} thought{'s' * (k > 1)}"
            yield self._with(f"stop_{k}", title, [min(k, n) for n in slots])
        more = {
            "plus_1": ("one thought more", [n and n + 1 for n in slots]),
            "plus_2": ("two thoughts more", [n and n + 2 for n in slots]),
            "twice": ("twice as many thoughts", [2 * n for n in slots]),
        }
        asked: list[list[int]] = []
        for name, (title, counts) in more.items():
            if counts in asked:
                continue
            asked.append(counts)
            if self._fits(counts):
                yield self._with(name, f"{max(counts)} thoughts, not {most}" if alike else title, counts)
            else:
                self.left_out.append(f"{title}: the model has no positions for that and an answer")

    def _with(self, name: str, title: str, counts: Sequence[int]) -> Treatment:
        return Treatment(name, "number", title, asked={"prompts": Counted(self.examiner.prompts, counts)})

    def _fits(self, counts: Sequence[int]) -> bool:
        """With room for what is to be written."""
        rows, stage = self.examiner.prompts, self.examiner.setting.stage
        golds = (rows.row(prompt.index, stage) for prompt in self.prompts)
        lengths = [
            len(prompt.input_ids) - prompt.thoughts + count + len(gold.input_ids) - gold.supervised_from
            for prompt, count, gold in zip(self.prompts, counts, golds, strict=True)
        ]
        return max(lengths) <= self.examiner.answerer.limit

    # -- other thoughts --

    def _replaced(self) -> Iterator[Treatment]:
        """By what has not their content, or less of it."""
        yield self._fed("zero", "every thought zero", substitutes.zero)
        if sum(n > 0 for n in self.slots) > 1:
            yield self._fed("mean", "every thought the mean of other examples'", substitutes.mean)
        else:
            self.left_out.append("the mean of other examples' thoughts: there is no other example")
        noise = substitutes.gaussian(self.seed)
        yield self._fed("gaussian", "every thought Gaussian, as long as it was", noise)
        token, vector_D = self._placeholder()
        title = f"every thought the embedding of {token}"
        yield self._fed("pause", title, substitutes.constant(vector_D))
        if self.most > 1:
            yield self._fed("first", "every thought the first one", substitutes.first)
        for share in SHARES if self.others.paired else ():
            given = anothers(self.others.or_self, share=share)
            title = f"thoughts {share:.0%} of the way to another example's"
            yield self._fed(f"between_{share:g}", title, given, donors=self.others)

    def _placeholder(self) -> tuple[str, Tensor]:
        """The embedding that stands for nothing: a pause's, or what is read where nothing is fed back."""
        model, latent = self.examiner.answerer.model, self.examiner.answerer.tokens.latent
        pause = model.config.pause_token_id
        token = torch.tensor([latent if pause is None else pause], device=model.device)
        with torch.no_grad():
            vector_D = model.get_input_embeddings()(token)[0]
        scale = bases.input_scale(model.config.get_text_config())
        return LATENT if pause is None else PAUSE, (vector_D * scale).cpu()

    def _moved(self) -> Iterator[Treatment]:
        """Thoughts where they do not belong: all of them, and one by one."""
        if self.most > 1:
            mixed = substitutes.shuffled(self.seed)
            yield self._fed("shuffled", "thoughts in another order", mixed, "moved")
        else:
            self.left_out.append("another order, one thought for all, one by one: there is but one thought")
        given = anothers(self.others.or_self)
        if self.others.paired:
            title = f"thoughts of another example{_of(self.others)}"
            yield self._fed("swap", title, given, "moved", self.others)
        else:
            self.left_out.append("another example's thoughts: no two examples have as many")
        for place in range(self.most) if 1 < self.most <= PLACES else ():
            one = f"thought {place + 1} alone"
            yield self._fed(f"zero_{place + 1}", f"{one} zero", substitutes.zero, "moved", only=place)
            if self.others.paired:
                title = f"{one} of another example"
                yield self._fed(f"swap_{place + 1}", title, given, "moved", self.others, place)

    def _fed(
        self,
        name: str,
        title: str,
        given: Substitute,
        group: str = "replaced",
        donors: Donors | None = None,
        only: int | None = None,
    ) -> Treatment:
        read = fed(self.own, given, only)
        return Treatment(name, group, title, telling(read, donors.notes) if donors else read, donors=donors)

    # -- another's keys and values --

    def _interchanged(self) -> Iterator[Treatment]:
        if not self._exchangeable:
            self.left_out.append("keys and values: the base does not keep those of all columns")
            return
        lengths = [len(prompt.input_ids) for prompt in self.prompts]
        donors = self._donors(list(zip(self.slots, lengths, strict=True)))
        if not donors.paired:
            self.left_out.append("keys and values: no two prompts are of one length")
            return
        title = f"keys and values of another example's thoughts{_of(donors)}"
        yield self._exchanged("kv_thoughts", title, donors)
        title = f"keys and values of another example's question{_of(donors)}"
        yield self._exchanged("kv_question", title, donors, keeps=True)

    def _exchanged(self, name: str, title: str, donors: Donors, keeps: bool = False) -> Treatment:
        whose, theirs = donors.or_self, donors.prompts
        setting, own = self.examiner.setting, self.examiner.prompts

        def donor(row: int) -> Row:
            rows = own if donors.of[row] is None else theirs
            return rows.prompt(whose[row], setting.stage, setting.thoughts)

        exchanged = interchanged(donor, self.examiner.answerer.tokens, "question" if keeps else "thoughts")
        read = telling(exchanged, donors.notes)
        return Treatment(name, "interchanged", title, read, donors=donors, keeps_thoughts=keeps)

    # -- the other entity of graph data --

    def _of_twins(self) -> Iterator[Treatment]:
        """The same question of the other entity, and the thoughts that come of that with one's own question:
        they are about the same graph and lead to the other option."""
        twins = self._twins()
        if not twins:
            return
        rows = self.examiner.loaded.prompts(twins)
        asked = {"prompts": rows, "judged": twins}
        yield Treatment(ASKED, "asked", "the question about the other entity", asked=asked)
        prompts = self._prompts(rows)
        theirs = self._recorded(prompts)
        fit = [0 < a.thoughts == b.thoughts for a, b in zip(self.prompts, prompts, strict=True)]
        donors = Donors([i if fits else None for i, fits in enumerate(fit)], rows, ASKED)
        if donors.paired:
            title = f"thoughts about the other entity{_of(donors)}"
            given = anothers(donors.or_self, theirs)
            yield self._fed("twin_swap", title, given, "moved", donors)
        same = [len(a.input_ids) == len(b.input_ids) for a, b in zip(self.prompts, prompts, strict=True)]
        both = [a and b for a, b in zip(fit, same, strict=True)]
        donors = Donors([i if fits else None for i, fits in enumerate(both)], rows, ASKED)
        if donors.paired and self._exchangeable:
            title = f"keys and values of thoughts about the other entity{_of(donors)}"
            yield self._exchanged("kv_twin", title, donors)
            title = f"keys and values of the question about the other entity{_of(donors)}"
            yield self._exchanged("kv_twin_question", title, donors, keeps=True)

    def _twins(self) -> Sequence[Example]:
        examples = self.examiner.examples
        if self.examiner.setting.task != "prosqa":
            return []
        if len(readable(examples, "prosqa")) < len(examples):
            self.left_out.append("the other entity: the examples come without their graphs")
            return []
        try:
            return [prosqa.twin(example) for example in examples]
        except UserError as error:
            self.left_out.append(f"the other entity: {str(error).splitlines()[0]}")
            return []

    # -- what they are made from --

    def _prompts(self, rows: Rows) -> list[Row]:
        setting = self.examiner.setting
        return [rows.prompt(i, setting.stage, setting.thoughts) for i in range(len(rows))]

    def _recorded(self, prompts: Sequence[Row]) -> Recorded:
        return record(self.examiner.answerer, prompts, self.examiner.exam.batch_size or DEFAULT_BATCH)

    @cached_property
    def own(self) -> Recorded:
        return self._recorded(self.prompts)

    @cached_property
    def others(self) -> Donors:
        """Another example with as many thoughts."""
        return self._donors(self.slots)

    def _donors(self, kinds: Sequence[Hashable]) -> Donors:
        """Who has no thoughts neither gives nor takes any."""
        golds = [example.answer.strip() for example in self.examiner.examples]
        counted = enumerate(zip(kinds, self.slots, strict=True))
        apart = [kind if count > 0 else ("none", i) for i, (kind, count) in counted]
        return Donors(deranged(apart, golds, self.seed), self.examiner.prompts)

    @cached_property
    def _exchangeable(self) -> bool:
        return substitutes.exchangeable(self.examiner.answerer.model)


def _of(donors: Donors) -> str:
    """How many have one, where not all have."""
    n = len(donors.of)
    return "" if donors.paired == n else f" ({donors.paired} of {n} examples have one that fits)"
