"""Which notes are there, with which label, in which split, and for whom?"""

import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dsgkd.errors import InputError
from dsgkd.text._files import TABLES, Columns, decode, of_arrow, parse_csv, read_bytes, read_columns
from dsgkd.text._ragged import Array
from dsgkd.text._rows import ID_COLUMNS, SPLITS, TEXT_COLUMNS, Rows, text_cells
from dsgkd.text._splitting import grouped_split, stratified_split
from dsgkd.text._tables import load_rows, table_rows
from dsgkd.text.world import WorldConfig, labelled_notes

__all__ = ["SPLITS", "DataConfig", "Notes", "read_corpus", "read_notes", "read_texts"]

_STANDARD_INPUT = "-"
_CORPUS_FILES = (".txt", *(suffix for suffix in TABLES if suffix != ".json"))
_FEW_CLASSES = 20
"""So many classes are believed of any number of rows."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataConfig:
    """Where the notes are, what their columns are called, and how they are split."""

    path: str = ""
    """A CSV, TSV, Parquet or JSON-lines file, a folder with the six CSV files X_train.csv,
    y_train.csv and likewise val and test, or a folder saved by `datasets`; empty: the embedded
    synthetic world."""
    text: str | None = None
    """Column of the notes; None: found by name (text, note, ER_DHX, ...)."""
    label: str | None = None
    """Column of the labels; None: found by name (label, class, target, ...)."""
    split: str | None = None
    """Column of the splits; None: found by name (split, subset, ...), and where there is none, or
    for an empty name, a seeded stratified split."""
    group: str | None = None
    """Column of the patients, none of whom may be in two splits; None: found by name (patient,
    patient_id, ...)."""
    id: str | None = None
    """Column of the rows' identifiers, which must differ; None: found by name (id, ...)."""
    validation_share: float = 0.15
    """Share of the rows that a seeded split puts into validation."""
    test_share: float = 0.15
    """Share of the rows that a seeded split puts into test."""
    split_seed: int = 17
    """Seed of the seeded split."""

    def __post_init__(self) -> None:
        shares = (self.validation_share, self.test_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            what = f"{shares[0]} and {shares[1]} leave a split without rows"
            raise InputError("validation_share, test_share", what, "use shares such as 0.15, 0.15")


@dataclass(frozen=True)
class Notes:
    """Labelled notes, each in a split."""

    table: pa.Table = field(repr=False)
    """Columns example_id string, group_id string (nullable), split string, label int64 (index into
    `label_names`), text string."""
    label_names: tuple[str, ...]
    """Name of each class."""
    fingerprint: str
    """SHA-256 of the content, in its order."""
    name: str
    """Short name for messages."""


def read_notes(config: DataConfig, id_key: bytes, world: WorldConfig = WorldConfig()) -> Notes:  # noqa: B008
    """Read, check and split the notes.

    Args:
        config: where they are.
        id_key: secret of at most 64 bytes, which stays with the data and keys the example and
            group ids; without it an id cannot be traced to a text.
        world: the synthetic world, for an empty path.

    Raises:
        InputError: something cannot be used; one line, without any text of a note.
    """
    columns = (config.text, config.label, config.split, config.group, config.id)
    if config.path:
        name = Path(config.path).name
        rows = load_rows(Path(config.path), *columns)
    else:
        name = "synthetic world"
        rows = table_rows(of_arrow(labelled_notes(world), name), *columns)
    if not rows:
        raise InputError(name, "no row has a text", "check the column of the notes (--text)")
    _check_ids(rows, name)
    classes, label_names = _classes(rows, name)
    groups = _group_numbers(rows)
    if rows.splits[0] is None:
        splits = _drawn_splits(rows, classes, groups, config, name)
    else:
        splits = np.asarray(rows.splits, dtype=str)
        _check_groups(splits, groups, name, given=config.group is not None)
    _check_splits(classes, splits, rows, name)
    table = pa.table(
        {
            "example_id": pa.array(_example_ids(rows, id_key), pa.string()),
            "group_id": pa.array([g and _keyed(id_key, g) for g in rows.groups], pa.string()),
            "split": pa.array(splits.tolist(), pa.string()),
            "label": pa.array(classes, pa.int64()),
            "text": pa.array(rows.texts, pa.string()),
        }
    )
    content = zip(rows.texts, splits.tolist(), classes.tolist(), groups.tolist())
    return Notes(table, label_names, _fingerprint([label_names, *content]), name)


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
    root = Path(path)
    if not root.exists():
        raise InputError(path, "no such file or folder", "check the path")
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    if root.is_dir():
        files = [f for f in files if f.suffix.lower() in _CORPUS_FILES and f.is_file()]
        files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(root).parts)]
    texts = [text for file in files for text in _corpus_texts(file)]
    if not texts:
        remedy = f"give files that end in {', '.join(_CORPUS_FILES)}"
        raise InputError(path, "no text in it", remedy)
    return texts


