"""YAML as people write configurations: 1e-4 is a number, a date is text, a key given twice is a mistake."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from coconut_lm.errors import UserError

_TAG = "tag:yaml.org,2002:"
# PyYAML wants a point and a signed exponent; everybody else reads these as numbers too.
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:  # what PyYAML lets out at !!float "fast"
            problem = f"{node.value!r} is not a {node.tag.removeprefix(_TAG)}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Without the escapes of double quotes PyYAML loses line breaks such as U+0085.
        return self.represent_scalar(f"{_TAG}str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(f"{_TAG}float", _NUMBER, list("-+.0123456789"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != f"{_TAG}timestamp"]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}
for _sign in ("merge", "value"):  # `<<` and `=` as plain values are text
    _Loader.add_constructor(f"{_TAG}{_sign}", lambda _, node: str(node.value))


def parse(text: str, where: str = "the text") -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where} is not readable YAML", given=place + problem) from error


def scalar(text: str) -> Any:
    """What the text would mean as a value in a file; itself where it means nothing."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def read(path: str | os.PathLike[str]) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text", given=f"byte {error.start}: {error.reason}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read", given=error.strerror, expected="a YAML file") from error
    return parse(text, str(path))


def write(values: dict[str, Any]) -> str:
    """Text that `parse` reads as equal values, in the order given."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
