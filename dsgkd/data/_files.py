"""What stands in a file of notes? Named columns of cells, or one line saying why not.

The messages of pandas, pyarrow and json quote what they could not read, and that may be a patient's
note; so none of them is passed on.
"""

import io
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dsgkd.errors import InputError

Cells: TypeAlias = pa.ChunkedArray | Sequence[Any]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
TABLES = (*DELIMITERS, *PARQUET, *JSON_LINES)

_MAX_NAMES, _MAX_NAME = 20, 32


@dataclass(frozen=True)
class Columns:
    """The named columns of one file."""

    name: str
    """The file, for messages."""
    cells: dict[str, Cells]
    """The cells of each column, all of one length; missing ones are None."""
    numbers: Sequence[int] | None = None
    """The number of each row in the file, from 0; None: all rows are there."""

    def __len__(self) -> int:
        return len(next(iter(self.cells.values()), ()))

    def find(self, given: str | None, candidates: Sequence[str]) -> str | None:
        """Return the column that is named `given`, or by the first candidate there is.

        Upper and lower case are the same. With neither there is None.

        Raises:
            InputError: there is no column named `given`.
        """
        lowered = {column.strip().lower(): column for column in reversed(self.cells)}
        if given is None:
            return next((lowered[name] for name in candidates if name in lowered), None)
        if given in self.cells:
            return given
        if given.strip().lower() in lowered:
            return lowered[given.strip().lower()]
        what = f"column '{given}' not found (columns: {self.listed()})"
        raise InputError(self.name, what, "name a column that is there")

    def require(self, given: str | None, candidates: Sequence[str], role: str) -> str:
        """Return the column for a role as `find`, which must exist.

        Raises:
            InputError: there is none.
        """
        found = self.find(given, candidates)
        if found is None:
            what = f"no {role} column found (columns: {self.listed()})"
            raise InputError(self.name, what, f"name it with --{role}")
        return found

    def take(self, rows: Sequence[int]) -> "Columns":
        """Return the columns with these rows only, in the file's order; no cell is looked at."""
        mask = np.zeros(len(self), bool)
        mask[list(rows)] = True
        taken: dict[str, Cells] = {
            column: cells.filter(pa.array(mask))
            if isinstance(cells, pa.ChunkedArray)
            else [cells[row] for row in rows]
            for column, cells in self.cells.items()
        }
        return Columns(self.name, taken, [self.number(row) for row in rows])

    def number(self, row: int) -> int:
        """Return the number in the file of a row, from 0."""
        return row if self.numbers is None else self.numbers[row]

    def listed(self) -> str:
        """List the columns; without a header line a name may be a note, so long ones are cut."""
        names = [name if len(name) <= _MAX_NAME else "<long name>" for name in self.cells]
        more = [f"and {len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
        return ", ".join(names[:_MAX_NAMES] + more)

    def values(self, column: str) -> list[Any]:
        """Return the cells of a column as Python values, not-a-number as None."""
        cells = self.cells[column]
        listed = cells.to_pylist() if isinstance(cells, pa.ChunkedArray) else list(cells)
        return [None if isinstance(cell, float) and cell != cell else cell for cell in listed]


def read_columns(path: Path) -> Columns:
    """Read a CSV, TSV, Parquet or JSON-lines file, told apart by its name.

    Raises:
        InputError: there is no such file, it is empty, or it is not what its name says.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        remedy = f"give a file that ends in {', '.join(TABLES)}"
        raise InputError(str(path), f"'{suffix}' files of notes are not known", remedy)
    data = read_bytes(path)
    if suffix in DELIMITERS:
        return parse_csv(decode(data, str(path)), str(path), DELIMITERS[suffix])
    if suffix in PARQUET:
        return _parse_parquet(data, str(path))
    return _parse_json_lines(decode(data, str(path)), str(path))


def read_bytes(path: Path) -> bytes:
    """Read a file that must be there and not be empty.

    Raises:
        InputError: it is not, or it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(str(path), "no such file", "check the path") from None
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise InputError(str(path), reason, "check the path and its permissions") from None
    if not data:
        raise InputError(str(path), "the file is empty", "give a file with notes in it")
    return data


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Raises:
        InputError: it is another encoding; which, where that can be told.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    what = f"line {line} is not UTF-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        what += " (the file is UTF-16)"
    elif _reads_as_cp949(data):
        what += " (it reads as CP949, the encoding of Korean Windows)"
    raise InputError(name, what, "save the file as UTF-8 (in Excel: 'CSV UTF-8')")


def parse_csv(text: str, name: str, delimiter: str = ",") -> Columns:
    """Parse CSV with a header line. Every cell is text; only an empty one is missing.

    Raises:
        InputError: there are no rows, or one has more cells than the header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text),
                sep=delimiter,
                dtype=str,
                keep_default_na=False,  # "NA" is a text and may be a label
                na_values=[""],
                index_col=False,
            )
    except pd.errors.EmptyDataError:
        raise InputError(name, "the file is empty", "give a file with notes in it") from None
    except pd.errors.ParserWarning:
        what = "a row has more cells than the header"
        raise InputError(name, what, "put texts that contain the delimiter in quotes") from None
    except (pd.errors.ParserError, ValueError) as error:
        place = re.search(r"\b(?:line|row) (\d+)", str(error))
        what = f"not valid CSV{f' at line {place[1]}' if place else ''}"
        remedy = "put texts that contain the delimiter in quotes, and close every quote"
        raise InputError(name, what, remedy) from None
    if frame.empty:
        raise InputError(name, "a header but no rows", "give a file with notes in it")
    frame = frame.astype(object).where(frame.notna(), None)
    return Columns(name, {str(column): frame[column].tolist() for column in frame})


def _parse_parquet(data: bytes, name: str) -> Columns:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        remedy = "write the file again, or give CSV or JSON lines"
        raise InputError(name, "not a valid Parquet file", remedy) from None
    if not table.num_rows:
        raise InputError(name, "no rows", "give a file with notes in it")
    return of_arrow(table, name)


def of_arrow(table: pa.Table, name: str) -> Columns:
    """View the columns of an Arrow table."""
    return Columns(name, dict(zip(table.column_names, table.columns)))


def _parse_json_lines(text: str, name: str) -> Columns:
    rows = list(_json_objects(text, name))
    if not rows:
        raise InputError(name, "no rows", "give a file with notes in it")
    keys = dict.fromkeys(key for row in rows for key in row)
    return Columns(name, {key: [row.get(key) for row in rows] for key in keys})


def _json_objects(text: str, name: str) -> Iterator[dict[str, Any]]:
    # Not splitlines(), which also splits at separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            what = f"line {number} is not a JSON object"
            raise InputError(name, what, "write one {...} a line (JSON lines)")
        yield row


def _reads_as_cp949(data: bytes) -> bool:
    try:
        data.decode("cp949")
    except UnicodeDecodeError:
        return False
    return True
