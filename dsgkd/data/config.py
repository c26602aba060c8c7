"""Where the labelled notes are, what their columns are called, and how they are split."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Lt

from dsgkd.configuration import Column, Count, Part, Text, config
from dsgkd.errors import InputError

SPLITS = ("train", "validation", "test")
SEALED = SPLITS[:2]
"""The splits that are open as long as the test split is sealed."""


@config
class DataConfig:
    """Where the notes are, what their columns are called, and how they are split."""

    path: Text = ""
    """A CSV, TSV, Parquet or JSON-lines file, a folder with the six CSV files X_train.csv,
    y_train.csv and likewise val and test, or a folder saved by `datasets`; empty: the embedded
    synthetic world."""
    text: Column | None = None
    """Column of the notes; None: found by name (text, note, ER_DHX, ...)."""
    label: Column | None = None
    """Column of the labels; None: found by name (label, class, target, ...)."""
    split: Column | None = None
    """Column of the splits; None: found by name (split, subset, ...), and where there is none, or
    for an empty name, a seeded stratified split."""
    group: Column | None = None
    """Column of the patients, none of whom may be in two splits; None: found by name (patient,
    patient_id, ...)."""
    id: Column | None = None
    """Column of the rows' identifiers, which must differ; None: found by name (id, ...)."""
    subgroups: tuple[Column, ...] = ()
    """Columns of categories, such as the ward, by which results are broken down."""
    subgroup_least: Count = 20
    """Least number of training rows of a category; smaller ones are counted as "other"."""
    validation_share: Part = 0.15
    """Share of the rows that a seeded split puts into validation."""
    test_share: Part = 0.15
    """Share of the rows that a seeded split puts into test."""
    split_seed: Annotated[int, Ge(0), Lt(2**32)] = 17
    """Seed of the seeded split."""

    def __post_init__(self) -> None:
        if not self.validation_share + self.test_share < 1:
            what = f"{self.validation_share} and {self.test_share} leave no rows to train on"
            raise InputError("validation_share, test_share", what, "use shares such as 0.15, 0.15")


def check_open(splits: Sequence[str]) -> None:
    """Refuse open splits without those before them: training says which classes there are.

    Raises:
        InputError: `splits` are not the first ones of `SPLITS`.
    """
    if not splits or tuple(splits) != SPLITS[: len(splits)]:
        what = f"'{', '.join(splits)}' cannot be read alone"
        raise InputError("splits", what, f"give the first ones of {', '.join(SPLITS)}")
