"""Jobs side by side: their order, what they tell, and what becomes of the others when one fails."""

import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from jobs import work

from coconut_lm import sidebyside
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


def test_ctrl_c_is_for_whoever_watches() -> None:
    """A terminal sends it to jobs too, where it would end one in the middle of its imports."""
    before = signal.getsignal(signal.SIGINT)
    told = carried_out(interrupted=None)
    assert [figures for _, what, figures in told if what == "number"] == list(range(200))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_job_does_not_outlive_whoever_watches() -> None:
    code = "from jobs import work; from coconut_lm.sidebyside import Jobs\n"
    code += (
        "if __name__ == '__main__': Jobs(work, {'endless': None}, lambda *news: print(news[1], flush=True))()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as watching:
        assert watching.stdout is not None
        assert [watching.stdout.readline() for _ in range(2)] == ["threads\n", "process\n"]
        watching.kill()
        watching.communicate(timeout=60)  # the pipe ends with the last process that holds it


class Piped:
    """A channel of another kind than a Connection, as Windows has."""

    def __init__(self, inner: Connection) -> None:
        self.recv, self.close, self.fileno = inner.recv, inner.close, inner.fileno


def test_channels_may_be_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        Process = staticmethod(get_context("spawn").Process)

        def Pipe(self, duplex: bool) -> tuple[Any, Any]:
            here, there = get_context("spawn").Pipe(duplex)
            return Piped(here), there

    monkeypatch.setattr(sidebyside, "get_context", lambda _: Context())
    assert len(carried_out(first=None)) == 202
