"""Which notes are there, with which label, in which split, and for whom?"""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsgkd.data._classes import alike, classes_of, distinct_labels
from dsgkd.data._files import TABLES, Columns, decode, of_arrow, parse_csv, read_bytes, read_columns
from dsgkd.data._rows import ID_COLUMNS, SPLITS, TEXT_COLUMNS, Rows, text_cells
from dsgkd.data._splitting import grouped_split, stratified_split
from dsgkd.data._tables import load_rows, table_rows
from dsgkd.data.identity import content_hash, example_ids, group_numbers, keyed
from dsgkd.data.world import WorldConfig, labelled_notes
from dsgkd.errors import InputError

__all__ = ["SEALED", "SPLITS", "DataConfig", "Notes"]
__all__ += ["check_open", "read_corpus", "read_notes", "read_texts"]

SEALED = SPLITS[:2]
"""The splits that are open as long as the test split is sealed."""

_STANDARD_INPUT = "-"
_CORPUS_FILES = (".txt", *(suffix for suffix in TABLES if suffix != ".json"))

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

    def only(self, splits: Sequence[str]) -> "Notes":
        """Return the notes of some splits, just as if the others had never been open."""
        kept = pc.is_in(self.table["split"], pa.array(splits, pa.string()))
        if pc.all(kept).as_py():
            return self
        table = self.table.filter(kept)
        return replace(self, table=table, fingerprint=_fingerprint(self.label_names, table))


def read_notes(
    config: DataConfig,
    id_key: bytes,
    world: WorldConfig = WorldConfig(),  # noqa: B008
    splits: Sequence[str] = SPLITS,
) -> Notes:
    """Read, check and split the notes.

    Of a split that is not open no text and no label is looked at: its files are not opened, or its
    rows are dropped first of all. What is said of the other rows is the same as with all splits
    open: their order, ids, classes, and `Notes.only`. Two things are read of closed rows. The
    patients, where they stand beside the split, because none may be in two. And where the data do
    not say who is in which split, whether there is a text, and the label: for the stratified draw
    and nothing else.

    Args:
        config: where they are.
        id_key: secret of at most 64 bytes, which stays with the data and keys the example and
            group ids; without it an id cannot be traced to a text.
        world: the synthetic world, for an empty path.
        splits: those that are open: the first one, two or three of `SPLITS`.

    Raises:
        InputError: something cannot be used; one line, without any text of a note.
    """
    check_open(splits)
    columns = (config.text, config.label, config.split, config.group, config.id)

    def draw(labels: Sequence[int | str], groups: Sequence[str | None]) -> list[str]:
        return _drawn_splits(labels, groups, config, name)

    if config.path:
        name = Path(config.path).name
        rows = load_rows(Path(config.path), *columns, splits, draw)
    else:
        name = "synthetic world"
        rows = table_rows(of_arrow(labelled_notes(world), name), *columns, splits, draw)
    if not rows:
        raise InputError(name, "no row has a text", "check the column of the notes (--text)")
    _check_ids(rows, name)
    _check_groups(rows, name, given=config.group is not None)
    _check_splits(rows, splits, name)
    classes, label_names = classes_of(rows, name)
    ids = example_ids(id_key, rows.texts, rows.labels, map(SPLITS.index, rows.splits))
    table = pa.table(
        {
            "example_id": pa.array(ids, pa.string()),
            "group_id": pa.array([g and keyed(id_key, g) for g in rows.groups], pa.string()),
            "split": pa.array(rows.splits, pa.string()),
            "label": pa.array(classes, pa.int64()),
            "text": pa.array(rows.texts, pa.string()),
        }
    )
    return Notes(table, label_names, _fingerprint(label_names, table), name)


def check_open(splits: Sequence[str]) -> None:
    """Refuse open splits without those before them: training says which classes there are.

    Raises:
        InputError: `splits` are not the first ones of `SPLITS`.
    """
    if not splits or tuple(splits) != SPLITS[: len(splits)]:
        what = f"'{', '.join(splits)}' cannot be read alone"
        raise InputError("splits", what, f"give the first ones of {', '.join(SPLITS)}")


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


def _drawn_splits(
    labels: Sequence[int | str], groups: Sequence[str | None], config: DataConfig, name: str
) -> list[str]:
    labels = alike(labels)
    index = {label: number for number, label in enumerate(distinct_labels(labels, name))}
    classes = np.asarray([index[label] for label in labels], np.int64)
    shares = [1 - config.validation_share - config.test_share]
    shares += [config.validation_share, config.test_share]
    if any(group is not None for group in groups):
        numbers = np.asarray(group_numbers(groups), np.int64)
        drawn = grouped_split(classes, numbers, shares, config.split_seed, name)
    else:
        drawn = stratified_split(classes, shares, config.split_seed, name)
    return [SPLITS[number] for number in drawn.tolist()]


def _check_groups(rows: Rows, name: str, given: bool) -> None:
    """A group in two splits leaks: an error where the user named the groups, else a warning."""
    placed = {*zip(rows.groups, rows.splits), *rows.closed}
    splits_of = Counter(group for group, _ in placed if group is not None)
    shared = sum(count > 1 for count in splits_of.values())
    if shared and given:
        what = f"{shared} groups are in more than one split"
        raise InputError(name, what, "mend the split column, or leave the split to --split ''")
    if shared:
        _log.warning("%s: %d patients or groups are in more than one split", name, shared)


def _check_splits(rows: Rows, splits: Sequence[str], name: str) -> None:
    for split in splits:
        if split not in rows.splits:
            remedy = f"mark rows as {split}, or leave the split to a seeded draw with --split ''"
            raise InputError(name, f"no rows in the split '{split}'", remedy)


def _fingerprint(label_names: Sequence[str], table: pa.Table) -> str:
    columns = [table[name].to_pylist() for name in ("text", "split", "label")]
    groups = group_numbers(table["group_id"].to_pylist())
    return content_hash([label_names, *zip(*columns, groups)])
