"""The classes that the labels make."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsgkd.data._rows import Rows
from dsgkd.data.config import SPLITS
from dsgkd.data.ragged import Array
from dsgkd.errors import InputError

_FEW_CLASSES = 20
"""So many classes are believed of any number of rows."""


def distinct_labels(labels: Sequence[int | str], name: str) -> list[Any]:
    """Return the different labels in sorted order.

    Args:
        labels: the labels of the rows to train on, all of them integers or all strings.
        name: the data, for messages.

    Raises:
        InputError: they cannot be classes.
    """
    distinct: list[Any] = sorted(set(labels))
    if len(distinct) < 2:
        what = "all rows to train on have the same label"
        raise InputError(name, what, "give rows of two classes at least")
    if len(distinct) > max(_FEW_CLASSES, len(labels) // 2):
        what = f"{len(distinct)} different labels in {len(labels)} rows are no classes"
        raise InputError(name, what, "name the column of the labels with --label")
    return distinct


def alike(labels: Sequence[int | str]) -> list[int | str]:
    """Return the labels as they are where all are integers, else all as strings."""
    if any(isinstance(label, str) for label in labels):
        return [str(label) for label in labels]
    return list(labels)


def classes_of(rows: Rows, name: str) -> tuple[Array, tuple[str, ...]]:
    """Return the class of each row and the names of the classes, in sorted order.

    The rows to train on alone say which classes there are and what they are called, so that both
    are the same whatever else is open.

    Raises:
        InputError: the labels are no classes, or another row has one that training never saw.
    """
    training = [row for row, split in enumerate(rows.splits) if split == "train"]
    labels = alike([rows.labels[row] for row in training])
    distinct = distinct_labels(labels, name)
    pairs = set(zip(labels, (rows.label_names[row] for row in training)))
    given = dict(pairs)
    one_to_one = len(pairs) == len(given) == len(set(given.values())) and None not in given.values()
    names = [given[label] if one_to_one else str(label) for label in distinct]
    index = {label: number for number, label in enumerate(distinct)}
    as_text = isinstance(distinct[0], str)
    classes = [index.get(str(label) if as_text else label) for label in rows.labels]
    for split in SPLITS:
        unseen = [row for row, s in enumerate(rows.splits) if s == split and classes[row] is None]
        if unseen:
            what = (
                f"{len(unseen)} rows of '{split}' have a label that is not in 'train', "
                f"the first is {rows.places[unseen[0]]}"
            )
            raise InputError(name, what, "add such rows to 'train' or remove these")
    return np.asarray(classes, np.int64), tuple(map(str, names))
