"""What is cut from a ledger so that it can be given away: paths, and names of machines."""

import platform
import re
from typing import Any

_START = r"(?:[A-Za-z][A-Za-z0-9]*://(?:[^\s/@]*@)?|~?/|\.{1,2}/|[A-Za-z]:[\\/]|\\\\)"
_PART = r"(?:[^\s,;:*+='\"()\[\]<>|?]|:\d+)"
# A folder may have a space in its name: the path goes on where the next word has a slash.
_PATH = re.compile(rf"(?<![\w./\\~]){_START}{_PART}+(?: {_PART}*[\\/]{_PART}*)*(?:\?[^\s,;]*)?")
_FILES = "csv|tsv|txt|jsonl?|parquet|arrow|xlsx?|zst|gz|safetensors"
_DATA = re.compile(rf"{_PART}+[\\/]({_PART}+\.(?:{_FILES}))\b")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")


def without_paths(value: Any) -> Any:
    """Return a JSON value with every path and URI in it cut to its last part.

    Paths are texts that begin with `/`, `~/`, `./`, `../`, a drive or a scheme, and files of data
    below any folder; a hub's `organisation/model` stays. Keys of objects are cut as well.
    """
    if isinstance(value, str):
        if "/" not in value and "\\" not in value:
            return value
        return _DATA.sub(r"\1", _PATH.sub(_last, value))
    if isinstance(value, dict):
        return {without_paths(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return value


def without_machines(text: str) -> str:
    """Return a text without network addresses and without the name of this machine."""
    text = _ADDRESS.sub("a node", text)
    host = platform.node()
    return re.sub(rf"\b{re.escape(host)}\b", "a node", text) if len(host) > 3 else text


def _last(match: re.Match[str]) -> str:
    text = re.sub(rf"^{_START}", "", match[0].partition("?")[0]).rstrip("/\\")
    return re.split(r"[\\/]", text)[-1]
