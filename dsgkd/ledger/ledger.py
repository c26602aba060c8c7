"""What a study records: write a file's rows, read a table, seal what is finished."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow.fs import FileSystem

from dsgkd.ledger.content import NotALedger, encode
from dsgkd.ledger.merging import Merger, belongs, is_merged
from dsgkd.ledger.reading import as_rows, frame, joined, read_table
from dsgkd.ledger.schema import SCHEMAS, Table, as_table
from dsgkd.ledger.table_storage import TableStorage, is_name
from dsgkd.storage.location import Location

if TYPE_CHECKING:
    import pandas as pd

MERGE_AT = 256
"""How many trials may be sealed before their files are merged."""

# A file of no rows, so that every table can be read with its columns from the first moment on.
_EMPTY = "schema"


class Ledger:
    """The tables of a study below one folder.

    `root` is a location, a local path or any URI that `Location` knows; with `filesystem` it is
    a path in that file system. Nothing is created before the first write. Instances can be pickled
    and several processes may write, each under names of its own; only one at a time may seal.
    """

    def __init__(
        self, root: str | os.PathLike[str] | Location, filesystem: FileSystem | None = None
    ) -> None:
        location = root if isinstance(root, Location) else Location(root, filesystem)
        self.root = location.root
        self._storage = TableStorage(location)
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

        A column that a row lacks becomes null.

        Raises:
            ValueError: an unknown column, a value of the wrong type, a bad name or one that was
                sealed (mistakes of the program; the message never shows the value).
            StorageError: the disk is full, or the storage cannot be written.
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
        """Declare that the files `<name>` and `<name>-<split>` of every table are finished.

        They must never be written again: what is merged is no longer looked for under its own
        name (a new attempt has a new one). As the sealed become many, their files are merged. A
        study that goes on after it was killed seals again what was finished.

        Raises:
            StorageError: as `write` does.
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
        """Return all rows of a table, sorted by their key; no rows where there is no ledger.

        Raises:
            NotALedger: something in the folder is no file of a ledger of this version.
        """
        return read_table(self._storage, table)

    def rows(self, table: Table, *columns: str) -> list[dict[str, Any]]:
        """Return the rows of `read` as `write` takes them: JSON parsed, maps as dictionaries.

        Args:
            table: its name.
            columns: only these; none: all.
        """
        rows = self.read(table)
        return as_rows(rows.select(list(columns)) if columns else rows)

    def _prepare(self) -> None:
        # `studies` comes last: where it is, all are.
        for table in reversed(SCHEMAS):
            self._storage.delete_stale(table)
            if not self._storage.names(table):
                self._storage.write(table, _EMPTY, encode(SCHEMAS[table].empty_table()))
        self._prepared = True


def frames(ledgers: Iterable[Ledger], table: Table) -> "pd.DataFrame":
    """Return the rows of one or several ledgers as a pandas frame, flattened and sorted by key."""
    return frame(table, joined(table, [ledger.read(table) for ledger in ledgers]))


def find_ledgers(root: str | os.PathLike[str]) -> list[Ledger]:
    """Return the ledgers of a place: itself, that of a study's folder, or of several studies.

    Raises:
        NotALedger: there is none.
        InputError: the place cannot be read.
    """
    place = Location(root)
    if not place.exists():
        raise NotALedger(place.path(), "no such folder", "check the path")
    for candidates in (
        [place],
        [place.child("ledger")],
        [place.child(f"{name}/ledger") for name in place.folders()],
    ):
        # The writer makes `studies` last.
        if found := [Ledger(one) for one in candidates if one.list("studies")]:
            return found
    raise NotALedger(
        place.path(), "holds no ledger", "give the folder that a study wrote (--out DIR, DIR/NAME)"
    )
