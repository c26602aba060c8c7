"""A tree of configurations as the flags of a command, made by tyro.

Every leaf of the tree is a flag under its dotted name, such as `--optimisation.encoder-lr`; the
docstring under the field is its help, and its default stays where it is: in the dataclass. What
people type every day has a short name besides, listed here and nowhere else.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro import _errors  # private, hence the bound on tyro's version: its own errors are boxes
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from dsgkd.cli.short_names import ALONE, EXPANDED, JOINTS, MAY_BE_EMPTY, SHORT
from dsgkd.configuration import accepts, shown
from dsgkd.errors import InputError

T = TypeVar("T")

UNPREFIXED = frozenset({"run", "study"})
"""Fields whose name nobody has to type: `--epochs`, not `--run.epochs`."""
NOTHING = "none"
"""An empty list, or no value, on the command line."""


def parse(
    cls: type[T],
    arguments: Sequence[str],
    prog: str,
    description: str,
    default: T | None = None,
    hidden: frozenset[str] = frozenset(),
) -> T:
    """Read a tree of configurations from a command line.

    `--help` lists fields with a short name or without a dot in theirs; `--help-all` every field.
    Lists are separated by commas, and their flags may be repeated; of other flags the last counts.

    Args:
        cls: the dataclass at the root. The prefixes `run` and `study` are left out of flags.
        arguments: the command line, without the command.
        prog: the command, for its help.
        description: text above the flags.
        default: holds the defaults; left out: those of the fields.
        hidden: dotted names of fields that are no flags, and the trees below them.

    Raises:
        InputError: a flag is not known, is given twice, has no value, or its value does not fit.
    """
    line = _Line(cls, default, hidden, arguments)
    found: T = line.read(prog, description)
    return found


def flag_names(default: Any) -> list[str]:
    """Return the long names of the flags of a tree, without dashes."""
    line = _Line(type(default), default, frozenset(), ())
    return list(dict.fromkeys(flag.name for flag in line.flags.values()))


def peek(arguments: Sequence[str], *names: str) -> str:
    """Return what a flag is given before the rest of a command line is looked at, or nothing.

    Args:
        arguments: the command line.
        names: the flag's names, without dashes.
    """
    for token, after in zip(arguments, [*arguments[1:], ""]):
        name, equals, value = token.partition("=")
        if name.startswith("--") and name[2:] in names:
            return value if equals else after
    return ""


@dataclass(frozen=True)
class _Flag:
    """A leaf of the tree."""

    name: str
    """Dotted, as it is typed, without dashes."""
    short: str
    kind: Any
    """Its annotation, bounds included."""

    @property
    def field(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @property
    def shown(self) -> str:
        """As messages name it."""
        return f"--{self.short or self.name}"

    @property
    def is_brief(self) -> bool:
        """Whether the short help lists it."""
        return bool(self.short) or "." not in self.name

    @property
    def is_list(self) -> bool:
        """Whether it may be repeated."""
        return get_origin(_plain(self.kind)) is tuple


class _Line:
    """One command line, and the tree that it is read into."""

    def __init__(
        self, cls: Any, default: Any, hidden: frozenset[str], arguments: Sequence[str]
    ) -> None:
        self._cls, self._default = cls, default
        self._all = "--help-all" in arguments
        self._brief = not self._all and any(each in ("--help", "-h") for each in arguments)
        self._paths: dict[tuple[type, str], str] = {}
        self.flags: dict[str, _Flag] = {}
        self._fixed: set[tuple[type, str]] = set()
        self._walk(cls, default, "", "", hidden)
        self._given: dict[str, str] = {}
        self._typed: dict[str, str] = {}
        self._arguments = self._normalised(arguments)
        self._decorating = False

    def read(self, prog: str, description: str) -> Any:
        """Return the tree."""
        registry = ConstructorRegistry()
        registry.struct_rule(self._struct)
        registry.primitive_rule(_optional)
        registry.primitive_rule(_list)
        text = description.strip()
        if self._brief and not all(flag.is_brief for flag in self.flags.values()):
            text += "\n\n--help-all explains every field."
        with _errors.on_parse_error(self._refuse):
            return tyro.cli(
                self._cls,
                args=self._arguments,
                prog=prog,
                description=text,
                default=tyro.MISSING_NONPROP if self._default is None else self._default,
                registry=registry,
                config=(
                    tyro.conf.HelptextFromCommentsOff,
                    tyro.conf.PositionalMetavarFromFieldName,
                ),
            )

    def _walk(
        self, cls: Any, instance: Any, prefix: str, typed: str, hidden: frozenset[str]
    ) -> None:
        """Collect the flags of a tree, of which `typed` leaves out what nobody has to type."""
        for name, kind, value in _members(cls, instance):
            path, flag_name = f"{prefix}{name}", f"{typed}{name}".replace("_", "-")
            nested = is_dataclass(_plain(kind)) or _is_instance(value)
            if path in hidden or (not nested and not _is_leaf(kind)):
                self._fixed.add((cls, name))
            elif nested:
                below = _plain(kind) if is_dataclass(_plain(kind)) else type(value)
                inner = value if _is_instance(value) else None
                self._walk(
                    below, inner, f"{path}.", "" if name in UNPREFIXED else f"{flag_name}.", hidden
                )
            else:
                flag = _Flag(flag_name, SHORT.get(f"{cls.__name__}.{name}", ""), kind)
                self._paths[cls, name] = flag_name
                for each in filter(None, (flag_name, flag.short)):
                    self.flags[each] = flag

    def _normalised(self, arguments: Sequence[str]) -> list[str]:
        """Return the arguments with one `--flag=value` a flag."""
        rest, left = [], list(arguments)
        while left:
            token = left.pop(0)
            typed, equals, value = token.partition("=")
            name, template = EXPANDED.get(typed, (typed, "{}"))
            flag = self.flags.get(name[2:].replace("_", "-")) if name.startswith("--") else None
            if flag is None or _plain(flag.kind) is bool:
                rest.append("--help" if token == "--help-all" else token)
                continue
            if "{}" in template and not equals:
                if left and not left[0].startswith("--"):
                    value = left.pop(0)
                elif typed in ALONE:
                    value = ALONE[typed]
                else:
                    raise InputError(typed, "no value", f"give {accepts(flag.kind, noun=True)}")
            if not value and "{}" in template and flag.field not in MAY_BE_EMPTY:
                remedy = "leave the flag out, or give a value (is a shell's variable not set?)"
                raise InputError(typed, "empty", remedy)
            self._take(flag, typed, template.format(value))
        return [*rest, *(f"--{name}={value}" for name, value in self._given.items())]

    def _take(self, flag: _Flag, typed: str, value: str) -> None:
        """Note the value of a flag: lists grow, of other values the last counts."""
        before, joint = self._given.get(flag.name), JOINTS.get(flag.field) or "," * flag.is_list
        if before is not None and joint:
            value = f"{before}{joint}{value}"
        elif before is not None and (typed in EXPANDED) != (self._typed[flag.name] in EXPANDED):
            what = f"given beside {self._typed[flag.name]}"
            raise InputError(typed, what, "give one of the two")
        self._given[flag.name], self._typed[flag.name] = value, typed

    def _struct(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        """Add short names and bounds to what tyro knows of a dataclass."""
        if self._decorating or not is_dataclass(info.type):
            return None
        self._decorating = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            self._decorating = False
        assert isinstance(spec, StructConstructorSpec)
        found, fixed = [], {}
        for field in spec.fields:
            owner: tuple[type, str] = info.type, field.name
            kind: Any = field.type
            flag = self.flags.get(self._paths.get(owner, ""))
            if owner in self._fixed or (self._brief and flag and not flag.is_brief):
                if not isinstance(field.default, type(tyro.MISSING)):
                    fixed[field.name] = field.default
                continue
            if not is_dataclass(_plain(kind)) and _is_instance(field.default):
                kind = type(field.default)
            for note in _notes(field.name, flag):
                kind = Annotated[kind, note]
            found.append(replace(field, type=kind, helptext=_one_line(field.helptext)))
        return StructConstructorSpec(self._creating(info.type, fixed), tuple(found))

    def _creating(self, cls: Any, fixed: dict[str, Any]) -> Any:
        """Return a function that creates an instance, and names flags where it is refused."""

        def create(**values: Any) -> Any:
            try:
                return cls(**fixed, **values)
            except InputError as error:
                field = error.where.partition("[")[0]
                name = self._paths.get((cls, field)) or field.replace("_", "-")
                flag = self.flags.get(name)
                if flag is None:
                    raise
                raise InputError(flag.shown, error.what, error.remedy) from None

        create.__doc__ = cls.__doc__
        return create

    def _refuse(self, event: Any) -> None:
        """Raise what tyro is about to print a box of."""
        if isinstance(event, _errors.UnrecognizedArgs):
            token = event.tokens[0]
            known = [f"--{name}" for name in self.flags]
            close = get_close_matches(token, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else "see --help"
            what = "no such flag" if token.startswith("-") else "too much"
            raise InputError(shown(token).strip("'"), what, remedy)
        missing = isinstance(event, _errors.MissingArgs)
        argument = event.missing_arguments[0].arg if missing else getattr(event, "argument", None)
        if argument is None:
            raise InputError("command line", type(event).__name__, "see --help")
        flag = self.flags[argument.lowered.name_or_flags[-1].lstrip("-").replace("_", "-")]
        name = flag.name.upper() if argument.is_positional() else flag.shown
        value = self._given.get(flag.name) or getattr(event, "value", "this value")
        what = "missing" if missing else f"{shown(value)} does not fit"
        raise InputError(name, what, f"give {accepts(flag.kind, noun=True)}")


def _notes(name: str, flag: _Flag | None) -> Iterator[Any]:
    """Yield what tyro should know of a field besides."""
    if name in UNPREFIXED:
        yield tyro.conf.arg(name="")
    if flag is None:
        return
    kind = _plain(flag.kind)
    number = kind in (int, float) or (flag.is_list and get_args(kind)[0] in (int, float))
    bounds = f"; {accepts(flag.kind)}" if number else ""
    yield tyro.conf.arg(
        aliases=(f"--{flag.short}",) if flag.short else None,
        help_behavior_hint=lambda shown: f"[{shown.strip(chr(39)) or NOTHING}{bounds}]",
    )


def _one_line(text: Any) -> Any:
    """Return a field's help, which tyro reads when it is wanted, without its line breaks."""

    def joined() -> str | None:
        found = text() if callable(text) else text
        return " ".join(found.split()) if found else None

    return joined


