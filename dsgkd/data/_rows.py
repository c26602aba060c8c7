"""Rows of the user's columns, checked cell by cell.

A message gives a count and the first row, counted from 1 below the header; never a cell.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from dsgkd.data._files import Columns
from dsgkd.data.identity import well_formed
from dsgkd.errors import InputError

TEXT_COLUMNS = (
    *("text", "note", "notes", "er_dhx", "chief_complaint", "sentence", "document", "report"),
    *("content", "description"),
)
LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "y")
SPLIT_COLUMNS = ("split", "subset", "partition")
GROUP_COLUMNS = ("patient", "patient_id", "subject", "subject_id", "group", "group_id")
ID_COLUMNS = ("id", "example_id", "note_id", "row_id")

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)(\.0+)?")

_DRAWN = "drawn split"

Draw: TypeAlias = Callable[[Sequence[int | str], Sequence[str | None]], Sequence[str]]
"""Says the split of each row, given its label and its group."""
TextHash: TypeAlias = Callable[[str], str]
"""Hashes a text, so that it can be recognised and not read."""

_log = logging.getLogger(__name__)


@dataclass
class Rows:
    """Rows with a text and a label, from one file or several; columns not there hold None."""

    texts: list[str] = field(default_factory=list)
    labels: list[int | str] = field(default_factory=list)
    label_names: list[str | None] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    subgroups: list[tuple[str | None, ...]] = field(default_factory=list)
    """The category of each row in each column of subgroups."""
    places: list[str] = field(default_factory=list)
    """The file and the row in it, for messages."""
    closed: list[tuple[str | None, str]] = field(default_factory=list)
    """Group and split of each row that was not read, because its split is closed."""
    closed_texts: list[str] = field(default_factory=list)
    """The hashes of the texts of these rows, where they were asked for."""

    def __len__(self) -> int:
        return len(self.texts)

    def extend(self, other: "Rows") -> None:
        """Append the rows of another."""
        for each in fields(self):
            getattr(self, each.name).extend(getattr(other, each.name))


@dataclass(frozen=True)
class Roles:
    """The name of the column for each role; None where there is no such column."""

    text: str
    label: str
    label_name: str | None = None
    split: str | None = None
    group: str | None = None
    id: str | None = None
    subgroups: tuple[str, ...] = ()

    def check_distinct(self, name: str, *besides: str) -> None:
        """Refuse one column in two roles.

        Args:
            name: the file, for messages.
            besides: roles that another file plays.

        Raises:
            InputError: a column has two roles.
        """
        roles = {role: getattr(self, role) for role in ("text", "label", "split", "group", "id")}
        taken: dict[str, str] = {}
        pairs = [(column, role) for role, column in roles.items() if role not in besides and column]
        for column, role in [*pairs, *((column, "subgroup") for column in self.subgroups)]:
            if column in taken:
                what = f"column '{column}' is given as {taken[column]} and as {role}"
                remedy = f"name another one with --{taken[column]} or --{role}"
                raise InputError(name, what, remedy)
            taken[column] = role


def without_closed(
    columns: Columns, roles: Roles, splits: Sequence[str], text_hash: TextHash | None
) -> tuple[Columns, Rows]:
    """Drop the rows of splits that are not open.

    Only their split and group are looked at, and their text by `text_hash` where there is one.

    Returns:
        The columns with the other rows (those of an unknown split among them, to be refused
        later), and rows of which only what is known of the closed ones is there.
    """
    if roles.split is None:
        return columns, Rows()
    found = [known_split(cell) for cell in columns.values(roles.split)]
    closed = {row: s for row, s in enumerate(found) if s and s not in splits}
    if not closed:
        return columns, Rows()
    groups = [None] * len(found) if roles.group is None else columns.values(roles.group)
    known = Rows(closed=[(_name(groups[row]), s) for row, s in closed.items()])
    if text_hash is not None:
        texts = columns.values(roles.text)
        known.closed_texts = text_hashes((texts[row] for row in closed), text_hash)
    return columns.take([row for row in range(len(found)) if row not in closed]), known


def text_hashes(cells: Iterable[Any], text_hash: TextHash) -> list[str]:
    """Hash the cells that are texts; the others are not noticed."""
    return [text_hash(cell) for cell in cells if isinstance(cell, str) and not _blank(cell)]


def with_drawn_split(columns: Columns, roles: Roles, draw: Draw) -> tuple[Columns, Roles]:
    """Add a column with a drawn split, which is empty where there is no text.

    Of a row whose split turns out to be closed, nothing is used but this: whether there is a text,
    and its label and group, for the draw alone.

    Raises:
        InputError: a label cannot be used, or the rows cannot be split.
    """
    present = [row for row, cell in enumerate(columns.values(roles.text)) if not _blank(cell)]
    splits: list[str | None] = [None] * len(columns)
    if present:
        labels = columns.values(roles.label)
        labels = _checked(columns, roles.label, [labels[row] for row in present], present, _label)
        groups = [None] * len(columns) if roles.group is None else columns.values(roles.group)
        for row, split in zip(present, draw(labels, [_name(groups[row]) for row in present])):
            splits[row] = split
    return (
        Columns(columns.name, columns.cells | {_DRAWN: splits}, columns.numbers),
        replace(roles, split=_DRAWN),
    )


def read_rows(notes: Columns, answers: Columns, roles: Roles) -> Rows:
    """Check and normalise the rows of one file, or of a file of texts and one of labels.

    Rows without a text are dropped, and their number is logged.

    Raises:
        InputError: a cell cannot be used.
    """
    texts = text_cells(notes, roles.text)
    kept = [row for row, text in enumerate(texts) if text is not None]
    if len(kept) < len(texts):
        _log.warning(
            "%s: dropped %d of %d rows, which have no text in column '%s'",
            *(notes.name, len(texts) - len(kept), len(texts), roles.text),
        )

    def cells(columns: Columns, column: str | None) -> list[Any]:
        if column is None:
            return [None] * len(kept)
        values = columns.values(column)
        return [values[row] for row in kept]

    labels = _checked(answers, roles.label, cells(answers, roles.label), kept, _label)
    splits = cells(notes, roles.split)
    if roles.split is not None:
        splits = _checked(notes, roles.split, splits, kept, _split)
    categories = [
        _checked(notes, column, cells(notes, column), kept, _category) for column in roles.subgroups
    ]
    return Rows(
        texts=[texts[row] or "" for row in kept],
        labels=labels,
        label_names=[_name(cell) for cell in cells(answers, roles.label_name)],
        splits=splits,
        groups=[_name(cell) for cell in cells(notes, roles.group)],
        ids=[_name(cell) for cell in cells(notes, roles.id)],
        subgroups=list(zip(*categories)) if categories else [()] * len(kept),
        places=[f"row {notes.number(row) + 1} of {notes.name}" for row in kept],
    )


def text_cells(columns: Columns, column: str) -> list[str | None]:
    """Return the texts of a column; blank ones are None.

    Raises:
        InputError: a cell is not text.
    """
    cells = columns.values(column)
    wrong = [row for row, cell in enumerate(cells) if not isinstance(cell, str | None)]
    if wrong:
        kinds = sorted({type(cells[row]).__name__ for row in wrong})
        what = (
            f"column '{column}' has {len(wrong)} cells that are not text "
            f"({', '.join(kinds)}), the first in row {columns.number(wrong[0]) + 1}"
        )
        raise InputError(columns.name, what, "name the column of the notes with --text")
    return [None if _blank(cell) else well_formed(cell) for cell in cells]


def _blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


class _Unusable(Exception):
    """A cell cannot be used; says what is wrong with it and what to do."""


def _checked(
    columns: Columns,
    column: str,
    cells: Sequence[Any],
    rows: Sequence[int],
    parse: Callable[[Any], Any],
) -> list[Any]:
    """Parse every cell; the error counts all cells that fail as the first one does."""
    parsed: list[Any] = []
    failed: list[tuple[int, tuple[str, str]]] = []
    for row, cell in zip(rows, cells):
        try:
            parsed.append(parse(cell))
        except _Unusable as error:
            failed.append((row, error.args))
    if failed:
        first, (problem, remedy) = failed[0]
        count = sum(reason == (problem, remedy) for _, reason in failed)
        place = columns.number(first) + 1
        what = f"column '{column}' {problem} in {count} rows, the first is row {place}"
        raise InputError(columns.name, what, remedy)
    return parsed


def _label(cell: Any) -> int | str:
    """Normalise a label; whole numbers are integers however they are spelled."""
    if isinstance(cell, str):
        cell = cell.strip()
    if cell is None or cell == "":
        raise _Unusable("is empty", "fill in the labels or remove those rows")
    if isinstance(cell, bool):
        return str(cell)
    if not isinstance(cell, int | float | str):
        kind = type(cell).__name__
        raise _Unusable(f"holds {kind} values", "name the column of the labels with --label")
    if isinstance(cell, float) and not cell.is_integer():
        raise _Unusable("holds decimals", "use whole numbers or names as labels")
    if isinstance(cell, str):
        return int(float(cell)) if _WHOLE.fullmatch(cell) else cell
    return int(cell)


def known_split(cell: Any) -> str | None:
    """Return the split that a cell names, or None."""
    return _SPLIT_NAMES.get(cell.strip().lower()) if isinstance(cell, str) else None


def _split(cell: Any) -> str:
    known = known_split(cell)
    if known is None:
        problem = "is empty" if cell is None else "holds an unknown split"
        raise _Unusable(problem, "use train, validation or test (or val, valid, dev)")
    return known


def _category(cell: Any) -> str | None:
    if isinstance(cell, list | dict | bytes):
        kind = type(cell).__name__
        raise _Unusable(f"holds {kind} values", "name a column of categories with --subgroup")
    name = _name(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)
    return name and well_formed(" ".join(name.split()))


def _name(cell: Any) -> str | None:
    return None if cell is None or str(cell).strip() == "" else str(cell).strip()
