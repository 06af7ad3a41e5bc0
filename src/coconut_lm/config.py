"""The configuration of a run: typed, frozen and closed. Everything wrong with it is said at once.

>>> config = load("configs/debug.yaml", ["lr=1e-5", "lora.r=16"])
>>> config = Config(method="coconut", model_id="openai-community/gpt2", c_thought=2)
"""

import difflib
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from coconut_lm import yamlfile
from coconut_lm.errors import UserError
from coconut_lm.files import atomic_write
from coconut_lm.rules import absent, contradictions, implied
from coconut_lm.schema import Schema, Section, allowed, kinds_of

METHOD_FLAGS = ("coconut", "cot", "no_thoughts", "no_cot")


class Config(Schema):
    """Every key of a run, with its value or its default; all mistakes are refused at once.

    It cannot be changed: `config.model_copy(update={"lr": 1e-5})` is another one, whose values nobody checks.
    """

    if not TYPE_CHECKING:  # type checkers shall see the keys

        def __init__(self, **given: Any) -> None:
            config, mistakes = _examine(given)
            _refuse(mistakes, "the configuration")
            super().__init__(**dict(config))

    @property
    def run_dir(self) -> Path:
        """The run's folder, save_path/name."""
        return Path(self.save_path) / self.name


def load(
    source: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    check_files: bool = True,
) -> Config:
    """A YAML file or a mapping, with `key=value` and `section.key=value` on top."""
    where = "the configuration" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else yamlfile.read(source)
    if not isinstance(content, Mapping | None):
        raise UserError(f"{where} holds no keys", given=type(content).__name__, expected="key: value lines")
    given, mistakes = _override(content or {}, overrides)
    config, more = _examine(given, check_files=check_files)
    _refuse(mistakes + more, where)
    return Config(**dict(config))


def dump(config: Config, path: str | os.PathLike[str]) -> None:
    """Writes YAML that loads to an equal configuration."""
    with atomic_write(path) as file:
        file.write(yamlfile.write(config.model_dump()))


def _refuse(mistakes: list[str], where: str) -> None:
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UserError("\n  ".join([f"{where} has {count}", *mistakes]))


def _override(content: Mapping[Any, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    given = {str(key): value for key, value in content.items()}
    mistakes = []
    for text in overrides:
        path, equals, written = text.partition("=")
        section, dot, key = path.strip().partition(".")
        held = None if given.get(section) == "None" else given.get(section)
        if not equals:
            mistakes.append(f"{text}: no value; write {text}=VALUE")
        elif dot and not isinstance(held, Mapping | None):
            mistakes.append(f"{path}: {section} is {_shown(held)}, which has no keys")
        elif dot:
            given[section] = {**(held or {}), key: _meant(written)}
        else:
            replaced = METHOD_FLAGS if section == "method" else ()
            given = {k: v for k, v in given.items() if k not in replaced} | {section: _meant(written)}
    return given, mistakes


def _meant(written: str) -> Any:
    """The value of an override; a number stays as written, for a key that takes text."""
    value = yamlfile.scalar(written)
    return value if isinstance(value, str | list | dict | None) else written


def _examine(given: Mapping[str, Any], *, check_files: bool = False) -> tuple[Schema, list[str]]:
    """The configuration as far as it is valid, with what follows from it, and every mistake."""
    values, mistakes = _read_method_flags(given)
    wrong = {"method"} if mistakes else set()
    try:
        config = Schema(**values)
    except ValidationError as error:
        told = {_key_of(each): _told(each, values) for each in reversed(error.errors())}
        mistakes += [line for key, line in reversed(told.items()) if key not in wrong]
        wrong |= {str(each["loc"][0]) for each in error.errors()}
        config = Schema(**{"method": "cot"} | {key: v for key, v in values.items() if key not in wrong})
    config = config.model_copy(update={k: v for k, v in implied(config).items() if k not in wrong})
    findings = [*contradictions(config), *(absent(config) if check_files else ())]
    return config, mistakes + [_found(config, *each) for each in findings if not wrong & set(each[0])]


def _read_method_flags(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The four booleans `coconut cot no_thoughts no_cot` become `method`."""
    values = {key: value for key, value in given.items() if key not in METHOD_FLAGS}
    flags = {key: given[key] for key in METHOD_FLAGS if key in given}
    flags = {key: yamlfile.scalar(v) if isinstance(v, str) else v for key, v in flags.items()}
    odd = [key for key, value in flags.items() if not isinstance(value, bool)]
    on = [key for key, value in flags.items() if value is True]
    method = values.get("method")
    mistakes = [f"{key}: given {_shown(flags[key])}; allowed: true or false" for key in odd]
    if len(on) > 1:
        mistakes.append(f"{', '.join(on)}: more than one is true; exactly one may be")
    elif on and method not in (None, on[0]):
        mistakes.append(f"method, {on[0]}: given {_shown(method)}, True; they contradict, keep one")
    elif flags.get(str(method)) is False:
        mistakes.append(f"method, {method}: given {_shown(method)}, False; they contradict, keep one")
    elif on:
        values["method"] = on[0]
    elif flags and method is None and not odd:
        mistakes.append(f"{', '.join(flags)}: none is true; one of {', '.join(METHOD_FLAGS)} must be")
    return values, mistakes


def _section(key: Any) -> type[Section]:
    """The section that a top-level key opens; the top itself for a plain key."""
    field = Schema.model_fields.get(str(key))
    kinds = kinds_of(field.annotation) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), Schema)


def _key_of(error: ErrorDetails) -> str:
    return ".".join(map(str, _place_of(error)))


def _place_of(error: ErrorDetails) -> tuple[int | str, ...]:
    """`lr`, or `lora` and `r`; what pydantic adds to it names an item or an arm of a union."""
    return error["loc"][: 1 if _section(error["loc"][0]) is Schema else 2]


def _told(error: ErrorDetails, values: Mapping[str, Any]) -> str:
    top, *inner = _place_of(error)
    key, name = _key_of(error), str(inner[0] if inner else top)
    section = _section(top) if inner else Schema
    if name not in section.model_fields:
        near = "; write it as a section" if key in _all_keys() else _nearest(key, _all_keys())
        return f"{key}: unknown key, given {_shown(error['input'])}{near}"
    field = section.model_fields[name]
    expected = f"allowed: {allowed(field.annotation, field.metadata)}"
    if error["type"] == "missing":
        return f"{key}: missing; {expected}"
    value = values[str(top)][name] if inner else values[name]
    if str in kinds_of(field.annotation) and isinstance(value, int | float):
        return f"{key}: given {value}; {expected}; put it in quotes"
    words = expected.removeprefix("allowed: ").replace(" or ", ", ").split(", ")
    return f"{key}: given {_shown(value)}; {expected}{_nearest(value, words)}"


def _found(config: Schema, keys: tuple[str, ...], problem: str) -> str:
    given = ", ".join(_shown(getattr(config, key)) for key in keys)
    return f"{', '.join(keys)}: given {given}; {problem}"


def _all_keys() -> list[str]:
    nested = [f"{top}.{key}" for top in Schema.model_fields for key in _inner(top)]
    return [*Schema.model_fields, *METHOD_FLAGS, *nested]


def _inner(top: str) -> Iterable[str]:
    section = _section(top)
    return () if section is Schema else section.model_fields


def _nearest(given: Any, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(given).lower(), names, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...")
