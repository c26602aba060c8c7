"""Categories by which results are broken down, made from the user's columns."""

import logging
from collections import Counter

import pyarrow as pa

from dsgkd.data._rows import Rows
from dsgkd.data.config import DataConfig
from dsgkd.errors import InputError

OTHER, MISSING = "other", "missing"
"""The categories of small categories and of empty cells."""

_MOST_CATEGORIES = 20
_LONGEST = 40
"""Characters of a category's name at most; anything longer is free text."""

_log = logging.getLogger(__name__)


def subgroup_columns(rows: Rows, config: DataConfig, name: str) -> dict[str, pa.Array]:
    """Return the category of each row in each column that is declared as subgroups.

    The rows to train on alone say which categories there are, so that these are the same whatever
    else is open; any other value is `OTHER`.

    Args:
        rows: rows whose splits are known.
        config: which columns, and the least size of a category.
        name: the data, for messages.

    Raises:
        InputError: a column holds no categories.
    """
    training = [row for row, split in enumerate(rows.splits) if split == "train"]
    columns = {}
    for at, column in enumerate(config.subgroups):
        cells = [row[at] or MISSING for row in rows.subgroups]
        counts = Counter(cells[row] for row in training)
        _check_categories(counts, column, name)
        kept = {category for category, count in counts.items() if count >= config.subgroup_least}
        if small := len(counts.keys() - kept):
            _log.warning(
                "%s: %d of %d categories in column '%s' have fewer than %d training rows: '%s'",
                *(name, small, len(counts), column, config.subgroup_least, OTHER),
            )
        categories = [cell if cell in kept else OTHER for cell in cells]
        columns[column] = pa.array(categories, pa.string())
    return columns


def _check_categories(counts: Counter[str], column: str, name: str) -> None:
    rows, longest = counts.total(), max(map(len, counts))
    if longest > _LONGEST:
        what = f"has values of up to {longest} characters, which are no categories"
    elif len(counts) > _MOST_CATEGORIES:
        what = f"has {len(counts)} categories, more than {_MOST_CATEGORIES}"
    elif len(counts) > max(2, rows // 2):
        what = f"has {len(counts)} different values in {rows} rows, which are no categories"
    else:
        return
    remedy = "name a column of few categories with --subgroup"
    raise InputError(name, f"column '{column}' {what}", remedy)
