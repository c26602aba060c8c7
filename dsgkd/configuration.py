"""Placeholder."""

from dataclasses import fields, is_dataclass
from typing import Any, get_origin, get_type_hints


def from_plain(cls: Any, value: Any) -> Any:
    """Placeholder."""
    hints = get_type_hints(cls)
    given = {}
    for field in fields(cls):
        if field.name in value:
            item, kind = value[field.name], hints[field.name]
            if is_dataclass(kind):
                item = from_plain(kind, item)
            elif get_origin(kind) is tuple:
                item = tuple(item)
            given[field.name] = item
    return cls(**given)
