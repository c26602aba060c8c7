"""Configuration classes that check themselves, and the bounds that their fields declare."""

import functools
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dsgkd.errors import InputError

T = TypeVar("T")


def _text_of_path(given: Any) -> Any:
    return str(given) if isinstance(given, Path) else given


@dataclass(frozen=True)
class Accepts:
    """What a field accepts, in words, where its other bounds do not say it."""

    words: str


_MOST = 10**12
"""More than this many of anything is a slip of the keyboard."""
_SLIP = 10**6
"""An upper bound from here on is for slips, and words about the field leave it out."""
_NO_CONTROL = r"^\P{Cc}*$"

Count = Annotated[int, Ge(1), Le(_MOST)]
"""So many of something, at least one."""
Whole = Annotated[int, Ge(0), Le(_MOST)]
"""So many of something, or none."""
Positive = Annotated[float, Gt(0), Le(1e12)]
NonNegative = Annotated[float, Ge(0), Le(1e12)]
Weight = Annotated[float, Ge(0), Le(1e6)]
"""Weight of a term of a loss, or of a source of a mixture."""
LearningRate = Annotated[float, Gt(0), Le(10)]
Share = Annotated[float, Ge(0), Le(1)]
Part = Annotated[float, Gt(0), Lt(1)]
"""A share that is neither nothing nor everything."""
Probability = Annotated[float, Ge(0), Lt(1)]
"""Of dropping a unit, for instance: never all of them."""
Seed = Annotated[int, Ge(0), Lt(2**63)]
Name = Annotated[
    str,
    MinLen(1),
    MaxLen(128),
    pydantic.StringConstraints(pattern=r"^\w[\w .=+@-]*$"),
    Accepts("letters, digits, dots, dashes and underscores, at most 128"),
]
"""Names a folder or an arm."""
Text = Annotated[
    str,
    MaxLen(4096),
    pydantic.StringConstraints(pattern=_NO_CONTROL),
    Accepts("a text of at most 4096 characters, none of them a control character"),
]
"""A path, a model's name or a notation, which may be empty."""
FolderOrUri = Annotated[Text, pydantic.BeforeValidator(_text_of_path)]
"""A local folder, also as a `Path`, or the URI of one, such as s3://bucket/folder."""
Column = Annotated[str, MaxLen(1000), Accepts("the name of a column")]

