"""What a configuration is judged by: measures on validation, and what it cost to reach them."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsgkd.errors import InputError
from dsgkd.ledger.measures import Direction
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded

Measures = Mapping[str, Direction]
"""Measure -> whether more or less of it is better."""

COSTS = ("worker_seconds", "gpu_seconds", "ms_per_note", "peak_rss_mb", "peak_gpu_mb")
"""What may be judged besides measures; less is better. `ms_per_note` is the time to predict one
note of the validation split in batches, in milliseconds."""


def check_name(name: str, measures: Iterable[str]) -> str:
    """Return the name of a measure or a cost.

    Raises:
        InputError: it is neither.
    """
    if name not in (*measures, *COSTS):
        known = ", ".join((*measures, *COSTS))
        raise InputError("objective", f"'{name}' unknown", f"choose of {known}")
    return name


def direction_of(name: str, measures: Measures) -> Direction:
    """Return whether more or less of a measure or cost is better."""
    return measures.get(name, "minimise")


@dataclass(frozen=True)
class Constraint:
    """A bound that a configuration has to keep to be called best, such as `recall>=0.9`."""

    name: str
    at_least: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Constraint":
        """Read `name>=bound` or `name<=bound`.

        Raises:
            InputError: it is neither.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*", text)
        try:
            if found is None:
                raise ValueError
            name, sense, bound = found.groups()
            return cls(name, sense == ">=", float(bound))
        except ValueError:
            raise InputError(
                "constraint", f"'{text}' cannot be read", "write for instance recall>=0.9"
            ) from None

    def violation(self, values: Mapping[str, float]) -> float:
        """How far it is violated: positive if it is. A value that is missing violates it."""
        value = values.get(self.name, math.inf * (-1 if self.at_least else 1))
        return self.bound - value if self.at_least else value - self.bound


def judged_epoch(epoch: EpochFinished, charge: Charge) -> dict[str, float]:
    """Return the measures of an epoch and what it cost to come to it, by name."""
    return _numbers(epoch.validation, charge, epoch)


def judged(end: TrialEnded) -> dict[str, float]:
    """Return the measures and costs of an attempt that is over, by name.

    The measures are those of the best epoch where the trial came to its end, else of the last.
    """
    measured = (getattr(end.final, "measured", None) or {}).get("validation")
    return _numbers(measured or (end.last.validation if end.last else {}), end.charge, end.last)


def _numbers(
    measured: Mapping[str, float], charge: Charge, epoch: EpochFinished | None
) -> dict[str, float]:
    costs = {name: getattr(charge, name, getattr(epoch, name, None)) for name in COSTS}
    return {n: float(v) for n, v in {**measured, **costs}.items() if v is not None}
