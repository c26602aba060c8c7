"""The estimated cost of a study, before it starts, from a few timed steps.

The study is played in advance by `replay`, with timed epochs and invented scores: once without
stopping any trial, which is the most that it can cost, and several times under its scheduler.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from dsgkd.distillation.teachers.source import readable
from dsgkd.study.cost.budget import Cost
from dsgkd.study.cost.curves import Curve
from dsgkd.study.cost.profile import MethodCost
from dsgkd.study.cost.replay import replay
from dsgkd.study.search.config import PruningConfig

DRAWS = 10
"""Studies that are played under the scheduler; their mean is expected."""
NOISE = 0.5
"""Standard deviation of a score from epoch to epoch, where that between trials is 1."""


@dataclass(frozen=True)
class LinkCost:
    """A link of a recipe that is made for several trials."""

    name: str
    cost: MethodCost
    """Of one; it keeps its student, and its checkpoints go."""
    epochs: int
    """Of one, at most."""
    search: int
    """So many are made for the search."""
    confirm: int
    """So many are made for the confirmation."""

    @property
    def seconds(self) -> float:
        """Of one."""
        return _around(self.cost) + self.epochs * self.cost.epoch_seconds


@dataclass(frozen=True)
class StudyShape:
    """How much of everything a study has."""

    trials: Mapping[str, int]
    """Method -> search trials."""
    epochs: int
    """Of a trial, at most."""
    confirm: Mapping[str, int] = field(default_factory=dict)
    """Method -> runs of confirmation; none of them is stopped."""
    concurrent: int = 1
    """Trials at a time."""
    workers: int = 1
    """Of a trial."""
    gpus: float = 0.0
    """Of a worker."""
    pruning: PruningConfig = field(default_factory=PruningConfig)
    teachers: int = 0
    """Teachers that are stored before the search."""
    teacher_bytes: int = 0
    """What they take, together."""
    links: Sequence[LinkCost] = ()

    @property
    def stopping(self) -> PruningConfig:
        """When a search trial is stopped early, for as many trials as there are."""
        return self.pruning.resolved(min(self.trials.values(), default=0))


@dataclass(frozen=True)
class Estimate:
    """What was timed."""

    methods: Mapping[str, MethodCost]
    """At least one."""

    def of(self, method: str) -> MethodCost:
        """Return the cost of a method; one that was not timed costs what the dearest does."""
        if method in self.methods:
            return self.methods[method]
        return max(self.methods.values(), key=lambda cost: cost.epoch_seconds)


@dataclass(frozen=True)
class CostByStage:
    """What a study will spend, by stage. Stages follow each other."""

    storing: Cost
    """Storing the teachers' states, before the search."""
    search: Cost
    confirm: Cost
    """What a budget has to keep for the confirmation."""
    share: float
    """Of the search's epochs that are run, in [0, 1]."""
    links: Cost = field(default_factory=Cost)
    """Of search and confirmation, what making links takes."""

    @property
    def total(self) -> Cost:
        """All of it."""
        return self.storing + self.search + self.confirm


def at_most(estimate: Estimate, shape: StudyShape) -> CostByStage:
    """Return what a study costs if no trial is stopped early, and no machine is lost."""
    return expected(estimate, replace(shape, pruning=PruningConfig("none")))


def expected(estimate: Estimate, shape: StudyShape) -> CostByStage:
    """Return what a study costs on average under its scheduler, by simulation.

    The rungs see trials whose scores differ by a normal distribution and vary around it from epoch
    to epoch by half as much. Early stopping by the trials' own patience is not foreseen.
    """
    pruning = shape.stopping
    draws = DRAWS if pruning.scheduler != "none" else 1
    searches = [_played(estimate, shape, shape.trials, pruning, seed) for seed in range(draws)]
    confirm, _ = _played(estimate, shape, shape.confirm, PruningConfig("none"), seed=0)
    search = Cost(
        fmean(spent.hours for spent, _ in searches),
        fmean(spent.worker_hours for spent, _ in searches),
        fmean(spent.gpu_hours for spent, _ in searches),
    )
    most = max(1, sum(shape.trials.values()) * shape.epochs)
    share = fmean(epochs for _, epochs in searches) / most
    before = _linking(shape, [link.search for link in shape.links])
    after = _linking(shape, [link.confirm for link in shape.links])
    return CostByStage(
        _storing(estimate, shape), search + before, confirm + after, share, before + after
    )


