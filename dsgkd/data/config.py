"""Where the labelled notes are, what their columns are called, and how they are split."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from dsgkd.errors import InputError


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
    subgroups: tuple[str, ...] = ()
    """Columns of categories, such as the ward, by which results are broken down."""
    subgroup_least: Annotated[int, Ge(1)] = 20
    """Least number of training rows of a category; smaller ones are counted as "other"."""
    validation_share: Annotated[float, Gt(0), Lt(1)] = 0.15
    """Share of the rows that a seeded split puts into validation."""
    test_share: Annotated[float, Gt(0), Lt(1)] = 0.15
    """Share of the rows that a seeded split puts into test."""
    split_seed: Annotated[int, Ge(0), Lt(2**32)] = 17
    """Seed of the seeded split."""

    def __post_init__(self) -> None:
        if not self.validation_share + self.test_share < 1:
            what = f"{self.validation_share} and {self.test_share} leave no rows to train on"
            raise InputError("validation_share, test_share", what, "use shares such as 0.15, 0.15")
