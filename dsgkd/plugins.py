"""Parts that are chosen by name: those of the project, or a class in somebody's own module."""

import importlib
from collections.abc import Mapping
from typing import Any

from dsgkd.configuration import shown
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
    own = "package.module:Class" if builtin else "package.module:function"
    if not colon:
        known = f"choose of {', '.join(builtin)}, or" if builtin else "give"
        raise InputError(what, f"{shown(name)} unknown", f"{known} {own}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # it is somebody's own module
        remedy = f"give {own}, with the package on PYTHONPATH"
        raise InputError(what, f"{shown(name)} cannot be imported", remedy) from error
