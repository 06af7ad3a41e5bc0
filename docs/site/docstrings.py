"""Docstrings are plain text: examples in them (lines that begin with >>>) are code, and < is no tag."""

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"(?:^(?:>>>|\.\.\.) .*$\n?)+", re.MULTILINE)
_CODE_OR_TAG = re.compile(r"```.*?```|`[^`\n]*`|<", re.DOTALL)


class PlainText(Extension):
    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            fenced = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
            obj.docstring.value = _CODE_OR_TAG.sub(
                lambda found: "&lt;" if found[0] == "<" else found[0], fenced
            )
