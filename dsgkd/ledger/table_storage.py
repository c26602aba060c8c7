"""The files of a ledger: a folder per table, Parquet files named without their suffix."""

import re
from collections.abc import Iterable
from datetime import datetime

import pyarrow as pa

from dsgkd.storage.location import Location

# Hidden files and files with a leading underscore are skipped by readers of Parquet folders.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def is_name(name: str) -> bool:
    """Whether a file may have this name."""
    return bool(_NAME.fullmatch(name))


class TableStorage:
    """Reads and writes the files of tables as a whole; errors are those of `Location`."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def path(self, table: str, name: str) -> str:
        """Return a file's path, for messages."""
        return self._location.path(_file(table, name))

    def names(self, table: str) -> list[str]:
        """Return the names of a table's files, sorted."""
        files = (entry.name.removeprefix(f"{table}/") for entry in self._location.list(table))
        stems = (file.removesuffix(".parquet") for file in files if file.endswith(".parquet"))
        return sorted(stem for stem in stems if is_name(stem))

    def changed_at(self, table: str) -> datetime | None:
        """Return when a file of a table last changed; None where there is none."""
        return max((entry.modified for entry in self._location.list(table)), default=None)

    def read(self, table: str, name: str) -> bytes | None:
        """Return the bytes of a file; None if there is none."""
        return self._location.read(_file(table, name))

    def write(self, table: str, name: str, data: pa.Buffer) -> None:
        """Write a file, or replace it."""
        self._location.write(_file(table, name), data)

    def delete(self, table: str, names: Iterable[str]) -> None:
        """Delete files, as far as they are there."""
        self._location.delete(*(_file(table, name) for name in names))

    def delete_stale(self, table: str) -> None:
        """Delete what writers that were killed left unfinished."""
        self._location.delete(*(entry.name for entry in self._location.leftovers(table)))


def _file(table: str, name: str) -> str:
    return f"{table}/{name}.parquet"
