"""What is a configuration judged by? Measures on validation, and what it cost to reach them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsgkd.errors import InputError
from dsgkd.tasks.measures import MEASURES, SMALLER_IS_BETTER

COSTS = ("worker_seconds", "gpu_seconds", "ms_per_note", "peak_rss_mb", "peak_gpu_mb")
"""What may be judged besides measures; less is better. `ms_per_note` is the time to predict one
note of the validation split in batches, in milliseconds."""


def check_name(name: str) -> str:
    """Return the name of a measure or a cost.

    Raises:
        InputError: it is neither.
    """
    if name not in (*MEASURES, *COSTS):
        known = ", ".join((*MEASURES, *COSTS))
        raise InputError("objective", f"'{name}' unknown", f"choose of {known}")
    return name


def smaller_is_better(name: str) -> bool:
    """Whether less of it is better."""
    return name in COSTS or name in SMALLER_IS_BETTER


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
            InputError: it is neither, or the name is no measure and no cost.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*", text)
        try:
            if found is None:
                raise ValueError
            name, sense, bound = found.groups()
            return cls(check_name(name), sense == ">=", float(bound))
        except ValueError:
            raise InputError(
                "constraint", f"'{text}' cannot be read", "write for instance recall>=0.9"
            ) from None

    def violation(self, values: Mapping[str, float]) -> float:
        """How far it is violated: positive if it is. A value that is missing violates it."""
        value = values.get(self.name, float("inf") * (-1 if self.at_least else 1))
        return self.bound - value if self.at_least else value - self.bound


def judged(report: Mapping[str, Any]) -> dict[str, float]:
    """Return what a trial's report says of its measures and costs, by name.

    The measures are those of the best epoch where the trial came to its end, else of the last.
    """
    measured: Mapping[str, Any] = {}
    if "tested" in report:
        measured = report["tested"].get("validation", {})
    elif report.get("result"):
        measured = report["result"]["validation"]
    values = {name: measured.get(name) for name in MEASURES}
    values |= {name: report.get(name) for name in COSTS}
    return {name: float(value) for name, value in values.items() if value is not None}
