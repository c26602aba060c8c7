"""What can be done with a ledger? Write a file's rows, read a table, seal what is finished."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem

from dsgkd.ledger.content import encode
from dsgkd.ledger.merging import Merger, belongs, is_merged
from dsgkd.ledger.reading import read_table
from dsgkd.ledger.schema import SCHEMAS, Table, as_table
from dsgkd.ledger.table_storage import TableStorage, is_name

MERGE_AT = 256
"""How many trials may be sealed before their files are merged."""

# A file of no rows, so that every table can be read with its columns from the first moment on.
_EMPTY = "schema"


class Ledger:
    """The four tables of a study below one folder.

    `root` is a local path or any URI that `pyarrow.fs` knows (`file://`, `s3://`, ...); with
    `filesystem` it is a path in that file system. Nothing is created before the first write.
    Instances can be pickled and several processes may write, each under names of its own; only
    one at a time may seal.
    """

    def __init__(self, root: str | os.PathLike[str], filesystem: FileSystem | None = None) -> None:
        self.root = os.fspath(root)
        self._storage = TableStorage(self.root, filesystem)
        self._merger = Merger(self._storage)
        self._sealed: set[str] = set()
        self._waiting: set[str] = set()  # sealed, not merged yet
        self._prepared = False

    def exists(self) -> bool:
        """Whether any row was ever written here."""
        return any(name != _EMPTY for table in SCHEMAS for name in self._storage.names(table))

    def changed_at(self) -> datetime | None:
        """When a file of the ledger last changed; None where there is none."""
        moments = (self._storage.changed_at(table) for table in SCHEMAS)
        return max((moment for moment in moments if moment), default=None)

    def write(self, table: Table, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Replace `<table>/<name>.parquet` by these rows, as a whole or not at all.

        A column that a row lacks becomes null. Raises ValueError for an unknown column, a value
        of the wrong type, a bad name or one that was sealed (mistakes of the program; the message
        never shows the value), and InputError where the disk is full or the storage cannot be
        written.
        """
        if not is_name(name) or is_merged(name):
            raise ValueError(f"ledger: not a file name: {name!r}")
        if belongs(name, self._sealed):
            raise ValueError(f"ledger: {name!r} was sealed")
        data = encode(as_table(table, rows))
        if not self._prepared:
            self._prepare()
        self._storage.write(table, name, data)

    def seal(self, *names: str) -> None:
        """Say that the files `<name>` and `<name>-<split>` of every table are finished.

        They must never be written again: what is merged is no longer looked for under its own
        name (a new attempt has a new one). As the sealed become many, their files are merged. A
        study that goes on after it was killed seals again what was finished. Raises InputError as
        `write` does.
        """
        self._waiting.update(set(names) - self._sealed)
        self._sealed.update(names)
        if len(self._waiting) >= MERGE_AT:
            self.merge()

    def merge(self) -> None:
        """Merge the files of all that is sealed, however few they are."""
        self._merger.merge(self._waiting)
        self._waiting.clear()

    def read(self, table: Table) -> pa.Table:
        """All rows of a table, sorted by their key; an empty table where there are none."""
        return read_table(self._storage, table)

    def _prepare(self) -> None:
        # `studies` comes last: where it is, all four are.
        for table in reversed(SCHEMAS):
            self._storage.delete_stale(table)
            if not self._storage.names(table):
                self._storage.write(table, _EMPTY, encode(SCHEMAS[table].empty_table()))
        self._prepared = True
