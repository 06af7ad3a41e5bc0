"""The one exception that is the user's to mend. Commands print it and exit with 2; all else is a bug."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """What was given, what was expected, and what to do about it.

    >>> raise UserError("unknown noise", given="gausian", expected="gaussian, uniform", do="use gaussian")
    """

    def __init__(self, problem: str, *, given: object = None, expected: object = None, do: str = "") -> None:
        parts = [("given", given), ("expected", expected), ("do", do or None)]
        lines = [f"  {name + ':':10}{value}" for name, value in parts if value is not None]
        super().__init__("\n".join([problem, *lines]))


def require_known(what: str, given: str, known: Iterable[str]) -> None:
    """Refuses a name that is none of these, with the nearest of them."""
    names = list(known)
    if given not in names:
        near = get_close_matches(given, names, n=1, cutoff=0.5)
        do = f"perhaps you mean {near[0]}" if near else ""
        raise UserError(f"unknown {what}", given=given, expected=", ".join(names), do=do)