def disk_bytes(estimate: Estimate, shape: StudyShape) -> int:
    """Return what stays on the disk: checkpoints, the confirmed students, those that links have
    made, the stored teachers.

    A trial keeps two checkpoints, of its last and of its best epoch, whatever became of it.
    """
    checkpoints = sum(
        count * estimate.of(method).checkpoint_bytes
        for counts in (shape.trials, shape.confirm)
        for method, count in counts.items()
    )
    models = sum(count * estimate.of(m).model_bytes for m, count in shape.confirm.items())
    made = sum((link.search + link.confirm) * link.cost.model_bytes for link in shape.links)
    return checkpoints + models + made + shape.teacher_bytes


def estimate_lines(estimate: Estimate, shape: StudyShape, price: float = 0.0) -> list[str]:
    """Estimate what a study will cost, at most and probably.

    Args:
        estimate: what was timed.
        shape: the study.
        price: of a GPU-hour; 0: no line of costs.
    """
    most, likely = at_most(estimate, shape), expected(estimate, shape)
    kinds: list[tuple[str, ...]] = [
        ("method", "opening", "step", "an epoch", f"{shape.epochs} epochs")
    ]
    for method, cost in estimate.methods.items():
        times = (
            cost.opening_seconds,
            cost.step_seconds,
            cost.epoch_seconds,
            _around(cost) + shape.epochs * cost.epoch_seconds,
        )
        kinds.append((method, *map(_time, times)))
    for link in shape.links:
        count, cost = link.search + link.confirm, link.cost
        times = (cost.opening_seconds, cost.step_seconds, cost.epoch_seconds, link.seconds)
        kinds.append((f"{count} x {link.name}", *map(_time, times)))
    sums: list[tuple[str, ...]] = [("", "at most", "expected")]
    sums.append(("worker-hours", *(f"{each.total.worker_hours:.3g}" for each in (most, likely))))
    if shape.gpus:
        sums.append(("GPU-hours", *(f"{each.total.gpu_hours:.3g}" for each in (most, likely))))
    if shape.gpus and price:
        sums.append(("cost", *(f"{each.total.cost(price):.2f}" for each in (most, likely))))
    clock = f"hours, {shape.concurrent} trials at a time"
    sums.append((clock, *(f"{each.total.hours:.3g}" for each in (most, likely))))
    sums.append(
        ("  of which confirmation", *(f"{each.confirm.hours:.3g}" for each in (most, likely)))
    )
    if shape.links:
        sums.append(("  of which links", *(f"{each.links.hours:.3g}" for each in (most, likely))))
    size = readable(disk_bytes(estimate, shape))
    sums.append(("disk", size, size))
    lines = [*_table(kinds), "", *_table(sums)]
    if not any(shape.trials.values()):
        return lines
    rule = (
        f"{shape.stopping.scheduler} is expected to run {likely.share:.0%} of the search's epochs "
        "(simulated with random curves)"
    )
    return [*lines, rule]


def _played(
    estimate: Estimate,
    shape: StudyShape,
    counts: Mapping[str, int],
    pruning: PruningConfig,
    seed: int,
) -> tuple[Cost, int]:
    """Play one stage; return what it cost and how many epochs it ran."""
    random = np.random.default_rng(seed)
    curves = []
    # The methods take turns, as they do in a study.
    for number in range(max(counts.values(), default=0)):
        for method in (method for method, count in counts.items() if number < count):
            cost = estimate.of(method)
            scores = random.normal() + NOISE * random.normal(size=shape.epochs)
            curves.append(
                Curve(
                    f"search-{method}-{number:03d}",
                    method,
                    tuple(scores.tolist()),
                    (cost.epoch_seconds,) * shape.epochs,
                    whole=True,
                    opening=_around(cost),
                    workers=shape.workers,
                    gpus=shape.workers * shape.gpus,
                )
            )
    played = replay(curves, shape.concurrent, pruning)
    return Cost(played.hours, played.worker_hours, played.gpu_hours), played.epochs_run


def _around(cost: MethodCost) -> float:
    """Return the seconds of a trial outside its epochs: opening, and the last predictions."""
    return cost.opening_seconds + cost.evaluation_seconds


def _linking(shape: StudyShape, counts: Sequence[int]) -> Cost:
    """Return what it takes to make links; as many at a time as there are trials."""
    hours = sum(count * link.seconds for link, count in zip(shape.links, counts)) / 3600
    workers = hours * shape.workers
    return Cost(hours / shape.concurrent, workers, workers * shape.gpus)


def _storing(estimate: Estimate, shape: StudyShape) -> Cost:
    """Return what it takes to ask the teachers; as many workers do it as there are trials."""
    most = max(cost.storing_seconds for cost in estimate.methods.values())
    hours = shape.teachers * most / 3600
    return Cost(hours / shape.concurrent, hours, hours * shape.gpus)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
