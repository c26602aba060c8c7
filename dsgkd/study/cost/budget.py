"""The limits of a study's budget, and the account of what it has cost.

Every second is charged to an attempt of a trial, whatever became of it: the rows of `trials` are
the whole account. Idle time between two starts of a study is not charged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dsgkd.configuration import NonNegative, config
from dsgkd.errors import InputError
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.history import TrialHistory
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.spec import TrialSpec

Row = Mapping[str, Any]
"""A row of the ledger's table `trials`."""
Interval = tuple[datetime, datetime]


@config
class BudgetConfig:
    """The most that a study may spend. 0: no limit."""

    max_hours: NonNegative = 0.0
    """Hours by the clock, its interruptions left out."""
    max_gpu_hours: NonNegative = 0.0
    """Hours of GPUs; half a GPU for an hour is half an hour."""
    max_cost: NonNegative = 0.0
    """Money, in the currency of the price."""
    price_per_gpu_hour: NonNegative = 0.0
    """What a GPU costs an hour, with the machine around it."""

    def __post_init__(self) -> None:
        if self.max_cost and not self.price_per_gpu_hour:
            raise InputError("max_cost", "nothing has a price", "give price_per_gpu_hour as well")


@dataclass(frozen=True)
class Cost:
    """What something has cost, or is going to cost."""

    hours: float = 0.0
    """Hours by the clock during which anything ran."""
    worker_hours: float = 0.0
    """Hours of workers; two workers for an hour are two."""
    gpu_hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of both, one after the other."""
        return Cost(
            self.hours + other.hours,
            self.worker_hours + other.worker_hours,
            self.gpu_hours + other.gpu_hours,
        )

    def scaled(self, factor: float) -> "Cost":
        """Return the cost of so many times as much."""
        return Cost(self.hours * factor, self.worker_hours * factor, self.gpu_hours * factor)

    def cost(self, price: float) -> float:
        """Return the money, at a price of a GPU-hour."""
        return self.gpu_hours * price


def spent(rows: Iterable[Row]) -> Cost:
    """Return what trials have cost together.

    Args:
        rows: of the ledger's table `trials`, all attempts and states. A row without an end counts
            as far as it was last heard of. Rows without a worker cost nothing.
    """
    rows = [row for row in rows if row.get("workers")]
    return Cost(
        _hours(_union(map(_interval, rows))),
        sum(row.get("worker_seconds") or 0.0 for row in rows) / 3600,
        sum(row.get("gpu_seconds") or 0.0 for row in rows) / 3600,
    )


class BudgetCallback(TrialCallback):
    """Knows at any moment what the study has cost, and whether it may go on.

    Between two reports a trial is charged what its workers take by the clock.

    Args:
        config: the limits.
        rows: of the ledger's table `trials`, from before this start of the study.
    """

    def __init__(self, config: BudgetConfig, rows: Iterable[Row] = ()) -> None:
        self._config = config
        # What is over is kept as sums: a study asks after every report of any trial.
        self._over = Cost()
        self._intervals: list[Interval] = []  # that what runs may overlap; not in the sum
        self._running: dict[str, tuple[TrialSpec, datetime, Charge]] = {}
        self._close(rows)

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Begin to charge a trial."""
        self._running[spec.trial_id] = (spec, at, Charge(at))

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Take over what a trial has cost."""
        self._running[spec.trial_id] = (spec, self._running[spec.trial_id][1], charge)

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Close a trial's account."""
        _, began, _ = self._running.pop(spec.trial_id)
        self._close([_row(spec, began, end.charge, end.charge.at)])

    def spent(self, at: datetime) -> Cost:
        """Return what the study has cost up to a moment."""
        rows = [_row(*running, at) for running in self._running.values()]
        hours = _hours(_union([*self._intervals, *map(_interval, rows)]))
        return self._over + replace(spent(rows), hours=hours)

    def _close(self, rows: Iterable[Row]) -> None:
        rows = [row for row in rows if row.get("workers")]
        intervals = _union([*self._intervals, *map(_interval, rows)])
        began = min((began for _, began, _ in self._running.values()), default=None)
        settled = [one for one in intervals if began is None or one[1] <= began]
        self._intervals = intervals[len(settled) :]
        self._over += replace(spent(rows), hours=_hours(settled))

    def exceeded(self, at: datetime, reserve: Cost | None = None) -> str | None:
        """Return the limit that is reached, for people; None where there is none.

        Args:
            at: the moment.
            reserve: what is still to be paid for whatever happens: the confirmation.
        """
        config, price = self._config, self._config.price_per_gpu_hour
        if not (config.max_hours or config.max_gpu_hours or config.max_cost):
            return None
        done, kept = self.spent(at), reserve or Cost()
        limits = (
            ("max-hours", config.max_hours, done.hours, kept.hours, " h"),
            ("max-gpu-hours", config.max_gpu_hours, done.gpu_hours, kept.gpu_hours, " GPU-h"),
            ("max-cost", config.max_cost, done.cost(price), kept.cost(price), ""),
        )
        for name, limit, gone, held, unit in limits:
            if limit and gone + held >= limit:
                also = f", {held:.3g}{unit} kept for confirmation" if held else ""
                return f"{name} {limit:g} ({gone:.3g}{unit} spent{also})"
        return None


