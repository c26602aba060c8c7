"""How values are drawn: samplers, grids, and points that are tried first."""

import math
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from dsgkd.errors import InputError
from dsgkd.study.search.config import ParameterPoint, Sampler
from dsgkd.training.config import RunConfig

# Multivariate, grouped TPE has been "experimental" for years; a study need not say so every time.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# optuna-dashboard (0.21) does not know the successor, and would show no trial as infeasible.
warnings.filterwarnings("ignore", "`constraints_func` has been deprecated", FutureWarning)

Suggest = Callable[[optuna.Trial, str], RunConfig]
"""Draws a run for a method from an Optuna trial."""
Constraints = Callable[[FrozenTrial], Sequence[float]]

STARTUP_TRIALS = 4
"""Trials of a method that are drawn at random before a model of the space is trusted."""
POPULATION = 16
"""Trials of a generation of NSGA-II."""
MOST_POINTS = 100_000


def new_sampler(
    kind: Sampler,
    seed: int,
    constraints: Constraints | None = None,
    fixed: ParameterPoint | None = None,
) -> BaseSampler:
    """Return a sampler that knows nothing but what it will read from the study.

    A search asks for a new one before every trial, seeded by the trial's number, so that what is
    drawn depends on the trials before and not on the process: a resumed study draws on as if it
    had never stopped. (CMA-ES and NSGA-II keep their state in the study by themselves.)

    Args:
        kind: its name.
        seed: decides what is drawn.
        constraints: says how far a trial violates each.
        fixed: values that are not drawn.
    """
    if fixed:
        return optuna.samplers.PartialFixedSampler(
            dict(fixed), new_sampler(kind, seed, constraints)
        )
    if kind == "tpe":
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
            constraints_func=constraints,
        )
    if kind == "cma-es":
        return optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
        )
    if kind == "gp":
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, constraints_func=constraints
        )
    if kind == "nsga2":
        return optuna.samplers.NSGAIISampler(
            seed=seed, population_size=POPULATION, constraints_func=constraints
        )
    return optuna.samplers.RandomSampler(seed)  # also stands behind the points of a grid


def grid(
    suggest: Suggest,
    method: str,
    per_range: int,
    seed: int,
    fixed: ParameterPoint | None = None,
) -> list[ParameterPoint]:
    """Return every point of a space, each range cut into `per_range` values, in a seeded order.

    The space may be conditional: what is asked for may depend on what was answered. Names that are
    fixed have one value.

    Raises:
        InputError: there are more than `MOST_POINTS`.
    """
    found: list[ParameterPoint] = []
    script: list[int] = []
    while True:
        probe = _GridProbe(script, per_range, fixed or {})
        suggest(probe, method)  # type: ignore[arg-type]
        found.append(probe.values)
        if len(found) > MOST_POINTS:
            raise InputError(
                "grid", f"more than {MOST_POINTS:,} points", "lower --grid-points, or narrow it"
            )
        script, sizes = list(probe.taken), list(probe.sizes)
        while script and script[-1] + 1 == sizes[-1]:
            script.pop()
            sizes.pop()
        if not script:
            random.Random(seed).shuffle(found)
            return found
        script[-1] += 1


def is_settled(suggest: Suggest, method: str, fixed: ParameterPoint) -> bool:
    """Whether a method draws nothing but what is fixed."""
    probe = _GridProbe((), 1, fixed)
    suggest(probe, method)  # type: ignore[arg-type]
    return not probe.taken


def fitting(suggest: Suggest, method: str, wanted: ParameterPoint) -> ParameterPoint:
    """Return the values of a point that a method asks for and that lie in its ranges."""
    probe = _PointProbe(wanted)
    suggest(probe, method)  # type: ignore[arg-type]
    return probe.values


class _Probe(ABC):
    """Stands in for an Optuna trial to see what a space asks for."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self.values[name] if name in self.values else self.range(name, low, high, step, log)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        if name in self.values:
            return self.values[name]
        return self.range(name, low, high, step, log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.values[name] if name in self.values else self.choice(name, choices)

    @abstractmethod
    def range(self, name: str, low: Any, high: Any, step: Any, log: bool) -> Any:
        """Answer for a name that is asked for the first time."""

    @abstractmethod
    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        """Answer for a name that is asked for the first time."""


class _GridProbe(_Probe):
    """Answers by a script of positions, then with the first of everything."""

    def __init__(self, script: Sequence[int], per_range: int, fixed: ParameterPoint) -> None:
        super().__init__()
        self.values.update(fixed)
        self._script, self._per_range = script, per_range
        self.taken: list[int] = []
        self.sizes: list[int] = []

    def range(self, name: str, low: Any, high: Any, step: Any, log: bool) -> Any:
        return self.choice(name, _spaced(low, high, step, log, self._per_range))

    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        at = len(self.taken)
        self.taken.append(self._script[at] if at < len(self._script) else 0)
        self.sizes.append(len(choices))
        self.values[name] = choices[self.taken[-1]]
        return self.values[name]


class _PointProbe(_Probe):
    """Answers with the wanted values; what is not wanted gets any answer and is not kept."""

    def __init__(self, wanted: ParameterPoint) -> None:
        super().__init__()
        self._wanted = wanted

    def range(self, name: str, low: Any, high: Any, step: Any, log: bool) -> Any:
        value = self._wanted.get(name)
        if isinstance(value, int | float) and low <= value <= high:
            self.values[name] = type(low)(value)
            return self.values[name]
        return low

    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        # A name may end in what it depends on: `mapping` is wanted, `mapping_4_to_12` asked for.
        value = self._wanted.get(name, self._wanted.get(name.split("_")[0]))
        if value in choices:
            self.values[name] = value
            return value
        return choices[0]


def _spaced(low: Any, high: Any, step: Any, log: bool, count: int) -> list[Any]:
    """Return `count` values from low to high, evenly spaced, or evenly in their logarithm."""
    if low == high or count == 1:
        return [low]
    shares = [index / (count - 1) for index in range(count)]
    if log:
        values = [low * math.exp(share * math.log(high / low)) for share in shares]
    else:
        values = [low + share * (high - low) for share in shares]
    values[-1] = high
    if step is not None:
        values = [low + round((value - low) / step) * step for value in values]
    if isinstance(low, int):
        values = [round(value) for value in values]
    return list(dict.fromkeys(values))
