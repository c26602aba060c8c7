"""The settings of the search and of early stopping; importing them needs no Optuna."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dsgkd.configuration import Count, Text, Whole, config
from dsgkd.errors import InputError

Sampler = Literal["tpe", "random", "grid", "cma-es", "gp", "nsga2"]
Scheduler = Literal["auto", "asha", "hyperband", "median", "none"]
_Number = Annotated[float, Ge(-1e12), Le(1e12)]
_Whole = Annotated[int, Ge(-(10**12)), Le(10**12)]
ParameterPoint = Mapping[Text, bool | _Whole | _Number | Text]
"""Searched name -> value."""

MANY_TRIALS = 20
"""Trials of a method from which `auto` stops some early. With 20 trials, 8 or more curves are whole
before the first decision; below, early stopping saves little and the luck of an early epoch decides
which configuration is confirmed."""


@config
class PruningConfig:
    """When a search trial is stopped early."""

    scheduler: Scheduler = "auto"
    """`asha`: asynchronous successive halving (Li et al., MLSys 2020); `hyperband`: several of it
    with different first rungs (Li et al., JMLR 2018), each trial in one; `median`: below the median
    of the others at the same epoch; `none`: never; `auto`: `asha` from 20 trials of a method on,
    else `none`."""
    grace_epochs: Whole = 0
    """The first rung; no trial is stopped before it. 0: chosen from the first whole curves, as the
    earliest epoch whose ranks correlate by .7 with those of the end; where none does, no trial is
    stopped."""
    reduction_factor: Annotated[int, Ge(2), Le(1000)] = 3
    """One trial in so many passes a rung; the next rung is so many times higher."""
    startup_trials: Count = 4
    """So many trials of a method run to their end before any is stopped, where the rule is
    `median` or the first rung is chosen from curves."""

    def resolved(self, trials: int) -> "PruningConfig":
        """Return the rule without `auto`, for so many trials of a method."""
        if self.scheduler != "auto":
            return self
        return replace(self, scheduler="asha" if trials >= MANY_TRIALS else "none")


@config
class SearchConfig:
    """How the space is searched."""

    trials: Whole = 12
    """Search trials in all; may be raised later. 0: no search; the study's run, or its initial
    points, are confirmed as they are."""
    sampler: Sampler = "tpe"
    """`tpe` (multivariate, grouped), `random`, `grid`, `cma-es`, `gp`, or `nsga2`."""
    equal: Literal["trials", "seconds"] = "trials"
    """What the methods get the same of: search trials, or worker seconds of searching."""
    objectives: tuple[Text, ...] = ()
    """Measures or costs beside the run's objective that are weighed against it."""
    constraints: tuple[Text, ...] = ()
    """Bounds such as recall>=0.9 that the best configuration has to keep to."""
    match_rates: bool = True
    """Search plain fine-tuning first, and keep its best values of what it draws (the learning
    rates) for all other methods, which then search only what concerns their teachers: so methods do
    not differ by the luck of a learning rate, and what is kept is the baseline's best. With
    `confirm-top`, so many pairs of rates are kept, and each method is confirmed with each."""
    grid_points: Annotated[int, Ge(1), Le(1000)] = 3
    """Values that a grid takes of each range."""

    def __post_init__(self) -> None:
        if self.objectives and self.sampler == "cma-es":
            raise InputError(
                "sampler", f"{self.sampler} knows one objective only", "choose nsga2, tpe or gp"
            )
