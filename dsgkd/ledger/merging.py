"""Merging the many small files of finished trials into few large ones, without losing a row.

A merge writes one file with the rows of many; its metadata name them. Only then, and after a
moment for readers that have just listed the folder, are those deleted. A crash in between leaves
files that are replaced by another: readers ignore them, the next merge deletes them.

    small small small ... + merged-part  ->  merged-part, or merged-full and a new merged-part

A merged file grows with every merge until it is full, then it is left alone. So a merge rewrites
at most one file of FULL bytes a table, whatever the size of the study: the work grows with the
number of trials and the memory does not.
"""

import time
import uuid
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pyarrow as pa

from dsgkd.errors import InputError
from dsgkd.ledger.content import Content, decode, encode
from dsgkd.ledger.schema import ALLOWED, Table
from dsgkd.ledger.table_storage import TableStorage

FULL = 16 * 2**20
"""Bytes of rows in memory (on disk they are fewer) with which a merged file is full."""
PAUSE = 0.1
"""Seconds between writing a merged file and deleting what it replaces."""
TABLES: tuple[Table, ...] = ("trials", "metrics", "predictions")
"""Tables whose files are merged."""

_PREFIX = "merged-"
_PART = f"{_PREFIX}part-"
_AT_A_TIME = 16  # files read ahead: their rows are in memory together


def is_merged(name: str) -> bool:
    """Whether a file of this name came from a merge."""
    return name.startswith(_PREFIX)


def belongs(name: str, sealed: Container[str]) -> bool:
    """Whether a file is one of `<sealed>` and `<sealed>-<split>`."""
    owner, _, split = name.rpartition("-")
    return name in sealed or (split in ALLOWED["split"] and owner in sealed)


class Merger:
    """Merges the files of a ledger; at most one at a time may do so."""

    def __init__(self, storage: TableStorage) -> None:
        self._storage = storage
        self._swept: dict[Table, set[str]] = {table: set() for table in TABLES}

    def merge(self, sealed: set[str]) -> None:
        """Merge the files that belong to these names and will not be written again.

        Raises:
            InputError: the disk is full, or the storage cannot be written; nothing is lost.
        """
        replaced: dict[Table, list[str]] = {}
        for table in TABLES:
            names = self._sweep(table)
            if small := [name for name in names if belongs(name, sealed)]:
                part = [name for name in names if name.startswith(_PART)]
                replaced[table] = self._rewrite(table, part + small)
        if replaced:
            time.sleep(PAUSE)
        for table, names in replaced.items():
            self._storage.delete(table, names)

    def _rewrite(self, table: Table, names: list[str]) -> list[str]:
        """Write these files as one, or as several where it becomes full; return their names."""
        held: dict[str, pa.Table] = {}
        size = 0
        for name, rows in self._rows(table, names):
            if held and size + rows.nbytes > FULL:
                self._write(table, "full", held)
                held, size = {}, 0
            held[name] = rows
            size += rows.nbytes
        self._write(table, "part", held)
        return names

    def _rows(self, table: Table, names: list[str]) -> Iterator[tuple[str, pa.Table]]:
        def load(name: str) -> pa.Table:
            return self._load(table, name).rows

        with ThreadPoolExecutor(8) as pool:
            for start in range(0, len(names), _AT_A_TIME):
                some = names[start : start + _AT_A_TIME]
                yield from zip(some, pool.map(load, some))

    def _write(
        self, table: Table, kind: Literal["part", "full"], held: dict[str, pa.Table]
    ) -> None:
        rows = pa.concat_tables(held.values(), promote_options="default")
        name = f"{_PREFIX}{kind}-{uuid.uuid4().hex}"
        self._storage.write(table, name, encode(rows, list(held)))

    def _sweep(self, table: Table) -> list[str]:
        """Delete what a merge that was cut off has left; return the names of what remains.

        A merged file that is merged again is no longer there to say what it replaced, so this has
        to come first.
        """
        names = self._storage.names(table)
        merged = {name for name in names if is_merged(name)}
        replaced = {
            gone
            for name in merged - self._swept[table]
            for gone in self._load(table, name).replaces
        }
        self._storage.delete(table, replaced.intersection(names))
        self._swept[table] = merged - replaced
        return [name for name in names if name not in replaced]

    def _load(self, table: Table, name: str) -> Content:
        path, data = self._storage.path(table, name), self._storage.read(table, name)
        if data is None:
            raise InputError(
                path, "gone while it was being merged", "let one study at a time write here"
            )
        return decode(path, data)
