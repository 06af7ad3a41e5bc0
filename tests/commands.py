"""The data commands as a user types them, in the folder where the test stands."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from coconut_lm.cli import app


def data(*words: Any, **environment: str) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)], env={"COLUMNS": "100", **environment})


def well(*words: Any, **environment: str) -> Result:
    done = data(*words, **environment)
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    return done


def wrongly(*words: Any, **environment: str) -> str:
    """The message of a command that fails by the user's mistake and leaves no new file."""
    before = sorted(Path().rglob("*"))
    done = data(*words, **environment)
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    assert "Traceback" not in done.stderr
    assert sorted(Path().rglob("*")) == before
    return done.stderr


def text(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name
