"""Which layout do the user's notes have, and which column plays which role in it?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dsgkd.data import _rows as names
from dsgkd.data._files import Columns, of_arrow, read_columns
from dsgkd.data._rows import Draw, Roles, Rows, read_rows, with_drawn_split, without_closed
from dsgkd.errors import InputError

_REFERENCE_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_DATASETS = "dataset_dict.json"
"""Names the splits of a folder that `datasets` saved."""


def load_rows(
    path: Path,
    text: str | None,
    label: str | None,
    split: str | None,
    group: str | None,
    identifier: str | None,
    splits: Sequence[str],
    draw: Draw,
) -> Rows:
    """Read the rows of a file, of the reference's six CSV files, or of a `datasets` folder.

    Files of a closed split are not opened; rows of a closed split are dropped before anything else
    of them is looked at.

    A column given by name must be there; one that is not given is found by name. An empty name for
    the split column means that there is none.

    Args:
        path: where they are.
        text: column of the texts.
        label: column of the labels.
        split: column of the splits.
        group: column of the patients.
        identifier: column of the rows' identifiers.
        splits: those that are open.
        draw: says each row's split where the data do not.

    Raises:
        InputError: the path or something in it cannot be used.
    """
    if not path.exists():
        raise InputError(str(path), "no such file or folder", "check the path")
    if path.is_dir() and (path / "X_train.csv").exists():
        return _reference_rows(path, text, label, group, identifier, splits)
    if path.is_dir():
        # Another split column, or none, overrides the folder's own splits.
        own = split is None or split.strip().lower() == "split"
        columns = _datasets_columns(path, splits if own else names.SPLITS)
    else:
        columns = read_columns(path)
    return table_rows(columns, text, label, split, group, identifier, splits, draw)


def table_rows(
    columns: Columns,
    text: str | None,
    label: str | None,
    split: str | None,
    group: str | None,
    identifier: str | None,
    splits: Sequence[str],
    draw: Draw,
) -> Rows:
    """Read the rows of one table; arguments as for `load_rows`.

    Raises:
        InputError: a column is missing or a cell cannot be used.
    """
    label = columns.require(label, names.LABEL_COLUMNS, "label")
    group = columns.find(group, names.GROUP_COLUMNS)
    identifier = columns.find(identifier, names.ID_COLUMNS)
    roles = Roles(
        text=columns.require(text, names.TEXT_COLUMNS, "text"),
        label=label,
        label_name=_label_name(columns, label),
        split=None if split == "" else columns.find(split, names.SPLIT_COLUMNS),
        group=group,
        id=None if identifier == group else identifier,
    )
    if roles.split is None:
        columns, roles = with_drawn_split(columns, roles, draw)
    columns, closed = without_closed(columns, roles, splits)
    rows = read_rows(columns, columns, roles)
    rows.closed = closed
    return rows


def _reference_rows(
    folder: Path,
    text: str | None,
    label: str | None,
    group: str | None,
    identifier: str | None,
    splits: Sequence[str],
) -> Rows:
    """Read X_train.csv with y_train.csv, and likewise val and test, joined row by row."""
    rows = Rows()
    for suffix, split in _REFERENCE_SPLITS.items():
        if split not in splits:
            continue
        notes = read_columns(folder / f"X_{suffix}.csv")
        answers = read_columns(folder / f"y_{suffix}.csv")
        if len(notes) != len(answers):
            what = f"{len(answers)} rows, but X_{suffix}.csv has {len(notes)}"
            raise InputError(answers.name, what, "give one label for every text, in the same order")
        label_column = answers.require(label, names.LABEL_COLUMNS, "label")
        roles = Roles(
            text=notes.require(text, names.TEXT_COLUMNS, "text"),
            label=label_column,
            label_name=_label_name(answers, label_column),
            group=notes.find(group, names.GROUP_COLUMNS),
            id=notes.find(identifier, names.ID_COLUMNS),
        )
        part = read_rows(notes, answers, roles)
        part.splits = [split] * len(part)
        rows.extend(part)
    return rows


def _label_name(columns: Columns, label: str) -> str | None:
    found = columns.find(None, (f"{label.lower()}_name", "label_name"))
    return None if found == label else found


def _datasets_columns(path: Path, splits: Sequence[str]) -> Columns:
    """Read a folder that `datasets` saved; a dictionary's keys become the split column.

    What a dictionary has under the key of a closed split is not loaded.
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
        tables = [
            _datasets_table(datasets.load_from_disk(str(path / (key or ""))), key) for key in keys
        ]
        table = pa.concat_tables(tables, promote_options="permissive")
    # Whatever a damaged folder makes the package raise may quote what stands in it.
    except Exception:
        what = "not a folder that `datasets` can load"
        raise InputError(str(path), what, "save it again with save_to_disk") from None
    return of_arrow(table, str(path))


def _datasets_table(dataset: Any, split: str | None) -> pa.Table:
    table: pa.Table = dataset.with_format("arrow")[:]
    for column, feature in dataset.features.items():
        named: Sequence[str] | None = getattr(feature, "names", None)
        if named is not None and f"{column}_name" not in table.column_names:
            cells = [None if i is None or i < 0 else named[i] for i in table[column].to_pylist()]
            table = table.append_column(f"{column}_name", pa.array(cells, pa.string()))
    if split is not None:
        if "split" in table.column_names:
            table = table.drop_columns(["split"])
        table = table.append_column("split", pa.array([split] * len(table), pa.string()))
    return table
