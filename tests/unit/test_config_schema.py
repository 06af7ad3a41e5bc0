"""What holds for every key, the ones to come included."""

import tempfile
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from coconut_lm.config import METHOD_FLAGS, Config, dump, load
from coconut_lm.errors import UserError
from coconut_lm.rules import contradictions, implied
from coconut_lm.schema import Icot, Lora, Schema, allowed, kinds_of

SMALL: dict[str, Any] = {"method": "cot", "model_id": "openai-community/gpt2"}
SECTIONS: dict[str, type[BaseModel]] = {"lora": Lora, "icot": Icot}
KEYS = [
    *Schema.model_fields,
    *(f"{top}.{key}" for top, part in SECTIONS.items() for key in part.model_fields),
]


def kinds(key: str) -> tuple[Any, ...]:
    top, _, name = key.partition(".")
    return kinds_of((SECTIONS[top] if name else Schema).model_fields[name or top].annotation)


def with_value(key: str, value: Any) -> dict[str, Any]:
    top, _, name = key.partition(".")
    return SMALL | {top: {name: value} if name else value}


def values_of(annotation: Any, marks: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Valid values of an annotation."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values_of(args[0], args[1:])
    if origin in (Union, UnionType):
        return st.one_of([values_of(arm) for arm in args])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values_of(args[0]), min_size=1, max_size=4)
    if annotation is bool:
        return st.booleans()
    bounded = any(hasattr(mark, "le") for mark in marks)
    if annotation is int:
        return st.integers(1, 1 if bounded else 10**9)
    if annotation is float:
        return st.floats(1e-30, 1.0 if bounded else 1e30)
    if annotation is str:
        return st.text(min_size=1)
    return st.none() if annotation is NoneType else st.fixed_dictionaries({}, optional=fields_of(annotation))


def fields_of(section: type[BaseModel]) -> dict[str, st.SearchStrategy[Any]]:
    fields = section.model_fields.items()
    return {key: values_of(field.annotation, tuple(field.metadata)) for key, field in fields}


def without_contradictions(values: dict[str, Any]) -> dict[str, Any]:
    config = Schema(**(SMALL | values))
    for keys, _ in contradictions(config.model_copy(update=implied(config))):
        return without_contradictions({key: v for key, v in values.items() if key not in keys})
    return SMALL | values


CONFIGS = st.fixed_dictionaries({}, optional=fields_of(Schema)).map(without_contradictions)


@given(CONFIGS)
@settings(deadline=None, max_examples=60)
def test_a_dumped_configuration_loads_to_an_equal_one(values: dict[str, Any]) -> None:
    config = Config(**values)
    with tempfile.TemporaryDirectory() as folder:
        dump(config, Path(folder) / "config.yaml")
        assert load(Path(folder) / "config.yaml", check_files=False) == config
    assert load(config.model_dump(), check_files=False) == config


@given(CONFIGS)
@settings(deadline=None, max_examples=30)
def test_a_value_in_quotes_means_the_same(values: dict[str, Any]) -> None:
    plain = (bool, int, float)
    quoted = {k: str(v) if isinstance(v, plain) and str not in kinds(k) else v for k, v in values.items()}
    assert Config(**quoted) == Config(**values)


@given(CONFIGS)
@settings(deadline=None, max_examples=30)
def test_an_override_is_the_same_as_a_line_in_the_file(values: dict[str, Any]) -> None:
    moved = {k: v for k, v in values.items() if isinstance(v, bool | int | float) and k != "method"}
    rest = {key: value for key, value in values.items() if key not in moved}
    overrides = [f"{key}={value}" for key, value in moved.items()]
    assert load(rest, overrides, check_files=False) == Config(**values)


WRONG = [{"no": "such"}, [["nested"]], 2.5, "certainly not", True, b"bytes"]
RIGHT = {(bool, "reset_optimizer")}  # True means epoch


@pytest.mark.parametrize(
    "key, wrong",
    [(k, w) for k in KEYS for w in WRONG if type(w) not in kinds(k) and (type(w), k) not in RIGHT],
)
def test_a_wrong_type_is_told(key: str, wrong: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(with_value(key, wrong), check_files=False)
    in_section = key in SECTIONS and isinstance(wrong, dict)
    said = f"{key}.no: unknown key, given 'such'" if in_section else f"{key}: given "
    assert f"has 1 mistake\n  {said}" in str(caught.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(KEYS)
ODD_KEYS = st.sampled_from([*KEYS, *METHOD_FLAGS, "r", "icot", "lora"]) | st.text() | st.integers()
ANYTHING = st.recursive(SCALARS, lambda of: st.lists(of) | st.dictionaries(ODD_KEYS, of), max_leaves=5)
LINES = st.builds("{}={}".format, st.sampled_from(KEYS) | st.text(), st.text() | SCALARS)


@given(st.dictionaries(ODD_KEYS, ANYTHING), st.lists(LINES, max_size=3))
@settings(deadline=None, max_examples=100)
def test_whatever_is_given_it_loads_or_says_why(values: dict[Any, Any], overrides: list[str]) -> None:
    try:
        config = load(SMALL | values, overrides)
    except UserError as error:
        assert "mistake" in str(error)
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize("key", KEYS)
def test_null_is_for_keys_that_allow_it(key: str) -> None:
    spelled = {"method", "model_id", "report_to", "latent_variant"}
    if key in spelled:
        return
    if NoneType in kinds(key):
        assert load(with_value(key, None), check_files=False)
    else:
        with pytest.raises(UserError, match=f"{key}: given None; allowed: "):
            load(with_value(key, None), check_files=False)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1, -0.5])
@pytest.mark.parametrize("key", [key for key in KEYS if {int, float} & set(kinds(key))])
def test_numbers_have_bounds(key: str, bad: float) -> None:
    with pytest.raises(UserError, match=f"{key}: given {bad}; allowed: a"):
        load(with_value(key, bad), check_files=False)


def test_a_seed_is_one_that_torch_takes() -> None:
    assert load(with_value("seed", 2**63 - 1), check_files=False).seed == 2**63 - 1
    with pytest.raises(UserError, match="seed: given 9223372036854775808; allowed: a whole number from 0 to"):
        load(with_value("seed", 2**63), check_files=False)


@pytest.mark.parametrize("part", [Schema, Lora, Icot])
def test_every_key_is_described_in_one_line(part: type[BaseModel]) -> None:
    for key, field in part.model_fields.items():
        text = field.description or ""
        assert text.endswith(".") and "\n" not in text and len(text) < 100, key
        assert allowed(field.annotation, field.metadata), key
        assert getattr(part, key, None) is None, f"{key} hides a method of pydantic's"


def test_every_default_is_a_valid_value() -> None:
    plain = Config(**SMALL)
    assert Config(**plain.model_dump()) == plain
    assert not set(METHOD_FLAGS) & set(Schema.model_fields)
