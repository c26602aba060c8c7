"""What may a study cost, and what has it cost?

Every second is charged to an attempt of a trial, whatever became of it: the rows of `trials` are
the whole account. A study that was interrupted for a night has not spent the night.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dsgkd.errors import InputError
from dsgkd.study.history import TrialHistory
from dsgkd.study.trial import Report, TrialSpec

Row = Mapping[str, Any]
"""A row of the ledger's table `trials`."""
Group = tuple[str, str | None, str]
"""Stage, method, state."""
Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class BudgetConfig:
    """The most that a study may spend. 0: no limit."""

    max_hours: float = 0.0
    """Hours by the clock, its interruptions left out."""
    max_gpu_hours: float = 0.0
    """Hours of GPUs; half a GPU for an hour is half an hour."""
    max_cost: float = 0.0
    """Money, in the currency of the price."""
    price_per_gpu_hour: float = 0.0
    """What a GPU costs an hour, with the machine around it."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not getattr(self, entry.name) >= 0:  # also refuses what is no number
                raise InputError(
                    entry.name, f"{getattr(self, entry.name)} is no amount", "give 0 or more"
                )
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
            as far as it was last heard of. Rows without a worker (a broken seal) cost nothing.
    """
    rows = [row for row in rows if row.get("workers")]
    return Cost(
        _hours(_union(map(_interval, rows))),
        sum(row.get("worker_seconds") or 0.0 for row in rows) / 3600,
        sum(row.get("gpu_seconds") or 0.0 for row in rows) / 3600,
    )


def spent_by_state(rows: Iterable[Row]) -> dict[Group, Cost]:
    """Return what trials have cost by stage, method and state, in the order of first appearance.

    Hours by the clock overlap between the groups, so they do not add up to those of the study;
    worker-hours and GPU-hours do.
    """
    groups: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["stage"], row.get("method"), row["state"]].append(row)
    return {group: spent(members) for group, members in groups.items()}


class BudgetCallback:
    """A callback that knows at any moment what the study has cost, and whether it may go on.

    Between two reports a trial is charged what its workers take by the clock.

    Args:
        config: the limits.
        rows: of the ledger's table `trials`, from before this start of the study.
        now: the clock.
    """

    def __init__(
        self,
        config: BudgetConfig,
        rows: Iterable[Row] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config, self._now = config, now
        # What is over is kept as sums: a study asks after every report of any trial.
        self._over = Cost()
        self._intervals: list[Interval] = []  # that what runs may overlap; not in the sum
        self._running: dict[str, tuple[TrialSpec, Row, datetime]] = {}
        self._close(rows)

    def started(self, spec: TrialSpec) -> None:
        """Begin to charge a trial; one that already runs goes on being charged."""
        now = self._now()
        row = {"workers": spec.workers, "started_at": now}
        self._running.setdefault(spec.trial_id, (spec, row, now))

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Take over what a trial says it has cost."""
        _, row, _ = self._running[spec.trial_id]
        self._running[spec.trial_id] = (spec, {**row, **_costs(report)}, self._now())

    def ended(self, spec: TrialSpec, report: Report | None, state: str, reason: str) -> None:
        """Close a trial's account."""
        now = self._now()
        if report is not None:
            self.reported(spec, report)
        self._close([_charged(*self._running.pop(spec.trial_id), now, bool(report))])

    def spent(self) -> Cost:
        """Return what the study has cost up to now."""
        now = self._now()
        rows = [_charged(*open_, now) for open_ in self._running.values()]
        hours = _hours(_union([*self._intervals, *map(_interval, rows)]))
        return self._over + replace(spent(rows), hours=hours)

    def _close(self, rows: Iterable[Row]) -> None:
        rows = [row for row in rows if row.get("workers")]
        intervals = _union([*self._intervals, *map(_interval, rows)])
        began = min((row["started_at"] for _, row, _ in self._running.values()), default=None)
        settled = [one for one in intervals if began is None or one[1] <= began]
        self._intervals = intervals[len(settled) :]
        self._over += replace(spent(rows), hours=_hours(settled))

    def exceeded(self, reserve: Cost | None = None) -> str | None:
        """Return the limit that is reached, for people; None where there is none.

        Args:
            reserve: what is still to be paid for whatever happens: the confirmation.
        """
        config, price = self._config, self._config.price_per_gpu_hour
        if not (config.max_hours or config.max_gpu_hours or config.max_cost):
            return None
        done, kept = self.spent(), reserve or Cost()
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


class Reserve:
    """A callback that says what confirming the best of a search will cost, from its whole trials.

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

    def started(self, spec: TrialSpec) -> None:
        """Nothing to note."""

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Nothing to note."""

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        """Note what a whole trial cost."""
        if state == "complete":
            hours = report["worker_seconds"] / spec.workers / 3600
            gpus = report["gpu_seconds"] / 3600
            self._add(spec.method, Cost(hours, hours * spec.workers, gpus))

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


def _costs(report: Report) -> dict[str, float]:
    return {name: report[name] for name in ("worker_seconds", "gpu_seconds")}


def _charged(
    spec: TrialSpec, row: Row, heard: datetime, now: datetime, is_final: bool = False
) -> Row:
    """Return the row up to now: what was reported, and unless that is final the time since."""
    since = 0.0 if is_final else (now - heard).total_seconds() * spec.workers
    return {
        **row,
        "ended_at": now,
        "worker_seconds": row.get("worker_seconds", 0.0) + since,
        "gpu_seconds": row.get("gpu_seconds", 0.0) + since * spec.gpus_per_worker,
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
