"""What `branches` looks like: what votes are worth, by number of branches, and where branches agree."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from coconut_lm.studyview import heading, table
from coconut_lm.summary import apart, with_interval
from coconut_lm.tally import rate
from coconut_lm.votes import VOTES

Summary = Mapping[str, Any]
SPREAD = ("d_k", "d_k_late", "d_k_relative")
SHOWN = 4  # numbers of branches


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
    made = table("", "a branch", f"{_words(vote)} [95 %]", "beside clean [95 %]")
    for name, found in summary["baselines"].items():
        made.add_row(f"{name}, greedy", "", with_interval(found), style="dim")
    made.add_section()
    for arm in summary["arms"]:
        figures = (with_interval(arm["votes"][vote]), apart(arm["difference"][vote]))
        made.add_row(arm["name"], _percent(arm["mean_single"]), *figures)
    return made


def _other_votes(arms: Sequence[Summary], vote: str) -> Table:
    others = [each for each in VOTES if each != vote]
    beside = ["majority beside\nno noise [95 %]"] if any(arm["against_no_noise"] for arm in arms) else []
    made = table("voted otherwise", *(_words(each).replace(" ", "\n") for each in others), *beside)
    for arm in arms:
        rates = [_percent(arm["votes"][each]["rate"]) for each in others]
        against = arm["against_no_noise"]
        made.add_row(arm["name"], *rates, *([apart(against)] if against else []))
    return made


def _by_number(arms: Sequence[Summary]) -> Table:
    """The majority of the first so many, and how likely one of so many is right."""
    numbers = list(arms[0]["by_k"])
    numbers = numbers[:: -math.ceil(len(numbers) / SHOWN)][::-1]
    made = table("majority / any, %", *numbers)
    for arm in arms:
        pairs = ((arm["by_k"][k]["rate"], arm["pass_at"][k]) for k in numbers)
        made.add_row(arm["name"], *(f"{_points(one)} / {_points(other)}" for one, other in pairs))
    return made


def _selections(arms: Sequence[Summary], vote: str) -> Table:
    """Who answers: by the threshold, or, without one, where all branches agree."""
    threshold = arms[0]["abstention"]["threshold"]
    asked = "unanimous" if threshold is None else f"answered\nfrom {threshold:.0%}"
    made = table(f"by {_words(vote)}", asked, "right of these [95 %]", "AURC")
    for arm in arms:
        right = arm["abstention"]["accuracy"]
        if threshold is None:
            right = next((each for each in arm["agreement"] if each["name"] == "unanimous"), rate(()))
        share = right["n"] / max(1, arm["single"]["n"])
        made.add_row(arm["name"], _percent(share), with_interval(right), _figure(arm["aurc"], 4))
    return made


def _differences(arms: Sequence[Summary]) -> Table:
    names = ("unlike\nanswers", "unlike\ntexts", "no\nanswer", "D_K", "late", "beside\nlength")
    made = table("how branches differ", *names)
    for arm in arms:
        told = arm["diversity"]
        shares = (_percent(each) for each in (told["answers"], told["texts"], arm["no_answer"]))
        made.add_row(arm["name"], *shares, *(_figure(told[key], 3) for key in SPREAD))
    return made


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _points(share: float | None) -> str:
    return _percent(share).removesuffix("%")


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
