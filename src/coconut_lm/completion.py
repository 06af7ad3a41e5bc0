"""What a shell offers after `coconut-lm run CONFIG`: the keys of a run, and values that they may have.

Where nothing is offered, the shell offers files.
"""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Offers = list[tuple[str, str]]  # a word, and what is said of it


def overrides(ctx: typer.Context, incomplete: str) -> Offers:
    """Keys; or key=value, of which bash asks for what follows the = alone."""
    fields = dict(_fields())
    before = [str(word) for word in ctx.params.get("overrides") or ()]
    parted = before[-1:] == ["="]  # `method = co`, as bash parts it; `method =` comes as `method` alone
    key = before[-2] if parted and len(before) > 1 else before[-1] if before and not parted else ""
    if key in fields and (parted or before[-2:-1] != ["="]):
        return [] if _is_place(key) else list(_values(fields[key], incomplete))
    key, equals, start = incomplete.partition("=")
    if equals:
        offers = _places(start) if _is_place(key) else _values(fields[key], start) if key in fields else ()
        return [(f"{key}={value}", told) for value, told in offers]
    given = {word.partition("=")[0] for word in before}
    return _keys({key: fields[key] for key in fields if key.startswith(incomplete) and key not in given})


def _keys(fields: "dict[str, FieldInfo]") -> Offers:
    """One key alone comes with its values: behind a single offer a shell would put a blank."""
    offers = [(f"{key}=", field.description or "") for key, field in fields.items()]
    if len(fields) == 1:
        ((key, field),) = fields.items()
        offers += [(f"{key}={value}", told) for value, told in _values(field, "")]
    return offers


def _fields() -> "Iterator[tuple[str, FieldInfo]]":
    """Every key of a run; those of a section with its name before them."""
    from coconut_lm.schema import Schema, Section, kinds_of

    for name, field in Schema.model_fields.items():
        kinds = kinds_of(field.annotation)
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
        if not sections:
            yield name, field
        for section in sections:
            for inner, below in section.model_fields.items():
                yield f"{name}.{inner}", below


def _values(field: "FieldInfo", start: str) -> Iterator[tuple[str, str]]:
    """The choices there are, and the default."""
    default = None if field.is_required() else _written(field.default)
    choices = dict.fromkeys([*_choices(field.annotation), *([default] if default else [])])
    for value in choices:
        if value.startswith(start):
            yield value, "default" if value == default else ""


def _choices(annotation: Any) -> Iterator[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from map(_written, args)
    elif origin in (Union, UnionType, tuple):
        for arm in args:
            yield from _choices(arm)
    elif origin is Annotated:
        yield from _choices(args[0])
    elif annotation is bool:
        yield from ("true", "false")
    elif annotation is NoneType:
        yield "null"


def _written(value: Any) -> str:
    """As YAML has it; an empty list is no word to offer."""
    plain = {None: "null", True: "true", False: "false", (): ""}
    return plain[value] if isinstance(value, bool | NoneType | tuple) else str(value)


def _is_place(key: str) -> bool:
    return key.endswith("_path") or key == "model_id"


def _places(start: str) -> Iterator[tuple[str, str]]:
    """Files and folders, for shells that take key=path for one word."""
    folder, slash, name = start.rpartition("/")
    inside = Path(f"{folder}{slash}" or ".")
    for path in sorted(inside.iterdir()) if inside.is_dir() else ():
        if path.name.startswith(name) and not path.name.startswith("."):
            yield f"{folder}{slash}{path.name}{'/' * path.is_dir()}", ""
