"""How does a flag override a field of a configuration? By its dotted name.

Every leaf of a tree of frozen dataclasses becomes a flag such as `--optimisation.encoder-lr`; its
help is the docstring under the field, its default stays where it is: in the dataclass.
"""

import argparse
import ast
import inspect
import textwrap
import types
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def add_field_flags(
    parser: argparse.ArgumentParser, config: Any, skip: frozenset[str] = frozenset()
) -> None:
    """Add a flag for every leaf of `config`, a dataclass instance that holds the defaults.

    Args:
        parser: where to add them.
        config: an instance; its values are shown as defaults.
        skip: dotted names that are left out (and the trees below them).
    """
    group = parser.add_argument_group("every other field")
    for name, kind, value, doc in _leaves(config, "", skip):
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            default=argparse.SUPPRESS,
            type=_reader(kind),
            choices=get_args(kind) if get_origin(kind) is Literal else None,
            metavar=None if get_origin(kind) is Literal else _metavar(kind),
            help=f"{doc} [{_shown(value)}]".replace("%", "%%"),
        )


def override(config: T, flags: argparse.Namespace) -> T:
    """Return `config` with the fields replaced that the flags name."""
    own = {f.name for f in fields(config) if not is_dataclass(getattr(config, f.name))}  # type: ignore[arg-type]
    for name, value in vars(flags).items():
        if "." in name or name in own:
            config = _replaced(config, name.split("."), value)
    return config


def _replaced(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return replace(
        config, **{name: _replaced(getattr(config, name), rest, value) if rest else value}
    )


def _leaves(config: Any, prefix: str, skip: frozenset[str]) -> list[tuple[str, Any, Any, str]]:
    docs, hints = _field_docs(type(config)), get_type_hints(type(config))
    found = []
    for field in fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if name in skip:
            continue
        if is_dataclass(value):
            found += _leaves(value, f"{name}.", skip)
        else:
            found.append((name, hints[field.name], value, docs.get(field.name, "")))
    return found


def _field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings under a dataclass's fields."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for statement, after in zip(tree.body, tree.body[1:]):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(after.value.value).split())
    return docs


def _reader(kind: Any) -> Any:
    """Return the function that reads a flag of a type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        return _reader(inner)
    if origin is Literal:
        return type(arguments[0])
    if origin is tuple:
        item = _reader(arguments[0])

        def read_list(text: str) -> tuple[Any, ...]:
            return tuple(item(part.strip()) for part in text.split(",") if part.strip())

        return read_list
    if kind is bool:

        def read_bool(text: str) -> bool:
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"

        return read_bool
    return kind


def _metavar(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _metavar(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is tuple:
        return f"{_metavar(arguments[0])},..."
    return {int: "N", float: "X", bool: "true|false"}.get(kind, "NAME")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
