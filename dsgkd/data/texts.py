"""Texts without labels: those to predict on, and corpora to pre-train on."""

import logging
import sys
from pathlib import Path

import pyarrow as pa

from dsgkd.data._files import TABLES, Columns, decode, parse_csv, read_columns, read_lines
from dsgkd.data._rows import ID_COLUMNS, TEXT_COLUMNS, text_cells
from dsgkd.errors import InputError

_STANDARD_INPUT = "-"
_CORPUS_FILES = (".txt", *(suffix for suffix in TABLES if suffix != ".json"))

_log = logging.getLogger(__name__)


def read_texts(path: str, text: str | None = None) -> pa.Table:
    """Read texts to predict on, from a file or, for `-`, from standard input.

    Standard input is CSV where its first line names a text column, else one text a line. Rows
    without a text are dropped, and their number is logged.

    Returns:
        Columns row int64 (counted from 1 below the header), id string (null without an id column)
        and text string.

    Raises:
        InputError: something cannot be used.
    """
    columns = _standard_input(text) if path == _STANDARD_INPUT else read_columns(Path(path))
    texts = text_cells(columns, columns.require(text, TEXT_COLUMNS, "text"))
    kept = [row for row, cell in enumerate(texts) if cell is not None]
    if not kept:
        raise InputError(
            columns.name, "no row has a text", "check the column of the notes (--text)"
        )
    if len(kept) < len(texts):
        _log.warning("%s: dropped %d rows without a text", columns.name, len(texts) - len(kept))
    id_column = columns.find(None, ID_COLUMNS)
    ids = [None] * len(texts) if id_column is None else columns.values(id_column)
    return pa.table(
        {
            "row": pa.array([row + 1 for row in kept], pa.int64()),
            "id": pa.array([None if ids[r] is None else str(ids[r]) for r in kept], pa.string()),
            "text": pa.array([texts[row] for row in kept], pa.string()),
        }
    )


def read_corpus(path: str) -> list[str]:
    """Read texts to pre-train on: a file, or every file below a folder, in the order of names.

    Of CSV, TSV, Parquet and JSON-lines files the text column is read, of .txt files every line.

    Raises:
        InputError: there is no text, or a file cannot be used.
    """
    return [cell for cell in corpus_cells(path) if cell is not None]


def corpus_cells(path: str, text: str | None = None) -> list[str | None]:
    """Read the texts of a file or folder as `read_corpus`; None where one is blank.

    Args:
        path: the file or folder.
        text: column of the texts; None: found by name.

    Raises:
        InputError: there is no text, or a file cannot be used.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(path, "no such file or folder", "check the path")
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    if root.is_dir():
        files = [f for f in files if f.suffix.lower() in _CORPUS_FILES and f.is_file()]
        files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(root).parts)]
    cells = [cell for file in files for cell in _cells_of(file, text)]
    if not any(cells):
        remedy = f"give files that end in {', '.join(_CORPUS_FILES)}"
        raise InputError(path, "no text in it", remedy)
    return cells


def _cells_of(file: Path, text: str | None) -> list[str | None]:
    if file.suffix.lower() == ".txt":
        return [line if line.strip() else None for line in read_lines(file)]
    columns = read_columns(file)
    return text_cells(columns, columns.require(text, TEXT_COLUMNS, "text"))


def _standard_input(text: str | None) -> Columns:
    name = "standard input"
    content = decode(sys.stdin.buffer.read(), name)
    if not content.strip():
        raise InputError(name, "it is empty", "pipe texts into it, one a line, or a CSV file")
    first, *_ = content.lstrip().splitlines()
    header = Columns(name, {cell.strip(' "'): [] for cell in first.split(",")})
    if text is not None or header.find(None, TEXT_COLUMNS) is not None:
        return parse_csv(content, name)
    return Columns(name, {"text": [line or None for line in content.splitlines()]})
