"""The one exception that is the user's to mend. Commands print it and exit with 2; all else is a bug."""


class UserError(ValueError):
    """What was given, what was expected, and what to do about it.

    >>> raise UserError("unknown noise", given="gausian", expected="gaussian, uniform", do="use gaussian")
    """

    def __init__(self, problem: str, *, given: object = None, expected: object = None, do: str = "") -> None:
        parts = [("given", given), ("expected", expected), ("do", do or None)]
        lines = [f"  {name + ':':10}{value}" for name, value in parts if value is not None]
        super().__init__("\n".join([problem, *lines]))
