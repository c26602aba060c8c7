"""How does a configuration come back from what was written down of it?"""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dsgkd.errors import InputError

T = TypeVar("T")


def structure(cls: type[T], value: Any) -> T:
    """Rebuild a tree of frozen dataclasses from plain values.

    Plain is what `dataclasses.asdict` gives, and what is left of that after a way through JSON:
    lists for tuples, strings for paths, whole numbers for floats. A field that was not written
    down, because an older version did not know it, gets its default.

    Args:
        cls: the dataclass at the root. Its fields, at any depth, are dataclasses, `int`, `float`,
            `bool`, `str`, `Path`, `None`, `Any`, or a `Literal`, `tuple`, mapping, `Optional` or
            other union of these.
        value: a mapping from the names of its fields to plain values.

    Raises:
        InputError: names the first field that is unknown, missing or of another type.
    """
    rebuilt: T = _rebuilt(cls, value, "")
    return rebuilt


def _rebuilt(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass(kind, value, name)
    if origin in (Union, types.UnionType):
        return _first_that_fits(arguments, value, name)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return _tuple(arguments, value, name)
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {
                _rebuilt(arguments[0], key, name): _rebuilt(arguments[1], item, f"{name}.{key}")
                for key, item in value.items()
            }
    elif kind is Any or (kind in (None, types.NoneType) and value is None):
        return value
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif kind is Path and isinstance(value, str | Path):
        return Path(value)
    elif type(value) is kind:
        return value
    what = f"{type(value).__name__} is not what stands in this field"
    raise InputError(name or "configuration", what, "use the version of dsgkd that wrote it")


def _dataclass(cls: Any, value: Any, prefix: str) -> Any:
    if not isinstance(value, Mapping):
        what = f"{type(value).__name__} is no group of fields"
        raise InputError(prefix or "configuration", what, "use the version of dsgkd that wrote it")
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls) if field.init]
    path = f"{prefix}." if prefix else ""
    unknown = [name for name in value if name not in names]
    if unknown:
        what = "this version of dsgkd knows no such field"
        raise InputError(f"{path}{unknown[0]}", what, "use the version that wrote it")
    try:
        return cls(
            **{
                name: _rebuilt(hints[name], value[name], f"{path}{name}")
                for name in names
                if name in value
            }
        )
    except TypeError:
        what = f"a field of {cls.__name__} is missing"
        raise InputError(prefix or "configuration", what, "use the version that wrote it") from None


def _first_that_fits(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    # A number that fits exactly is not widened: 1 for `float | int` is the integer.
    exact = [kind for kind in kinds if type(value) is kind]
    for kind in [*exact, *kinds[:-1]]:
        try:
            return _rebuilt(kind, value, name)
        except InputError:
            continue
    return _rebuilt(kinds[-1], value, name)


def _tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    elif len(kinds) != len(value):
        what = f"{len(value)} values for {len(kinds)}"
        raise InputError(name, what, "use the version of dsgkd that wrote it")
    return tuple(
        _rebuilt(kind, item, f"{name}[{at}]")
        for at, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
