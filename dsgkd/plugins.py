"""Parts that are chosen by name: those of the project, or a class in somebody's own module."""

import importlib
from collections.abc import Mapping
from typing import Any

from dsgkd.errors import InputError


def find(what: str, name: str, builtin: Mapping[str, Any]) -> Any:
    """Return what a name means: an entry of `builtin`, or `package.module:attribute`.

    Args:
        what: the kind of thing, for the message.
        name: as the user gave it.
        builtin: name -> what it means.

    Raises:
        InputError: there is no such name, or the module cannot be imported.
    """
    if name in builtin:
        return builtin[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(builtin)
        raise InputError(what, f"'{name}' unknown", f"choose of {known}, or package.module:Class")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # it is somebody's own module
        remedy = "give package.module:Class, with the package on PYTHONPATH"
        raise InputError(what, f"'{name}' cannot be imported", remedy) from error