class Reserve(TrialCallback):
    """Says what confirming the best of a search will cost, from its whole trials.

    Args:
        runs: method -> runs of confirmation.
        past: trials from before this start of the study.
        concurrent: trials at a time.
    """

    def __init__(
        self, runs: Mapping[str, int], past: Iterable[TrialHistory], concurrent: int
    ) -> None:
        self._runs, self._concurrent = runs, concurrent
        self._whole: dict[str, Cost] = defaultdict(Cost)
        self._count: Counter[str] = Counter()
        for trial in past:
            if trial.stage == "search" and trial.state == "complete":
                self._add(trial.method, spent([trial.row]))

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Note what a whole trial cost."""
        if spec.stage == "search" and end.state == "complete":
            hours, gpus = end.charge.worker_seconds / 3600, end.charge.gpu_seconds / 3600
            self._add(spec.method, Cost(hours / spec.workers, hours, gpus))

    def _add(self, method: str, cost: Cost) -> None:
        self._whole[method] += cost
        self._count[method] += 1

    def expected(self) -> Cost:
        """Return the cost of confirmation; of methods without a whole trial yet, nothing."""
        total = Cost()
        for method, runs in self._runs.items():
            if count := self._count[method]:
                total += self._whole[method].scaled(runs / count)
        return Cost(total.hours / self._concurrent, total.worker_hours, total.gpu_hours)


def _row(spec: TrialSpec, began: datetime, charge: Charge, at: datetime) -> Row:
    """Return a trial's row up to a moment: what it was charged, and the time since."""
    since = (at - charge.at).total_seconds() * spec.workers
    return {
        "workers": spec.workers,
        "started_at": began,
        "ended_at": at,
        "worker_seconds": charge.worker_seconds + since,
        "gpu_seconds": charge.gpu_seconds + since * spec.gpus_per_worker,
    }


def _interval(row: Row) -> Interval | None:
    start, end = row.get("started_at"), row.get("ended_at")
    if start is None:
        return None
    known = timedelta(seconds=(row.get("worker_seconds") or 0.0) / row["workers"])
    return start, end or start + known


def _union(intervals: Iterable[Interval | None]) -> list[Interval]:
    """Return intervals that cover the same time and do not overlap."""
    union: list[Interval] = []
    for start, end in sorted(filter(None, intervals)):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def _hours(apart: Iterable[Interval]) -> float:
    return sum((end - start for start, end in apart), timedelta()) / timedelta(hours=1)
