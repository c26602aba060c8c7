"""Seeded splits of rows, by class and by patient, for data that bring none."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import train_test_split

from dsgkd.data.ragged import Array
from dsgkd.errors import InputError


def stratified_split(classes: Array, shares: Sequence[float], seed: int, name: str) -> Array:
    """Assign each row to a split, with about equal label shares in all.

    Args:
        classes: the class of each row: `[rows]` int64.
        shares: the share of rows in each split, which sum to 1.
        seed: seed of the draw.
        name: the data, for messages.

    Returns:
        The number of each row's split: `[rows]` int64.

    Raises:
        InputError: there are too few rows of some class.
    """
    assigned = np.zeros(len(classes), np.int64)
    rest = np.arange(len(classes))
    try:
        for split in range(len(shares) - 1, 0, -1):
            size = round(len(classes) * shares[split])
            rest, drawn = train_test_split(
                rest, test_size=size, random_state=seed, stratify=classes[rest]
            )
            assigned[drawn] = split
    except ValueError:
        counts = np.bincount(classes)
        what = (
            f"{len(classes)} rows in {len(counts)} classes, the rarest with {counts.min()}, "
            "are too few to split"
        )
        raise InputError(name, what, "give more rows, or a split column with --split") from None
    return assigned


def grouped_split(
    classes: Array, groups: Array, shares: Sequence[float], seed: int, name: str
) -> Array:
    """Assign each group of rows to a split, with about equal label shares in all.

    Groups come largest first, ties in random order, and each goes to the split that lacks most of
    the group's labels. (scikit-learn's StratifiedGroupKFold makes equal folds only, and takes
    minutes on tens of thousands of groups.)

    Args:
        classes: the class of each row: `[rows]` int64.
        groups: the number of each row's group, from 0: `[rows]` int64.
        shares: the share of rows in each split, which sum to 1.
        seed: seed of the order of the groups.
        name: the data, for messages.

    Returns:
        The number of each row's split: `[rows]` int64.

    Raises:
        InputError: there are fewer groups than splits.
    """
    amount = int(groups.max()) + 1
    if amount < len(shares):
        what = f"{amount} groups cannot be in {len(shares)} splits"
        raise InputError(name, what, "give more groups, or a split column with --split")
    counts = np.zeros((amount, int(classes.max()) + 1))  # [groups, classes]
    np.add.at(counts, (groups, classes), 1)
    wanted = np.outer(shares, counts.sum(axis=0))  # [splits, classes]
    filled = np.zeros_like(wanted)
    shuffled = np.random.default_rng(seed).permutation(amount)
    order = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    split_of = np.zeros(amount, np.int64)
    for group in order:
        lacking = (1 - filled / wanted) @ counts[group]
        split_of[group] = lacking.argmax()
        filled[split_of[group]] += counts[group]
    return split_of[groups]
