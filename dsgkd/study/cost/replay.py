"""What would another cluster, scheduler or spot rate have cost, and what would it have found?

The learning curves of an earlier study are played again, event by event: trials start in the order
in which they did, each on a slot of its own; after every epoch its method's `EarlyStopper` decides; spot
machines are taken away at random. No model is trained. The search is not asked again: with other
results it might have drawn other configurations, so this compares ways to run the same trials.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna

from dsgkd.errors import InputError
from dsgkd.study.cost.curves import Curve
from dsgkd.study.search.pruning import EarlyStopper, PruningConfig

HOPELESS = 8.0
"""Mean pre-emptions within one epoch beyond which it practically never ends (one try in 3,000)."""


@dataclass(frozen=True)
class Replayed:
    """What a replay came to."""

    hours: float
    """By the clock, from the first trial's start to the last one's end."""
    worker_hours: float
    gpu_hours: float
    lost_hours: float
    """Worker-hours of these that pre-emption took: epochs begun in vain, and starting again."""
    best: Mapping[str, float] = field(default_factory=dict)
    """Method -> best score of the trials that were not stopped; no entry where all were."""
    epochs_run: int = 0
    """Epochs that were finished."""
    pruned: int = 0
    """Trials that the scheduler stopped."""
    cut_short: int = 0
    """Trials that would have gone on, but whose record ends because they were stopped then."""

    @property
    def is_lower_bound(self) -> bool:
        """Whether some trials would have gone on beyond their record, to more cost and perhaps to
        a better score: all figures are then lower bounds.
        """
        return self.cut_short > 0


def replay(
    curves: Sequence[Curve],
    slots: int,
    pruning: PruningConfig,
    preemptions_per_hour: float = 0.0,
    seed: int = 0,
    startup_seconds: float = 0.0,
) -> Replayed:
    """Play curves again.

    Pre-emptions are a Poisson process on each slot. One loses the epoch under way (or the opening)
    and costs `startup_seconds`, in which the slot can be taken away again; then the trial goes on
    from its last finished epoch. The same seed takes a slot away at the same times, whatever runs
    on it.

    Args:
        curves: in the order in which they start. The longest has the number of epochs that a
            trial may run.
        slots: trials at a time.
        pruning: when a trial is stopped.
        preemptions_per_hour: how often a slot is taken away, on average.
        seed: decides when.
        startup_seconds: until a new machine stands where the old one did, the opening of the run
            included.

    Raises:
        InputError: fewer than one slot, or so many pre-emptions that no epoch would end.
    """
    if slots < 1:
        raise InputError("slots", f"{slots} run nothing", "give 1 or more")
    longest = max((s for curve in curves for s in (*curve.seconds, curve.opening)), default=0.0)
    if preemptions_per_hour * (longest + startup_seconds) / 3600 > HOPELESS:
        raise InputError(
            "pre-emptions",
            f"{preemptions_per_hour:g} an hour let no epoch of {longest / 3600:.2g} h end",
            "give a lower rate",
        )
    return _Replay(curves, slots, pruning, preemptions_per_hour, seed, startup_seconds).run()


class _Replay:
    """The state of one replay; times are in seconds from its start."""

    def __init__(
        self,
        curves: Sequence[Curve],
        slots: int,
        pruning: PruningConfig,
        rate: float,
        seed: int,
        startup: float,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._waiting = iter(curves)
        epochs = max((len(curve.scores) for curve in curves), default=0)
        self._stoppers = {curve.method: EarlyStopper(pruning, epochs) for curve in curves}
        self._slots = [_Slot(rate, startup, (seed, index)) for index in range(slots)]
        self._events: list[tuple[float, int, int, Curve]] = []  # end, slot, epochs done, trial
        self._best: dict[str, float] = {}
        self._lost = self._worker_seconds = self._gpu_seconds = self._end = 0.0
        self._epochs = self._pruned = self._cut_short = 0

    def run(self) -> Replayed:
        for index in range(len(self._slots)):
            self._begin(index, 0.0)
        while self._events:
            now, index, done, curve = heapq.heappop(self._events)
            self._end = now
            if done == 0 or self._goes_on(curve, done):
                self._work(index, now, curve, done)
            else:
                self._begin(index, now)
        return Replayed(
            hours=self._end / 3600,
            worker_hours=self._worker_seconds / 3600,
            gpu_hours=self._gpu_seconds / 3600,
            lost_hours=self._lost / 3600,
            best=self._best,
            epochs_run=self._epochs,
            pruned=self._pruned,
            cut_short=self._cut_short,
        )

    def _begin(self, index: int, now: float) -> None:
        """Give a free slot the next trial."""
        curve = next(self._waiting, None)
        if curve is not None:
            self._occupy(index, now, curve, curve.opening, 0)

    def _work(self, index: int, now: float, curve: Curve, done: int) -> None:
        """Begin a trial's next epoch."""
        self._occupy(index, now, curve, curve.seconds[done], done + 1)

    def _occupy(self, index: int, now: float, curve: Curve, seconds: float, done: int) -> None:
        end = self._slots[index].end_of(now, seconds)
        self._worker_seconds += (end - now) * curve.workers
        self._gpu_seconds += (end - now) * curve.gpus
        self._lost += (end - now - seconds) * curve.workers
        heapq.heappush(self._events, (end, index, done, curve))

    def _goes_on(self, curve: Curve, done: int) -> bool:
        """Report an epoch; if it is the trial's last, close its account."""
        self._epochs += 1
        stopper, is_last = self._stoppers[curve.method], done == len(curve.scores)
        stopper.report(curve.trial_id, done, curve.scores[done - 1])
        if is_last and curve.whole:
            stopper.end(curve.trial_id, "failed" if curve.failed else "complete")
        elif stopper.should_stop(curve.trial_id):
            stopper.end(curve.trial_id, "pruned")
            self._pruned += 1
            return False
        elif is_last:
            stopper.end(curve.trial_id, "pruned")
            self._cut_short += 1
        if is_last and math.isfinite(curve.best):
            self._best[curve.method] = max(self._best.get(curve.method, -math.inf), curve.best)
        return not is_last


class _Slot:
    """A machine, or a share of one, that can be taken away."""

    def __init__(self, rate: float, startup: float, seed: tuple[int, int]) -> None:
        self._rate, self._startup = rate, startup
        self._random = np.random.default_rng(seed)
        self._taken = self._next(0.0)

    def end_of(self, now: float, seconds: float) -> float:
        """Return when work that needs so many seconds at a stretch is done."""
        needed = seconds
        while self._taken < now + needed:
            now = self._taken
            self._taken = self._next(now)
            needed = self._startup + seconds
        return now + needed

    def _next(self, now: float) -> float:
        return now + self._random.exponential(3600 / self._rate) if self._rate else math.inf