def _members(cls: Any, instance: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, annotation and default of every field of a dataclass."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        if instance is not None:
            yield field.name, hints[field.name], getattr(instance, field.name)
        elif callable(field.default_factory):
            yield field.name, hints[field.name], field.default_factory()
        else:
            yield field.name, hints[field.name], field.default


def _plain(kind: Any) -> Any:
    """Return a type without annotations and without None."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        inner = [each for each in get_args(kind) if each is not types.NoneType]
        return _plain(inner[0]) if len(inner) == 1 else kind
    return kind


def _is_instance(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _is_leaf(kind: Any) -> bool:
    """Whether one word of a command line can say it."""
    plain = _plain(kind)
    if get_origin(plain) is tuple:
        return all(_is_leaf(each) for each in get_args(plain) if each is not Ellipsis)
    return plain is not Any and not is_dataclass(plain) and not isinstance(plain, Mapping)


def _spec(kind: Any) -> PrimitiveConstructorSpec[Any]:
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, set()))
    assert isinstance(spec, PrimitiveConstructorSpec), kind
    return spec


def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read an optional value as the value itself; to leave it out, leave out the flag."""
    if info.type_origin not in (Union, types.UnionType) or types.NoneType not in get_args(
        info.type
    ):
        return None
    inner = _spec(_plain(info.type))
    return replace(
        inner,
        is_instance=lambda value: value is None or bool(inner.is_instance(value)),
        str_from_instance=lambda value: (
            [NOTHING] if value is None else inner.str_from_instance(value)
        ),
    )


def _list(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read a tuple from a list that is separated by commas; one value for a pair is both ends."""
    if info.type_origin is not tuple:
        return None
    kinds = get_args(info.type)
    first = _spec(kinds[0])

    def read(words: list[str]) -> tuple[Any, ...]:
        parts = [part.strip() for part in words[0].split(",") if part.strip()]
        if Ellipsis not in kinds:
            parts *= len(kinds) if len(parts) == 1 else 1
        return tuple(first.instance_from_str([part]) for part in parts if part != NOTHING)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{first.metavar},..." if kinds[-1] is Ellipsis else "LOW,HIGH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )
