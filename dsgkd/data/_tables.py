"""The layouts that notes come in, and which column plays which role in them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dsgkd.data import _rows as names
from dsgkd.data._files import Columns, of_arrow, read_columns
from dsgkd.data._rows import (
    Draw,
    Roles,
    Rows,
    TextHash,
    read_rows,
    text_hashes,
    with_drawn_split,
    without_closed,
)
from dsgkd.data.config import SPLITS, DataConfig
from dsgkd.errors import InputError

_REFERENCE_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_DATASETS = "dataset_dict.json"
"""Names the splits of a folder that `datasets` saved."""


@dataclass(frozen=True)
class Wanted:
    """What is read of the user's files."""

    columns: DataConfig
    """The names of the columns. One that is given must be there; one that is not is found by name.
    An empty name for the split column means that there is none."""
    splits: Sequence[str]
    """Those that are open."""
    draw: Draw
    """Says each row's split where the data do not."""
    text_hash: TextHash | None = None
    """Hashes the texts of closed rows; None: they are not looked at."""


def load_rows(path: Path, wanted: Wanted) -> Rows:
    """Read the rows of a file, of the reference's six CSV files, or of a `datasets` folder.

    Files of a closed split are not opened; rows of a closed split are dropped before anything else
    of them is looked at. Where their texts are to be hashed, these alone are read.

    Raises:
        InputError: the path or something in it cannot be used.
    """
    if not path.exists():
        raise InputError(str(path), "no such file or folder", "check the path")
    if path.is_dir() and (path / "X_train.csv").exists():
        return _reference_rows(path, wanted)
    if not path.is_dir():
        return table_rows(read_columns(path), wanted)
    # Another split column, or none, overrides the folder's own splits.
    split = wanted.columns.split
    own = split is None or split.strip().lower() == "split"
    opened = wanted.splits if own else SPLITS
    columns = _datasets_columns(path, opened)
    rows = table_rows(columns, wanted)
    closed = [split for split in SPLITS if split not in opened]
    if wanted.text_hash and closed and (path / _DATASETS).exists():
        text = columns.require(wanted.columns.text, names.TEXT_COLUMNS, "text")
        texts = _datasets_columns(path, closed, text).values(text)
        rows.closed_texts += text_hashes(texts, wanted.text_hash)
    return rows


def table_rows(columns: Columns, wanted: Wanted) -> Rows:
    """Read the rows of one table.

    Raises:
        InputError: a column is missing or has two roles, or a cell cannot be used.
    """
    roles, split = _roles(columns, columns, wanted.columns), wanted.columns.split
    if split != "":
        roles = replace(roles, split=columns.find(split, names.SPLIT_COLUMNS))
    roles.check_distinct(columns.name)
    if roles.split is None:
        columns, roles = with_drawn_split(columns, roles, wanted.draw)
    columns, rows = without_closed(columns, roles, wanted.splits, wanted.text_hash)
    rows.extend(read_rows(columns, columns, roles))
    return rows


def _reference_rows(folder: Path, wanted: Wanted) -> Rows:
    """Read X_train.csv with y_train.csv, and likewise val and test, joined row by row."""
    rows = Rows()
    for suffix, split in _REFERENCE_SPLITS.items():
        opened = split in wanted.splits
        if not opened and wanted.text_hash is None:
            continue
        notes = read_columns(folder / f"X_{suffix}.csv")
        if not opened and wanted.text_hash is not None:
            text = notes.require(wanted.columns.text, names.TEXT_COLUMNS, "text")
            rows.closed_texts += text_hashes(notes.values(text), wanted.text_hash)
            continue
        answers = read_columns(folder / f"y_{suffix}.csv")
        if len(notes) != len(answers):
            what = f"{len(answers)} rows, but X_{suffix}.csv has {len(notes)}"
            raise InputError(answers.name, what, "give one label for every text, in the same order")
        roles = _roles(notes, answers, wanted.columns)
        roles.check_distinct(notes.name, "label")
        part = read_rows(notes, answers, roles)
        part.splits = [split] * len(part)
        rows.extend(part)
    return rows


def _roles(notes: Columns, answers: Columns, given: DataConfig) -> Roles:
    """Find the columns, but for the split, of one file or of a file of texts and one of labels."""
    text = notes.require(given.text, names.TEXT_COLUMNS, "text")
    label = answers.require(given.label, names.LABEL_COLUMNS, "label")
    label_name = answers.find(None, (f"{label.lower()}_name", "label_name"))
    # A label may well be called "group"; it is not taken for the patients then.
    taken = [name.strip().lower() for name in (given.text, given.label, given.split) if name]
    group = notes.find(given.group, [name for name in names.GROUP_COLUMNS if name not in taken])
    identifier = notes.find(given.id, [name for name in names.ID_COLUMNS if name not in taken])
    return Roles(
        text=text,
        label=label,
        label_name=None if label_name == label else label_name,
        group=group,
        id=None if identifier == group else identifier,
        subgroups=tuple(notes.require(name, (), "subgroup") for name in given.subgroups),
    )


def _datasets_columns(path: Path, splits: Sequence[str], column: str | None = None) -> Columns:
    """Read a folder that `datasets` saved; a dictionary's keys become the split column.

    What a dictionary has under the key of another split is not loaded.

    Args:
        path: the folder.
        splits: those to load.
        column: the one column to load; None: all of them.
    """
    if not any((path / name).exists() for name in (_DATASETS, "state.json")):
        what = "neither X_train.csv nor a saved `datasets` folder is in it"
        raise InputError(str(path), what, "give a file, or a folder of one of these two kinds")
    try:
        import datasets
    except ImportError:
        what = "reading it needs the package `datasets`"
        raise InputError(str(path), what, "pip install datasets, or give a Parquet file") from None
    try:
        keys: list[str | None] = [None]
        if (path / _DATASETS).exists():
            keys = json.loads((path / _DATASETS).read_text(encoding="utf-8"))["splits"]
            # A key that names no split is kept, to be refused like any other unknown split.
            keys = [key for key in keys if (names.known_split(key) or splits[0]) in splits]
        if column is not None and not keys:
            return Columns(str(path), {column: []})
        tables = [
            _datasets_table(datasets.load_from_disk(str(path / (key or ""))), key, column)
            for key in keys
        ]
        table = pa.concat_tables(tables, promote_options="permissive")
    # Whatever a damaged folder makes the package raise may quote what stands in it.
    except Exception:
        what = "not a folder that `datasets` can load"
        raise InputError(str(path), what, "save it again with save_to_disk") from None
    return of_arrow(table, str(path))


def _datasets_table(dataset: Any, split: str | None, column: str | None) -> pa.Table:
    dataset = dataset if column is None else dataset.select_columns([column])
    table: pa.Table = dataset.with_format("arrow")[:]
    for name, feature in dataset.features.items():
        named: Sequence[str] | None = getattr(feature, "names", None)
        if named is not None and f"{name}_name" not in table.column_names:
            cells = [None if i is None or i < 0 else named[i] for i in table[name].to_pylist()]
            table = table.append_column(f"{name}_name", pa.array(cells, pa.string()))
    if split is not None:
        if "split" in table.column_names:
            table = table.drop_columns(["split"])
        table = table.append_column("split", pa.array([split] * len(table), pa.string()))
    return table
