"""Jobs side by side: their order, what they tell, and what becomes of the others when one fails."""

import os
from typing import Any

import pytest
from jobs import work

from coconut_lm.errors import UserError
from coconut_lm.sidebyside import Jobs


def carried_out(**waits_for: str | None) -> list[tuple[str, str, Any]]:
    told: list[tuple[str, str, Any]] = []
    Jobs(work, waits_for, lambda *news: told.append(news))()
    return told


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_waits_for_another_and_everything_is_heard() -> None:
    told = carried_out(first=None, second="first")
    for name in ("first", "second"):
        assert [figures for who, what, figures in told if (who, what) == (name, "number")] == list(range(200))
    names = [who for who, _, _ in told]
    assert names.index("second") > len(names) - 1 - names[::-1].index("first"), "not before the first ended"
    assert {figures for _, what, figures in told if what == "threads"} == {1}
    assert len({figures for _, what, figures in told if what == "process"}) == 2


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("mistaken", UserError, "no such thing\n  given:    mistaken"),
        ("killed", RuntimeError, "killed ended with exit code -9"),
        ("stopped", KeyboardInterrupt, "^$"),
    ],
)
def test_a_job_that_fails_ends_the_others(name: str, error: type[BaseException], words: str) -> None:
    told: list[tuple[str, str, Any]] = []
    with pytest.raises(error, match=words):
        Jobs(work, {"endless": None, name: None}, lambda *news: told.append(news))()
    processes = [figures for _, what, figures in told if what == "process"]
    assert processes and not any(map(alive, processes))


def test_a_bug_leaves_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="broken ended with exit code 1"):
        carried_out(broken=None)
    assert "ZeroDivisionError: broken" in capfd.readouterr().err
