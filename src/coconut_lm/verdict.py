"""Is the latent used? What it costs to drop, replace or exchange thoughts, and what that says in words.

A row stands for one intervention, beside the clean run on the same examples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coconut_lm.statistics import paired_bootstrap
from coconut_lm.summary import apart, with_interval
from coconut_lm.tally import difference, rate
from coconut_lm.trials import Found, succeeded, verdicts

EMPTIED = ("dropped", "zero", "mean", "gaussian", "pause")  # thoughts without content
ANOTHERS = ("swap", "twin_swap", "kv_thoughts", "kv_twin")  # with another's content
LEVEL = 0.05
LOSS = 0.05  # of accuracy: who may lose as much cannot be called not to use its thoughts
CHANGED = 0.10  # of the answers: as much change is some use, even where accuracy stays

Row = dict[str, Any]


@dataclass(frozen=True)
class Voices:
    """What would be answered, by the example: by whom the thoughts are from, and by whom the question is."""

    of_thoughts: Mapping[int, str]
    of_question: Mapping[int, str]

    @property
    def at_odds(self) -> list[int]:
        """The examples that can show whom an answer follows."""
        both = self.of_thoughts.keys() & self.of_question.keys()
        return sorted(i for i in both if self.of_thoughts[i] and self.of_thoughts[i] != self.of_question[i])


def answers(rows: Sequence[Found]) -> dict[int, str]:
    return {row["index"]: row["extracted"] for row in succeeded(rows)}


def compared(
    rows: Sequence[Found],
    clean: Sequence[Found],
    voices: Voices | None = None,
    contentless: Sequence[Found] = (),
) -> Row:
    """The figures of an intervention. `contentless` are answers with thoughts that say nothing: as often as
    they agree with whom the thoughts are from, agreement is chance."""
    before, after, said, was = verdicts(clean), verdicts(rows), answers(rows), answers(clean)
    both = sorted(before.keys() & after.keys())
    found: Row = {"accuracy": rate(after.values()), "difference": None, "newcombe": None}
    found |= {"changed": rate(said[i] != was[i] for i in both)}
    found |= dict.fromkeys(("follows", "follows_by_chance", "follows_more"))
    if both:
        clean_was, now_is = ([float(each[i]) for i in both] for each in (before, after))
        found["difference"] = asdict(paired_bootstrap(clean_was, now_is))
        newcombe = difference(before, after)
        found["newcombe"] = {key: newcombe[key] for key in ("low", "high")}
    if voices:
        found |= _following(said, answers(contentless), voices)
    return found


def _following(said: Mapping[int, str], by_chance: Mapping[int, str], voices: Voices) -> Row:
    """How often the answer is that of whom the thoughts are from, where that of the question is another."""
    asked = [i for i in voices.at_odds if i in said]
    told = {i: said[i] == voices.of_thoughts[i] for i in asked}
    known = {i: by_chance[i] == voices.of_thoughts[i] for i in asked if i in by_chance}
    more = difference(known, told) if known else None
    return {
        "follows": rate(told.values()) if told else None,
        "follows_by_chance": rate(known.values()) if known else None,
        "follows_more": more,
    }


# -- the verdict --


def holm(ps: Sequence[float]) -> list[float]:
    """Each p corrected for the others that were looked at (Holm's step-down)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected, most = [0.0] * len(ps), 0.0
    for place, i in enumerate(order):
        most = max(most, min(1.0, ps[i] * (len(ps) - place)))
        corrected[i] = most
    return corrected


@dataclass(frozen=True)
class Test:
    """One of the rows that decide; its p is corrected."""

    row: Row
    p: float

    @property
    def costs(self) -> bool:
        return self.p < LEVEL and self.row["difference"]["high"] < 0

    @property
    def harmless(self) -> bool:
        gap = self.row["difference"]
        small = self.row["newcombe"]["low"] > -LOSS and self.row["changed"]["rate"] < CHANGED
        return gap["low"] <= 0 <= gap["high"] and small

    @property
    def follows(self) -> bool:
        more = self.row["follows_more"]
        return more is not None and more["low"] > 0


def verdict(
    rows: Sequence[Row], clean: Mapping[str, Any], floors: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Used: to empty the thoughts costs, to exchange them costs, and answers follow whom they are from.
    Not used: nothing of that costs, and what it may cost unseen is little. Else it is unclear."""
    deciding = [row for row in rows if row["name"] in EMPTIED + ANOTHERS and row["difference"]]
    corrected = holm([row["difference"]["p"] for row in deciding])
    tests = [Test(row, p) for row, p in zip(deciding, corrected, strict=True)]
    emptied = [test for test in tests if test.row["name"] in EMPTIED]
    anothers = [test for test in tests if test.row["name"] in ANOTHERS]
    used = "unclear"
    if any(test.costs for test in emptied) and any(test.costs and test.follows for test in anothers):
        used = "yes"
    elif emptied and anothers and all(test.harmless for test in tests):
        used = "no"
    sentences = [*_told(emptied, anothers), *_why(used, emptied, anothers), *_floors(rows, clean, floors)]
    if tests:
        sentences.append(_sureness(tests))
    return {"used": used, "sentences": sentences}


def _told(emptied: Sequence[Test], anothers: Sequence[Test]) -> Iterator[str]:
    for test in sorted(emptied, key=lambda test: test.row["name"] != "dropped"):
        yield f"{_title(test)}: {_points(test.row['difference'])}."
    for test in anothers:
        yield f"{_title(test)}: {_points(test.row['difference'])}{_follows(test.row)}."


def _title(test: Test) -> str:
    title: str = test.row["title"]
    return title[:1].upper() + title[1:]


def _follows(row: Row) -> str:
    """Whose answer it is then."""
    if row["follows"] is None:
        return ""
    told = f"; the answer is then that of whom the thoughts are from in {with_interval(row['follows'])}"
    chance = row["follows_by_chance"]
    return told + (f", with mean thoughts in {with_interval(chance)}" if chance else "")


def _why(used: str, emptied: Sequence[Test], anothers: Sequence[Test]) -> Iterator[str]:
    """What keeps it from being clear."""
    if used != "unclear":
        return
    costs = [any(test.costs for test in group) for group in (emptied, anothers)]
    if not (emptied and anothers):
        yield "To decide, thoughts have to be both emptied and exchanged: some of that was not done."
    elif all(costs):
        yield (
            "To disturb the thoughts costs, but answers do not follow whom the thoughts are from more than "
            "by chance: that they carry the answer is not shown."
        )
    elif costs[0]:
        yield "To empty the thoughts costs, but another's do as well as one's own."
    elif costs[1]:
        yield "Another's thoughts cost, but emptied ones do not: they mislead more than they are needed."
    else:
        worst = min(test.row["newcombe"]["low"] for test in (*emptied, *anothers))
        most = max(test.row["changed"]["rate"] for test in (*emptied, *anothers))
        yield (
            f"No loss is sure, but one of {-100 * worst:.1f} points cannot be excluded, and up to "
            f"{100 * most:.1f} % of the answers change."
        )


def _floors(
    rows: Sequence[Row], clean: Mapping[str, Any], floors: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Which accuracies a rule reaches that never thinks: the highest one."""
    known = {name: floor["rate"] for name, floor in floors.items() if floor.get("rate") is not None}
    if not known:
        return
    name = max(known, key=lambda name: known[name])
    told = f"{name.replace('_', ' ')}, {100 * known[name]:.1f} %"
    if clean["low"] <= known[name]:
        yield f"The clean run ({with_interval(clean)}) is not surely above what a shortcut reaches ({told})."
    dropped = next((row for row in rows if row["name"] == "dropped"), None)
    if dropped and dropped["accuracy"]["low"] <= known[name] <= dropped["accuracy"]["high"]:
        yield f"Without thoughts accuracy is what a shortcut reaches ({told})."


def _sureness(tests: Sequence[Test]) -> str:
    sure = sum(test.p < LEVEL for test in tests)
    return (
        f"Intervals are 95 %, each for itself; of {len(tests)} p corrected together (Holm), "
        f"{sure} {'is' if sure == 1 else 'are'} below {LEVEL}."
    )


def _points(gap: Mapping[str, float]) -> str:
    """A difference of rates in words."""
    value, _, interval = apart(gap).partition(" ")
    return f"{value} points {interval}"
