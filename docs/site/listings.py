"""Two pages made with the site: every key of a run from its schema, every command from its help."""

import html
import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic.fields import FieldInfo
from typer.main import get_command

from coconut_lm import yamlfile
from coconut_lm.cli import app
from coconut_lm.schema import Icot, Lora, Schema, Section, allowed

KEYS = """# Configuration keys

A run is a YAML file of these keys. One that is missing has its default. One that is unknown, stands there
twice or contradicts another is refused before a model loads; `coconut-lm check` looks without training.
On the command line they are `key=value` and `section.key=value`: `coconut-lm run x.yaml lr=1e-5 lora.r=16`.
"""

COMMANDS = """# Commands

Every command has `--help`. A mistake in what is given is one message and exit code 2; an interruption is 130.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {"keys.md": "\n".join([KEYS, *keys()]), "commands.md": "\n".join([COMMANDS, *commands()])}
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    return files


def keys() -> Iterator[str]:
    """The groups of the schema, by its own comments, and its sections."""
    for line in inspect.getsource(Schema).splitlines():
        if title := re.fullmatch(r"    # (.+)", line):
            yield f"## {title[1].capitalize()}\n"
        elif (name := re.match(r"    (\w+):", line)) and name[1] in Schema.model_fields:
            yield _key(name[1], Schema.model_fields[name[1]])
    sections: dict[str, type[Section]] = {"icot": Icot, "lora": Lora}
    for section, part in sections.items():
        yield f"## Section {section}\n"
        for name_in, field in part.model_fields.items():
            yield _key(f"{section}.{name_in}", field)


def _key(key: str, field: FieldInfo) -> str:
    default = "no default" if field.is_required() else f"default `{_default(field.default)}`"
    values = html.escape(allowed(field.annotation, field.metadata))
    return f"### `{key}` {{ #{key} }}\n\n{_linked(key, field)}\n\n{default} · {_plain(values)}\n{{ .key }}\n"


def _default(value: Any) -> str:
    if isinstance(value, Section):
        return "{}"
    return yamlfile.write({"": value}).partition(": ")[2].strip()


def _linked(key: str, field: FieldInfo) -> str:
    """What the key does; the other keys in it lead to theirs."""

    def link(word: re.Match[str]) -> str:
        known = "_" in word[0] and word[0] in Schema.model_fields and word[0] != key
        return f"[`{word[0]}`](#{word[0]})" if known else _plain(word[0])

    return re.sub(r"\w+|[*]", link, html.escape(field.description or "", quote=False))


def _plain(text: str) -> str:
    return re.sub(r"([_*])", r"\\\1", text)


def commands() -> Iterator[str]:
    yield from _commands(get_command(app), "coconut-lm")


def _commands(command: Any, name: str) -> Iterator[str]:
    """A command and those below it; what takes no options of its own is its parts alone."""
    context = typer.Context(command, info_name=name)
    parts = getattr(command, "commands", {})
    if not parts:
        example = (command.epilog or "").removeprefix("Example: ")
        usage = command.get_usage(context).removeprefix("Usage: ")
        yield f"## {name}\n\n{_plain(command.help)}\n\n```\n{usage}\n```\n"
        yield "| | |\n|---|---|\n" + "\n".join(_options(command, context)) + "\n"
        if example:
            yield f"For example:\n\n```\n{example}\n```\n"
    for part, below in sorted(parts.items()):
        yield from _commands(below, f"{name} {part}")


def _options(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.params:
        if record := parameter.get_help_record(context):
            spelled, meaning = record
            names = ", ".join(f"`{name}`" for name in spelled.split(", "))
            yield f"| {names} | {_plain(html.escape(meaning, quote=False)).replace('|', '&#124;')} |"
