"""The command line as such: versions, help, exit codes, start-up."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from coconut_lm import __version__, cli
from coconut_lm.commands import data as data_commands
from coconut_lm.data import download, gsm8k, math, prosqa, shapes, survey
from coconut_lm.demoview import Demo
from coconut_lm.errors import UserError
from coconut_lm.terminal import downloads, track

run = CliRunner().invoke


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(cli.app)))


def test_version() -> None:
    done = run(cli.app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"coconut-lm {__version__}\n")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    done = run(cli.app, [*path, "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0 and done.stderr == ""
    assert f"Example: coconut-lm {' '.join(path)} " in done.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_example_in_help_names_real_options(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    words = shlex.split(command.epilog)[2 + len(path) :]
    command.make_context("x", [word for word in words if word != path[-1]])


def choices(command: Callable[..., None], option: str) -> set[str]:
    hint = get_type_hints(command)[option]
    literal = next(arm for arm in (hint, *get_args(hint)) if get_origin(arm) is Literal)
    return set(get_args(literal))


def test_choices_are_those_of_the_rooms() -> None:
    assert choices(data_commands.make_prosqa, "style") == set(prosqa.STYLES)
    assert choices(data_commands.make_prosqa, "preset") | choices(data_commands.make_prosqa, "shape") == set(
        shapes.SHAPES
    )
    assert choices(data_commands.convert_gsm8k, "steps") == set(gsm8k.STEPS)
    assert choices(data_commands.convert_gsm8k, "empty_steps") == set(gsm8k.EMPTY_STEPS)
    assert choices(data_commands.convert_math, "preset") == set(math.PRESETS)
    assert choices(data_commands.convert_math, "steps") == set(math.STEPS)
    assert choices(data_commands.convert_math, "box") == set(math.BOXES)
    assert choices(data_commands.convert_math, "box_in_steps") == set(math.BOX_IN_STEPS)
    assert choices(data_commands.convert_math, "split") == set(math.SPLITS)
    assert choices(data_commands.get, "name") == {*download.DATA_SETS, *download.NOT_PUBLIC}
    assert choices(data_commands.stats, "task") == {*survey.ROOMS, survey.PLAIN}


@pytest.mark.parametrize(
    "arguments", [["dat"], ["data", "mak"], ["--versio"], ["quickstart", "--minutes", "x"]]
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    done = run(cli.app, arguments)
    assert done.exit_code == 2 and done.stdout == "" and "Error" in done.stderr


def with_room(monkeypatch: pytest.MonkeyPatch, result: BaseException | None) -> list[dict[str, Any]]:
    """Puts a stand-in where `quickstart` looks for its room."""
    calls: list[dict[str, Any]] = []

    class Room:
        @staticmethod
        def run(**given: Any) -> None:
            calls.append(given)
            if result is not None:
                raise result

    monkeypatch.setattr("coconut_lm.quickstart", Room, raising=False)
    return calls


def test_quickstart_passes_on_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = with_room(monkeypatch, None)
    assert run(cli.app, ["quickstart", "--out", "there", "--minutes", "0.5", "--seed", "3"]).exit_code == 0
    (call,) = calls
    assert (str(call["out"]), call["minutes"], call["seed"]) == ("there", 0.5, 3)
    assert isinstance(call["onlooker"], Demo)


def test_a_mistake_is_told_on_stderr_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with_room(monkeypatch, UserError("no [bold]such[/bold] thing", given=[1, "[red]"], do="mend it"))
    done = run(cli.app, ["quickstart"])
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr == "error: no [bold]such[/bold] thing\n  given:    [1, '[red]']\n  do:       mend it\n"


def test_an_interruption_is_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    with_room(monkeypatch, KeyboardInterrupt())
    done = run(cli.app, ["quickstart"])
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with_room(monkeypatch, ZeroDivisionError("a bug"))
    done = run(cli.app, ["quickstart"])
    assert done.exit_code == 1 and isinstance(done.exception, ZeroDivisionError)


def test_python_m_does_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coconut_lm", "data", "stats", "none.json"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: none.json does not exist\n") and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_is_quick(words: list[str]) -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "coconut_lm", *words], capture_output=True, check=True)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(10)) < 0.5


@pytest.mark.parametrize("then", ["", "cli.main()"], ids=["import", "help"])
def test_the_command_line_loads_nothing_heavy(then: str) -> None:
    heavy = {"numpy", "torch", "transformers", "datasets", "pydantic", "scipy", "sympy", "yaml", "asyncio"}
    heavy |= set() if then else {"rich"}  # which help is drawn with
    code = "import atexit, sys; sys.argv[1:] = ['--help']; from coconut_lm import cli\n"
    code += f"atexit.register(lambda: print(*{heavy} & set(sys.modules), file=sys.stderr)); {then}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "\n" and ("quickstart" in done.stdout) == bool(then)


def test_progress_is_silent_where_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "counting", 3)) == [0, 1, 2]
    with downloads() as update:
        update("file", 1, None)
        update("file", 2, 2)
    assert capfd.readouterr() == ("", "")
