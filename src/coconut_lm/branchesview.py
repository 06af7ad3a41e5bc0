"""What `branches` looks like: what votes are worth, by number of branches, and where branches agree."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from coconut_lm.studyview import apart, heading, interval, table
from coconut_lm.tally import rate
from coconut_lm.votes import VOTES

Summary = Mapping[str, Any]


def branchings(summary: Summary) -> Iterator[RenderableType]:
    """All there is to see."""
    noise, arms = summary["noise"], summary["arms"]
    part = "on that thought alone" if noise["schedule"] == "none" else "from there on"
    schedule = "" if noise["schedule"] in ("none", "constant") else f", schedule {noise['schedule']}"
    layer = "" if noise["layer"] == -1 else f", thoughts of layer {noise['layer']}"
    told = f"{summary['branches']} branches from thought {noise['step']} on, {noise['type']} noise {part}"
    drawn = f"temperature {summary['temperature']:g}, top-p {summary['top_p']:g}, seed {summary['seed']}"
    yield heading(summary, f"{told}{schedule}{layer}; {drawn}")
    yield Group(_accuracies(summary), "")
    yield Group(_other_votes(arms, summary["vote"]), "")
    yield Group(_by_number(arms), "")
    yield Group(_selections(arms, summary["vote"]), "")
    yield _differences(arms)


def _accuracies(summary: Summary) -> Table:
    vote = summary["vote"]
    made = table("", "one branch [95 %]", f"{_words(vote)} [95 %]", "beside clean [95 %]", "p")
    for name, found in summary["baselines"].items():
        made.add_row(f"{name}, greedy", interval(found), style="dim")
    made.add_section()
    for arm in summary["arms"]:
        against = arm["difference"][vote]
        figures = (interval(arm["single"]), interval(arm["votes"][vote]), apart(against))
        made.add_row(arm["name"], *figures, f"{against['p']:.2g}")
    return made


def _other_votes(arms: Sequence[Summary], vote: str) -> Table:
    others = [each for each in VOTES if each != vote]
    made = table("voted otherwise", *map(_words, others), "majority beside no noise [95 %]")
    for arm in arms:
        against = arm["against_no_noise"]
        rates = (_percent(arm["votes"][each]["rate"]) for each in others)
        made.add_row(arm["name"], *rates, apart(against) if against else "")
    return made


def _by_number(arms: Sequence[Summary]) -> Table:
    """The majority of the first so many, and how likely one of so many is right."""
    numbers = list(arms[0]["by_k"])
    made = table("majority / any right, of so many branches", *numbers)
    for arm in arms:
        pairs = ((arm["by_k"][k]["rate"], arm["pass_at"][k]) for k in numbers)
        made.add_row(arm["name"], *(f"{_percent(one)} / {_percent(other)}" for one, other in pairs))
    return made


def _selections(arms: Sequence[Summary], vote: str) -> Table:
    threshold = arms[0]["abstention"]["threshold"]
    asked = "answered" if threshold is None else f"answered from {threshold:.0%} on"
    made = table(
        f"by {_words(vote)}", asked, "right of these [95 %]", "unanimous", "right of these [95 %]", "AURC"
    )
    for arm in arms:
        told = arm["abstention"]
        sure = next((each for each in arm["agreement"] if each["name"] == "unanimous"), rate(()))
        given = (_share(told["coverage"]["right"], arm), interval(told["accuracy"]))
        area = "" if arm["aurc"] is None else f"{arm['aurc']:.4f}"
        made.add_row(arm["name"], *given, _share(sure["n"], arm), interval(sure), area)
    return made


def _share(count: int, arm: Summary) -> str:
    return _percent(count / arm["abstention"]["coverage"]["n"])


def _differences(arms: Sequence[Summary]) -> Table:
    made = table("how branches differ", "answers", "texts", "no answer", "D_K", "late", "beside length")
    for arm in arms:
        told = arm["diversity"]
        shares = (_percent(each) for each in (told["answers"], told["texts"], arm["no_answer"]))
        thoughts = ("" if told[key] is None else f"{told[key]:.3f}" for key in _SPREAD)
        made.add_row(arm["name"], *shares, *thoughts)
    return made


_SPREAD = ("d_k", "d_k_late", "d_k_relative")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _words(name: str) -> str:
    return name.replace("_", " ")
