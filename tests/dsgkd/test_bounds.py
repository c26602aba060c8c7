"""Every field of every configuration declares what it accepts, and keeps to it."""

import importlib
import math
import pkgutil
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic.dataclasses import is_pydantic_dataclass

import dsgkd
from dsgkd.configuration import accepts
from dsgkd.errors import InputError
from dsgkd.tasks.nothing import NoTask

HUGE = 10**30
BAD = {
    int: (-1, 0, HUGE, -HUGE, 10**5000, math.nan, math.inf, "", "1", True, None, 1.5),
    float: (-1.0, 0.0, math.nan, math.inf, -math.inf, 1e308, HUGE, 10**400, "", "1", True, None),
    str: ("", "x" * 5000, "\x1b[31m", "a\nb", "\x00", "\udc80", 1, None, ".", "../x", "nan"),
    bool: ("", "true", 1, 0, None),
    Path: ("", None, Path("x" * 5000)),
}


def configurations() -> list[type]:
    """Every configuration of the project."""
    found = {}
    for module in pkgutil.walk_packages(dsgkd.__path__, "dsgkd."):
        if module.name.rpartition(".")[2] == "__main__":
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and is_pydantic_dataclass(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[name] for name in sorted(found)]


CONFIGURATIONS = configurations()
CASES = [
    pytest.param(cls, field.name, id=f"{cls.__name__}.{field.name}")
    for cls in CONFIGURATIONS
    for field in fields(cls)
]


def bare(kind: Any) -> tuple[Any, list[Any]]:
    """A type without annotations, and these."""
    notes: list[Any] = []
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        notes += more
    return kind, notes


def undeclared(kind: Any) -> Iterator[str]:
    """What of a field's type has no bounds."""
    base, notes = bare(kind)
    origin, arguments = get_origin(base), get_args(base)
    if base in (int, float):
        if not any(isinstance(note, Ge | Gt) for note in notes):
            yield "no lower bound"
        if not any(isinstance(note, Le | Lt) for note in notes):
            yield "no upper bound"
    elif base is str:
        if not any(isinstance(note, MaxLen) for note in notes):
            yield "no greatest length"
    elif origin is tuple or origin in (Union, types.UnionType):
        for each in arguments:
            if each not in (Ellipsis, types.NoneType):
                yield from undeclared(each)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from undeclared(arguments[1])


def allowed(kind: Any, value: Any) -> bool:
    """Whether a type and its bounds accept a value, found without pydantic."""
    base, notes = bare(kind)
    origin, arguments = get_origin(base), get_args(base)
    if is_dataclass(base):
        return isinstance(value, base)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return any(allowed(each, value) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(kinds) == len(value) and all(map(allowed, kinds, value))
    if base is float and type(value) is int:
        return abs(value) < 10**300 and allowed(kind, float(value))
    if base in (Any, None, types.NoneType) or not isinstance(base, type):
        return base is Any or value is None
    if type(value) is not base and not (base is Path and isinstance(value, Path)):
        return False
    if base is str and len(value) > max(
        note.max_length for note in notes if isinstance(note, MaxLen)
    ):
        return False
    if base not in (int, float):
        return True
    return math.isfinite(value) and all(
        (not isinstance(note, Ge) or value >= note.ge)
        and (not isinstance(note, Gt) or value > note.gt)
        and (not isinstance(note, Le) or value <= note.le)
        and (not isinstance(note, Lt) or value < note.lt)
        for note in notes
    )


def samples(kind: Any) -> Iterator[Any]:
    """Values that a field of a type might be given by mistake."""
    base, _ = bare(kind)
    origin, arguments = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        for each in arguments:
            yield from samples(each)
    elif origin is tuple:
        yield from ((), "", None)
        count = 1 if arguments[-1] is Ellipsis else len(arguments)
        yield from ((value,) * count for value in samples(arguments[0]))
        yield tuple(value for value in ("x",) * (count + 1))
    elif origin is Literal:
        yield from ("", "nonsense", 0, None, HUGE)
    elif is_dataclass(base):
        yield from (None, {}, "", 0)
    else:
        yield from BAD.get(base, ("", None, -1, HUGE))


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_every_field_declares_its_bounds_and_says_them_in_words(cls, name):
    kind = get_type_hints(cls, include_extras=True)[name]
    assert list(undeclared(kind)) == []
    assert accepts(kind)


def instances(cls: type) -> Any:
    """An instance with the defaults, and something for what has none."""
    given = {}
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        missing = field.default is field.default_factory
        if missing:
            given[field.name] = EXAMPLES.get(field.name) or example(hints[field.name])
    return cls(**given)


EXAMPLES: dict[str, Any] = {"name": "first", "task": NoTask()}


def example(kind: Any) -> Any:
    """Something that fits."""
    base, _ = bare(kind)
    if get_origin(base) is Literal:
        return get_args(base)[0]
    if is_dataclass(base):
        return instances(base)  # type: ignore[arg-type]
    return {str: "x", int: 3, float: 0.5, Path: Path("x"), bool: True}.get(base, "x")


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_a_value_is_declared_or_refused_in_one_line(cls, name):
    config, kind = instances(cls), get_type_hints(cls, include_extras=True)[name]
    for value in samples(kind):
        try:
            changed = replace(config, **{name: value})
        except InputError as error:
            line = str(error)
            assert len(line) < 400
            assert line.isprintable()
            assert not re.search(r"pydantic|Traceback|Input should", line)
        else:
            assert bare(kind)[0] is Any or allowed(kind, value), f"{value!r:.60} was taken"
            hash(changed), repr(changed)


def test_all_configurations_were_found():
    names = {cls.__name__ for cls in CONFIGURATIONS}
    assert {"RunConfig", "StudyConfig", "DataConfig", "Train", "StudyCommand"} <= names
    plain = [
        f"{cls.__module__}.{cls.__name__}"
        for module in pkgutil.walk_packages(dsgkd.__path__, "dsgkd.")
        for cls in vars(importlib.import_module(module.name)).values()
        if isinstance(cls, type) and is_dataclass(cls) and cls.__name__.endswith("Config")
        if cls.__module__.startswith("dsgkd.") and not hasattr(cls, "model_type")
        if not is_pydantic_dataclass(cls)
    ]
    assert plain == []
