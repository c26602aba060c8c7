"""The settings of the search and of early stopping; importing them needs no Optuna."""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dsgkd.configuration import Count, Text, config
from dsgkd.errors import InputError

Sampler = Literal["tpe", "random", "grid", "cma-es", "gp", "nsga2"]
Scheduler = Literal["asha", "hyperband", "median", "none"]
_Number = Annotated[float, Ge(-1e12), Le(1e12)]
_Whole = Annotated[int, Ge(-(10**12)), Le(10**12)]
ParameterPoint = Mapping[Text, bool | _Whole | _Number | Text]
"""Searched name -> value."""


@config
class PruningConfig:
    """When a search trial is stopped early."""

    scheduler: Scheduler = "asha"
    """`asha`: asynchronous successive halving (Li et al., MLSys 2020); `hyperband`: several of it
    with different first rungs (Li et al., JMLR 2018), each trial in one; `median`: below the median
    of the others at the same epoch; `none`: never."""
    grace_epochs: Count = 3
    """The first rung; no trial is stopped before it."""
    reduction_factor: Annotated[int, Ge(2), Le(1000)] = 3
    """One trial in so many passes a rung; the next rung is so many times higher."""
    startup_trials: Count = 4
    """`median`: so many trials of a method run to their end before any is stopped."""


@config
class SearchConfig:
    """How the space is searched."""

    trials: Count = 12
    """Search trials in all; may be raised later."""
    sampler: Sampler = "tpe"
    """`tpe` (multivariate, grouped), `random`, `grid`, `cma-es`, `gp`, or `nsga2`."""
    equal: Literal["trials", "seconds"] = "trials"
    """What the methods get the same of: search trials, or worker seconds of searching."""
    objectives: tuple[Text, ...] = ()
    """Measures or costs beside the run's objective that are weighed against it."""
    constraints: tuple[Text, ...] = ()
    """Bounds such as recall>=0.9 that the best configuration has to keep to."""
    grid_points: Annotated[int, Ge(1), Le(1000)] = 3
    """Values that a grid takes of each range."""

    def __post_init__(self) -> None:
        if self.objectives and self.sampler == "cma-es":
            raise InputError(
                "sampler", f"{self.sampler} knows one objective only", "choose nsga2, tpe or gp"
            )