def _corpus_texts(file: Path) -> list[str]:
    if file.suffix.lower() == ".txt":
        lines = decode(read_bytes(file), str(file)).splitlines()
        return [line for line in lines if line.strip()]
    columns = read_columns(file)
    texts = text_cells(columns, columns.require(None, TEXT_COLUMNS, "text"))
    return [text for text in texts if text is not None]


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


def _check_ids(rows: Rows, name: str) -> None:
    first: dict[str, int] = {}
    repeated = [
        row
        for row, identifier in enumerate(rows.ids)
        if identifier is not None and first.setdefault(identifier, row) != row
    ]
    if repeated:
        what = f"{len(repeated)} ids repeat earlier ones, the first in {rows.places[repeated[0]]}"
        remedy = "remove the duplicates, or name the right columns with --id and --group"
        raise InputError(name, what, remedy)


def _classes(rows: Rows, name: str) -> tuple[Array, tuple[str, ...]]:
    """Return the class of each row and the names of the classes, in sorted order."""
    labels = rows.labels
    if any(isinstance(label, str) for label in labels):
        labels = [str(label) for label in labels]
    # All are integers now, or all are strings.
    distinct: list[Any] = sorted(set(labels))
    if len(distinct) < 2:
        what = "all rows have the same label"
        raise InputError(name, what, "give rows of two classes at least")
    if len(distinct) > max(_FEW_CLASSES, len(rows) // 2):
        what = f"{len(distinct)} different labels in {len(rows)} rows are no classes"
        raise InputError(name, what, "name the column of the labels with --label")
    index = {label: number for number, label in enumerate(distinct)}
    pairs = set(zip(labels, rows.label_names))
    given = dict(pairs)
    one_to_one = len(pairs) == len(given) == len(set(given.values())) and None not in given.values()
    names = [given[label] if one_to_one else str(label) for label in distinct]
    return np.asarray([index[label] for label in labels], np.int64), tuple(map(str, names))


def _group_numbers(rows: Rows) -> Array:
    """Number the groups in the order of appearance; a row without one is a group of its own."""
    numbers: dict[object, int] = {}
    keys: list[object] = [row if g is None else g for row, g in enumerate(rows.groups)]
    return np.asarray([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _drawn_splits(
    rows: Rows, classes: Array, groups: Array, config: DataConfig, name: str
) -> Array:
    shares = [1 - config.validation_share - config.test_share]
    shares += [config.validation_share, config.test_share]
    if any(group is not None for group in rows.groups):
        drawn = grouped_split(classes, groups, shares, config.split_seed, name)
    else:
        drawn = stratified_split(classes, shares, config.split_seed, name)
    return np.asarray(SPLITS)[drawn]


def _check_groups(splits: Array, groups: Array, name: str, given: bool) -> None:
    """A group in two splits leaks: an error where the user named the groups, else a warning."""
    splits_of = Counter(group for group, _ in set(zip(groups.tolist(), splits.tolist())))
    shared = sum(count > 1 for count in splits_of.values())
    if shared and given:
        what = f"{shared} groups are in more than one split"
        raise InputError(name, what, "mend the split column, or leave the split to --split ''")
    if shared:
        _log.warning("%s: %d patients or groups are in more than one split", name, shared)


def _check_splits(classes: Array, splits: Array, rows: Rows, name: str) -> None:
    trained = set(classes[splits == "train"].tolist())
    for split in SPLITS:
        inside = np.flatnonzero(splits == split)
        if not len(inside):
            remedy = f"mark rows as {split}, or leave the split to a seeded draw with --split ''"
            raise InputError(name, f"no rows in the split '{split}'", remedy)
        unseen = [row for row in inside.tolist() if int(classes[row]) not in trained]
        if unseen:
            what = (
                f"{len(unseen)} rows of '{split}' have a label that is not in 'train', "
                f"the first is {rows.places[unseen[0]]}"
            )
            raise InputError(name, what, "add such rows to 'train' or remove these")


def _example_ids(rows: Rows, id_key: bytes) -> list[str]:
    """Name each row after its content; the running number tells equal rows apart."""
    seen: Counter[tuple[str, int | str]] = Counter()
    ids = []
    for row in zip(rows.texts, rows.labels):
        seen[row] += 1
        ids.append(_keyed(id_key, json.dumps([*row, seen[row]])))
    return ids


def _keyed(key: bytes, content: str) -> str:
    return hashlib.blake2b(content.encode(), key=key, digest_size=16).hexdigest()


def _fingerprint(content: Sequence[object]) -> str:
    digest = hashlib.sha256()
    for row in content:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
