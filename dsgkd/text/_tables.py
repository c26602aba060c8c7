"""Which layout do the user's notes have, and which column plays which role in it?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dsgkd.errors import InputError
from dsgkd.text import _rows as names
from dsgkd.text._files import Columns, of_arrow, read_columns
from dsgkd.text._rows import Roles, Rows, read_rows

_REFERENCE_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def load_rows(
    path: Path,
    text: str | None,
    label: str | None,
    split: str | None,
    group: str | None,
    identifier: str | None,
) -> Rows:
    """Read the rows of a file, of the reference's six CSV files, or of a `datasets` folder.

    A column given by name must be there; one that is not given is found by name. An empty name for
    the split column means that there is none.

    Raises:
        InputError: the path or something in it cannot be used.
    """
    if not path.exists():
        raise InputError(str(path), "no such file or folder", "check the path")
    if path.is_dir() and (path / "X_train.csv").exists():
        return _reference_rows(path, text, label, group, identifier)
    columns = _datasets_columns(path) if path.is_dir() else read_columns(path)
    return table_rows(columns, text, label, split, group, identifier)


def table_rows(
    columns: Columns,
    text: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    identifier: str | None = None,
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
    return read_rows(columns, columns, roles)


def _reference_rows(
    folder: Path, text: str | None, label: str | None, group: str | None, identifier: str | None
) -> Rows:
    """Read X_train.csv with y_train.csv, and likewise val and test, joined row by row."""
    rows = Rows()
    for suffix, split in _REFERENCE_SPLITS.items():
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


def _datasets_columns(path: Path) -> Columns:
    """Read a folder that `datasets` saved; a dictionary's keys become the split column."""
    if not any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        what = "neither X_train.csv nor a saved `datasets` folder is in it"
        raise InputError(str(path), what, "give a file, or a folder of one of these two kinds")
    try:
        import datasets
    except ImportError:
        what = "reading it needs the package `datasets`"
        raise InputError(str(path), what, "pip install datasets, or give a Parquet file") from None
    try:
        saved = datasets.load_from_disk(str(path))
        parts = saved if isinstance(saved, datasets.DatasetDict) else {None: saved}
        tables = [_datasets_table(part, split) for split, part in parts.items()]
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
