"""Tables of studies: what stands where, whose it is, and what is left out."""

import fakestudies
import pytest
from fakestudies import history as run

from coconut_lm import studytables
from coconut_lm.history import History
from coconut_lm.studytables import Named, named
from coconut_lm.summary import NONE, Table


def only(figures: dict[str, object]) -> list[Named]:
    return named([run(figures)], str(figures["kind"]))


def cell(table: Table, row: int, head: str) -> str:
    return table.rows[row][list(table.head).index(head)]


def test_noise_beside_clean() -> None:
    figures = fakestudies.robustness(["gaussian", "snr"])
    table = studytables.robustness(only(figures))
    assert table.head[0] == "noise" and len(table.rows) == 2 + 8 + 8
    assert (
        table.rows[0][:3] == ["clean", NONE, "96.3 % [93.6, 97.9]"] and table.rows[1][0] == "without thoughts"
    )
    assert cell(table, 10, "noise") == "snr" and cell(table, 10, "scale") == "20"
    assert cell(table, 9, "p") == "0.0002" and cell(table, 9, "failed") == "0"
    worst = figures["curves"][0]["points"][-1]["difference"]
    said = " ".join(f"{100 * worst[key]:+.1f}" for key in ("difference", "low", "high"))
    assert cell(table, 9, "difference to clean [95 %]").translate({91: None, 93: None, 44: None}) == said


def test_fits_the_best_first() -> None:
    table = studytables.fits(only(fakestudies.robustness(["gaussian"])))
    assert [row[-1] for row in table.rows] == ["0.991", "0.840", "0.610"]
    assert cell(table, 1, "parameters") == "a = 0.95, b = 10" and cell(table, 1, "fit") == "exponential"
    assert cell(table, 0, "first scale under 50 %") == "0.2"


def test_branches_by_vote_and_by_agreement() -> None:
    them = only(fakestudies.branches())
    votes = studytables.votes(them)
    assert [row[0] for row in votes.rows][:3] == ["clean, greedy", "without thoughts, greedy", "no noise"]
    assert (
        cell(votes, 2, "majority – no noise [95 %]") == NONE != cell(votes, 3, "majority – no noise [95 %]")
    )
    assert cell(votes, 2, "majority") != cell(votes, 2, "probability mass")
    chosen = studytables.selection(them)
    assert cell(chosen, 0, "asks for") == "70.0 %" and cell(chosen, 0, "pass@k").endswith("(k = 9)")
    assert cell(chosen, 3, "D_K") == NONE and cell(chosen, 2, "D_K") == "6.05"
    levels = studytables.agreement(them)
    assert len(levels.rows) == 15 and levels.rows[0][1:4] == ["unanimous", "9 of 9", "210"]


def test_the_battery_by_groups_and_its_verdict() -> None:
    figures = fakestudies.battery()
    figures["rows"].reverse()
    them = only(figures)
    table = studytables.battery(them)
    assert [row[0] for row in table.rows[:3]] == ["as they are", "dropped", "another number"]
    assert [row[1] for row in table.rows if row[-1] != NONE][0] == "halfway to another example's"
    assert cell(table, 10, "follows the thoughts (by chance)") == "40.0 % (10.0 %)"
    ((name, used, reasons),) = studytables.verdicts(them)
    assert (name, used) == ("", "The latent is used.") and len(reasons) == 2
    assert studytables.swaps(them).rows == [["300", "94.0 % [90.7, 96.2]", "91.0 % [87.2, 93.7]"]]
    assert not studytables.swaps(only(fakestudies.battery(swaps=None)))
    assert studytables.verdicts(only(fakestudies.battery(verdict={"used": "perhaps"}))) == []


def test_what_was_looked_at_in_a_sentence() -> None:
    (it,) = only(fakestudies.robustness(["snr"], where=2))
    said = studytables.about(it)
    assert said.startswith(
        "checkpoint_4 on test.json, 300 examples, 3 thoughts, noise on thought 2, schedule"
    )
    assert said.endswith("seed 0, 2 of 19500 trials failed.")
    (it,) = only({"kind": "battery"})
    assert studytables.about(it) == "? on ?."


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ([{}], [""]),
        ([{"where": "all"}, {"where": "first"}], ["where all", "where first"]),
        ([{"data": "x/a.json"}, {"data": "y/b.json"}], ["data a.json", "data b.json"]),
        (
            [{"noise": {"type": "snr", "step": 1}}, {"noise": {"type": "snr", "step": 2}}],
            ["noise snr 1", "noise snr 2"],
        ),
        ([{"data": "x/a.json"}, {"data": "y/a.json"}], ["test-0", "test-1"]),
    ],
)
def test_studies_of_a_run_are_named_by_what_differs(asked: list[dict[str, object]], names: list[str]) -> None:
    found = named([run(*({"kind": "branches", **each} for each in asked))], "branches")
    assert [it.name for it in found] == names


def test_studies_of_runs_have_the_runs_names_and_colours() -> None:
    bare, one = run(name="bare"), run({"kind": "battery"}, name="one")
    two = run({"kind": "battery", "seed": 0}, {"kind": "battery", "seed": 1}, name="two")

    def told(*runs: History) -> list[tuple[str, int]]:
        return [(it.name, it.number) for it in named(runs, "battery")]

    assert told(bare, one) == [("one", 1)]
    assert told(one, two) == [("one", 0), ("two: seed 0", 1), ("two: seed 1", 2)]


def test_a_column_says_whose_a_row_is_where_there_are_several() -> None:
    runs = [run(fakestudies.battery(), name=name) for name in "ab"]
    assert studytables.battery(named(runs, "battery")).head[0] == "run"
    assert studytables.battery(named(runs[:1], "battery")).head[0] == "thoughts are"
