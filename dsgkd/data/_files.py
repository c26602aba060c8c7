"""Files of notes, read as named columns of cells.

The messages of pandas, pyarrow and json quote what they could not read, and that may be a patient's
note; so none of them is passed on.
"""

import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
            InputError: there is no column named `given`, or two differ in case only.
        """
        if given in self.cells:
            return given
        lowered = [column.strip().lower() for column in self.cells]
        wanted = candidates if given is None else [given.strip().lower()]
        found = next((name for name in wanted if name in lowered), None)
        if found is None and given is not None:
            what = f"column '{given}' not found (columns: {self.listed()})"
            raise InputError(self.name, what, "name a column that is there")
        if found is not None and lowered.count(found) > 1:
            what = f"two columns are named '{found}' but for their case"
            raise InputError(self.name, what, "rename one of them")
        return None if found is None else list(self.cells)[lowered.index(found)]

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
        names = [_shown(name) for name in self.cells]
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


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file.

    Raises:
        InputError: it is not there, empty, or not UTF-8.
    """
    return decode(read_bytes(path), str(path)).splitlines()


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
    options: dict[str, Any] = {
        **{"sep": delimiter, "dtype": str, "index_col": False},
        **{"keep_default_na": False, "na_values": [""]},  # "NA" is a text and may be a label
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(io.StringIO(text), **options)
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
    # pandas renames a repeated column; what it was called is in the first line alone.
    header = pd.read_csv(io.StringIO(text), header=None, nrows=1, **options)
    _check_names(header.iloc[0].dropna(), name)
    frame = frame.astype(object).where(frame.notna(), None)
    return Columns(name, {str(column): frame[column].tolist() for column in frame})


def _parse_parquet(data: bytes, name: str) -> Columns:
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError):
        remedy = "write the file again, or give CSV or JSON lines"
        raise InputError(name, "not a valid Parquet file", remedy) from None
    if not table.num_rows:
        raise InputError(name, "no rows", "give a file with notes in it")
    return of_arrow(table, name)


def of_arrow(table: pa.Table, name: str) -> Columns:
    """View the columns of an Arrow table.

    Raises:
        InputError: two columns have the same name.
    """
    _check_names(table.column_names, name)
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
            row = json.loads(line, object_pairs_hook=lambda pairs: _object(pairs, name))
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            what = f"line {number} is not a JSON object"
            raise InputError(name, what, "write one {...} a line (JSON lines)")
        yield row


def _object(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    _check_names([key for key, _ in pairs], name)
    return dict(pairs)


def _check_names(names: Iterable[str], name: str) -> None:
    """Refuse two columns of one name, of which nobody could say which one is meant."""
    repeated = [column for column, count in Counter(names).items() if count > 1]
    if repeated:
        what = f"two columns are named '{_shown(repeated[0])}'"
        raise InputError(name, what, "rename one of them, or add the missing header line")


def _shown(column: str) -> str:
    return column if len(column) <= _MAX_NAME else "<long name>"


def _reads_as_cp949(data: bytes) -> bool:
    try:
        data.decode("cp949")
    except UnicodeDecodeError:
        return False
    return True
