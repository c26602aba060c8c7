"""Labelled notes, each in a split, with their labels and patients."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsgkd.data._classes import alike, classes_of, distinct_labels
from dsgkd.data._files import of_arrow
from dsgkd.data._rows import Rows, text_hashes
from dsgkd.data._splitting import grouped_split, stratified_split
from dsgkd.data._subgroups import subgroup_columns
from dsgkd.data._tables import Wanted, load_rows, table_rows
from dsgkd.data.config import SPLITS, DataConfig, check_open
from dsgkd.data.identity import content_hash, example_ids, group_numbers, keyed, text_hash
from dsgkd.data.world import WorldConfig, labelled_notes
from dsgkd.errors import InputError

_SUBGROUP = "subgroup."
"""In the table, the names of subgroup columns begin with this."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notes:
    """Labelled notes, each in a split."""

    table: pa.Table = field(repr=False)
    """Columns example_id string, group_id string (nullable), split string, label int64 (index into
    `label_names`), text string; then subgroup.<name> string for each column of subgroups."""
    label_names: tuple[str, ...]
    """Name of each class."""
    fingerprint: str
    """SHA-256 of the content, in its order."""
    name: str
    """Short name for messages."""
    held_out: frozenset[str] | None = field(default=None, repr=False)
    """Keyed hashes of the normalised texts in validation and test, closed or open
    (`dsgkd.data.identity.text_hash`); None: not asked for."""

    def only(self, splits: Sequence[str]) -> "Notes":
        """Return the notes of some splits, just as if the others had never been open."""
        kept = pc.is_in(self.table["split"], pa.array(splits, pa.string()))
        if pc.all(kept).as_py():
            return self
        table = self.table.filter(kept)
        return replace(self, table=table, fingerprint=_fingerprint(self.label_names, table))

    @property
    def subgroups(self) -> pa.Table:
        """The category of each note: `[notes, columns of subgroups]` string, named by column."""
        names = [name for name in self.table.column_names if name.startswith(_SUBGROUP)]
        columns = self.table.select(names)
        return columns.rename_columns([name.removeprefix(_SUBGROUP) for name in names])

    def subgroup_counts(self) -> dict[str, dict[str, int]]:
        """Return the number of notes in each category of each column of subgroups."""
        table = self.subgroups
        return {name: dict(Counter(sorted(table[name].to_pylist()))) for name in table.column_names}

    def patients(self) -> dict[str, int | None]:
        """Return the number of patients in each split; None where no patient is known of any note.

        A note without a patient counts as a patient of its own.
        """
        groups, splits = self.table["group_id"].to_pylist(), self.table["split"].to_pylist()
        known = any(group is not None for group in groups)
        pairs = set(zip(splits, group_numbers(groups)))
        counts = Counter(split for split, _ in pairs)
        return {split: counts[split] if known else None for split in SPLITS if split in counts}


def read_notes(
    config: DataConfig,
    id_key: bytes,
    world: WorldConfig = WorldConfig(),  # noqa: B008
    splits: Sequence[str] = SPLITS,
    held_out: bool = False,
) -> Notes:
    """Read, check and split the notes.

    Of a split that is not open no text and no label is looked at: its files are not opened, or its
    rows are dropped first of all. What is said of the other rows is the same as with all splits
    open: their order, ids, classes, subgroups, and `Notes.only`. Three things are read of closed
    rows. The patients, where they stand beside the split, because none may be in two. Where the
    data do not say who is in which split, whether there is a text, and the label: for the
    stratified draw and nothing else. And with `held_out` the texts (also from files that hold
    nothing else, which are opened for it), of which only keyed hashes are kept: they tell whether
    an unlabelled text is one of these, and nothing else.

    Args:
        config: where they are.
        id_key: secret of at most 64 bytes, which stays with the data and keys the example and
            group ids; without it an id cannot be traced to a text.
        world: the synthetic world, for an empty path.
        splits: those that are open: the first one, two or three of `SPLITS`.
        held_out: whether to hash the texts of validation and test, closed or open
            (`Notes.held_out`).

    Raises:
        InputError: something cannot be used; one line, without any text of a note.
    """
    check_open(splits)
    name = Path(config.path).name if config.path else "synthetic world"

    def draw(labels: Sequence[int | str], groups: Sequence[str | None]) -> list[str]:
        return _drawn_splits(labels, groups, config, name)

    hashed = partial(text_hash, id_key)
    wanted = Wanted(config, splits, draw, hashed if held_out else None)
    if config.path:
        rows = load_rows(Path(config.path), wanted)
    else:
        rows = table_rows(of_arrow(labelled_notes(world), name), wanted)
    if not rows:
        raise InputError(name, "no row has a text", "check the column of the notes (--text)")
    _check_ids(rows, name)
    _check_groups(rows, name, given=config.group is not None)
    _check_splits(rows, splits, name)
    classes, label_names = classes_of(rows, name)
    ids = example_ids(id_key, rows.texts, rows.labels, map(SPLITS.index, rows.splits))
    columns = {
        "example_id": pa.array(ids, pa.string()),
        "group_id": pa.array([g and keyed(id_key, g) for g in rows.groups], pa.string()),
        "split": pa.array(rows.splits, pa.string()),
        "label": pa.array(classes, pa.int64()),
        "text": pa.array(rows.texts, pa.string()),
    }
    subgroups = subgroup_columns(rows, config, name)
    table = pa.table(columns | {_SUBGROUP + name: cells for name, cells in subgroups.items()})
    hashes = None
    if held_out:
        texts = [text for text, split in zip(rows.texts, rows.splits) if split != SPLITS[0]]
        hashes = frozenset(rows.closed_texts + text_hashes(texts, hashed))
    return Notes(table, label_names, _fingerprint(label_names, table), name, hashes)


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
        raise InputError(name, what, "repair the split column, or leave the split to --split ''")
    if shared:
        _log.warning("%s: %d patients or groups are in more than one split", name, shared)


def _check_splits(rows: Rows, splits: Sequence[str], name: str) -> None:
    for split in splits:
        if split not in rows.splits:
            remedy = f"mark rows as {split}, or leave the split to a seeded draw with --split ''"
            raise InputError(name, f"no rows in the split '{split}'", remedy)


def _fingerprint(label_names: Sequence[str], table: pa.Table) -> str:
    more = [name for name in table.column_names if name.startswith(_SUBGROUP)]
    columns = [table[name].to_pylist() for name in ("text", "split", "label", *more)]
    groups = group_numbers(table["group_id"].to_pylist())
    return content_hash([label_names, *more, *zip(*columns, groups)])