_CONFIG = pydantic.ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def config(cls: type[T]) -> type[T]:
    """Make a frozen dataclass of a class, whose fields are checked against their annotations.

    Bounds stand in the annotation, as `Annotated[int, Ge(1)]` or by one of the names above.
    Nothing is converted but whole numbers to floats; NaN and infinity are refused unless a field
    is annotated with `pydantic.AllowInfNan()`. `__post_init__` has the rules that concern several
    fields, and raises InputError by itself.

    Creating an instance raises InputError, naming the first field that does not fit.
    """
    made: Any = pydantic_dataclass(frozen=True, config=_CONFIG)(cls)
    create = made.__init__

    @functools.wraps(create)
    def checked(self: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            create(self, *arguments, **keywords)
        except pydantic.ValidationError as error:
            raise _refusal(made, error) from None

    made.__init__ = checked
    return made


def structure(cls: type[T], value: Any) -> T:
    """Rebuild a tree of configurations from plain values.

    Plain is what `dataclasses.asdict` gives, and what is left of that after a way through JSON:
    lists for tuples, strings for paths, whole numbers for floats. A field that was not written
    down, because an older version did not know it, gets its default.

    Args:
        cls: the dataclass at the root.
        value: a mapping from the names of its fields to plain values.

    Raises:
        InputError: names the first field that is unknown, missing or does not fit.
    """
    try:
        plain = json.dumps(value, default=str)
        rebuilt: T = _adapter(cls).validate_json(plain, strict=True, extra="forbid")
        return rebuilt
    except pydantic.ValidationError as error:
        raise _refusal(cls, error) from None


def accepts(kind: Any, noun: bool = False) -> str:
    """Return in words what a field of a type accepts: `1 or more`, `one of: a, b`.

    Args:
        kind: the annotation.
        noun: `a whole number, 1 or more`, for whoever gave something else.
    """
    base, notes = _unwrapped(kind)
    origin, arguments = get_origin(base), get_args(base)
    words = [note.words for note in notes if isinstance(note, Accepts)]
    if words:
        return words[-1]
    if origin in (Union, types.UnionType):
        kinds = [each for each in arguments if each is not types.NoneType]
        return ", or ".join(dict.fromkeys(accepts(each, noun) for each in kinds))
    if origin is Literal:
        return "one of: " + ", ".join(str(choice) or "(empty)" for choice in arguments)
    if origin is tuple:
        return f"a list, each item {accepts(arguments[0], noun)}" if arguments else "a list"
    if base in (int, float):
        name, bounds = "a whole number" if base is int else "a number", _range(notes)
        return f"{name}, {bounds}" if bounds and noun else bounds or name
    if base is str:
        most = [note.max_length for note in notes if isinstance(note, MaxLen)]
        return f"a text of at most {most[-1]} characters" if most else "a text"
    if is_dataclass(base):
        return f"the fields of {getattr(base, '__name__', base)}"
    named = {bool: "true or false", Path: "a path"}
    return named.get(base, "another value")


def _range(notes: tuple[Any, ...]) -> str:
    """Return the bounds of a number in words, without an upper one that excludes slips only."""
    low: Any = next((note for note in notes if isinstance(note, Ge | Gt)), None)
    high: Any = next((note for note in notes if isinstance(note, Le | Lt)), None)
    least = "" if low is None else f"{low.ge if isinstance(low, Ge) else low.gt:g}"
    most = "" if high is None else f"{high.le if isinstance(high, Le) else high.lt:g}"
    if low is not None and most and float(most) >= _SLIP:
        most = ""
    if isinstance(low, Ge) and isinstance(high, Le) and most:
        return f"{least} to {most}"
    words = []
    if least:
        words.append(f"{least} or more" if isinstance(low, Ge) else f"more than {least}")
    if most:
        words.append(f"at most {most}" if isinstance(high, Le) else f"less than {most}")
    return " and ".join(words)


def _refusal(cls: type, error: pydantic.ValidationError) -> InputError:
    """Return the first complaint in one line, with what the field accepts in words."""
    problem = error.errors(include_url=False)[0]
    kind, given = problem["type"], problem["input"]
    where, wanted = _field(cls, problem["loc"])
    if kind == "unexpected_keyword_argument":
        what, remedy = "this version of dsgkd knows no such field", "use the version that wrote it"
    elif kind in ("missing", "missing_argument"):
        what, remedy = "missing", "give it: it has no default"
    else:
        bounds = accepts(wanted, noun=kind in ("int_type", "float_type", "finite_number"))
        remedy = f"choose {bounds}" if bounds.startswith("one of") else f"give {bounds}"
        if kind.startswith("greater_than"):
            what = f"{shown(given)} is too small"
        elif kind.startswith("less_than"):
            what = f"{shown(given)} is too large"
            limit = next(iter(problem["ctx"].values()))
            if limit >= _SLIP:  # a bound that excludes slips, of which the words say nothing
                remedy = f"give less than {limit:g}"
        elif kind == "string_too_long":
            what = f"{len(given):,} characters are too many"
        else:
            what = f"{shown(given)} does not fit"
    return InputError(where, what, remedy)


def shown(given: Any) -> str:
    """Return a value as a message may show it: short, and without signs a terminal obeys."""
    if isinstance(given, int) and abs(given) >= 10**15:
        return "a number of this size"
    if given is None or isinstance(given, bool | int | float):
        return f"{given}"
    if isinstance(given, str):
        return repr(given.encode("utf-8", "backslashreplace").decode()[:40])
    return f"a {type(given).__name__}"


def _field(cls: Any, location: tuple[int | str, ...]) -> tuple[str, Any]:
    """Return the dotted name of a field, and its annotation, from pydantic's location."""
    name, kind = "", cls
    for part in location:
        inner = _inner(kind, part)
        if inner is None:  # a branch of a union, which has no name of its own
            break
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else part
        kind = inner[0]
    return name or "configuration", kind


def _inner(kind: Any, part: int | str) -> tuple[Any] | None:
    """Return the annotation of a part of a type, in a tuple; None: it has no such part."""
    base, _ = _unwrapped(kind)
    if get_origin(base) in (Union, types.UnionType):
        found = (_inner(each, part) for each in get_args(base))
        return next((each for each in found if each is not None), None)
    arguments = get_args(base)
    if is_dataclass(base):
        return (_hints(base).get(str(part), Any),)
    if get_origin(base) is tuple and isinstance(part, int):
        return (arguments[0] if arguments[-1] is Ellipsis else arguments[part],)
    if arguments and isinstance(part, str) and issubclass(get_origin(base) or int, Mapping):
        return (arguments[1],)
    return None


def _unwrapped(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without its annotations, and these."""
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        return base, tuple(notes)
    return kind, ()


_adapter: Callable[[Any], pydantic.TypeAdapter[Any]] = functools.cache(pydantic.TypeAdapter)
_hints: Callable[[Any], dict[str, Any]] = functools.cache(
    functools.partial(get_type_hints, include_extras=True)
)
