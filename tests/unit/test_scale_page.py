"""The tables of docs/scale.md are those that benchmarks/scale.py computes."""

import re

import pytest
import scale

PAGE = scale.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return scale.tables()


def test_the_page_has_every_table_as_it_is_computed(tables: dict[str, str]) -> None:
    assert set(re.findall(r"<!-- computed: (.+) -->", PAGE)) == set(tables)
    assert scale.written(PAGE, tables) == PAGE, "python benchmarks/scale.py --write"


def test_old_tables_give_way(tables: dict[str, str]) -> None:
    old = "before\n<!-- computed: sent -->\n| old |\n| 1 |\n\nafter\n"
    assert scale.written(old, tables) == f"before\n<!-- computed: sent -->\n{tables['sent']}\n\nafter\n"


def test_a_thought_costs_what_the_page_says_of_it() -> None:
    """`step` hides all but the computing; `full` sends for each pass; more GPUs never send less."""
    job = scale.job("Llama-3.1-8B", rows=16)

    def more(name: str, devices: int) -> float:
        return scale.seconds(job, 24, name, devices) - scale.seconds(job, 6, name, devices)

    computing = [sum(map(sum, scale.computing(job, job.load(n)))) for n in (6, 24)]
    for devices in scale.DEVICES:
        assert more("step", devices) == pytest.approx(computing[1] - computing[0])
        assert more("full", devices) > 4 * more("step", devices)
    assert more("full", 8) < more("full", 64) < more("full", 512)
    assert scale.held(job, 6, "full", 8) < scale.held(job, 6, "step", 8) < 80


def test_a_computed_pass_is_never_faster_than_its_weights_are_read() -> None:
    job = scale.job("Llama-3.1-8B", rows=1)
    passes = scale.computing(job, job.load(6))
    assert len(passes) == 7 and len(set(passes[1:-1])) == 1
    reading = 2 * (job.sizes.parameters - job.sizes.root) / 3.35e12
    assert passes[1][0] == pytest.approx(reading) and 2.5 < passes[1][1] / reading < 3
