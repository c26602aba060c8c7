"""Trials that are played from learning curves on a simulated clock; nothing is trained.

The dispatcher, the early stopper and the callbacks are those of a study, so what is learnt here
about costs and limits holds there.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from dsgkd.study.cost.curves import Curve
from dsgkd.study.dispatcher import Dispatcher
from dsgkd.study.messages import (
    EpochFinished,
    Message,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    WorkerLost,
)
from dsgkd.study.spec import TrialSpec

START = datetime(2000, 1, 1, tzinfo=UTC)
RECORD_ENDS = "its record ends here"


@dataclass
class _Run:
    """An attempt on a slot."""

    slot: int
    spec: TrialSpec
    curve: Curve
    done: int
    """Epochs that are finished."""
    startup: float = 0.0
    """Seconds of the work under way that only the loss of a machine has made necessary."""
    began: float = 0.0
    """When the work under way began."""


class SimulatedBackend:
    """Plays trials on slots that can be taken away.

    Pre-emptions are a Poisson process on each slot. One loses the epoch under way (or the opening)
    and costs `startup_seconds`, in which the slot can be taken away again; then the trial goes on
    from its last finished epoch. The same seed takes a slot away at the same times, whatever runs
    on it.

    Args:
        curve_of: what a trial does.
        slots: trials at a time.
        preemptions_per_hour: how often a slot is taken away, on average.
        seed: decides when.
        startup_seconds: until a new machine stands where the old one did, the opening of the run
            included.
        start: the moment at which the simulation begins.
    """

    def __init__(
        self,
        curve_of: Callable[[TrialSpec], Curve],
        slots: int,
        preemptions_per_hour: float = 0.0,
        seed: int = 0,
        startup_seconds: float = 0.0,
        start: datetime = START,
    ) -> None:
        self._curve_of, self._startup, self._start = curve_of, startup_seconds, start
        self._slots = [_Slot(preemptions_per_hour, (seed, index)) for index in range(slots)]
        self._free = list(range(slots))
        self._events: list[tuple[float, int, _Run, bool]] = []  # when, number, what, lost
        self._number = 0
        self._opened: set[str] = set()
        self.seconds = 0.0
        """Of simulated time, until now."""
        self.lost_worker_seconds = 0.0
        """Taken by pre-emption: work begun in vain, and starting again."""
        self.cut_short: list[str] = []
        """Trials that would have gone on beyond the end of their curve."""

    def run(self, dispatcher: Dispatcher) -> None:
        """Play trials until no stage is left; see `Backend.run`.

        Raises:
            RuntimeError: the dispatcher waits for a trial that nobody runs.
        """
        try:
            self._fill(dispatcher)
            while self._events:
                self.seconds, _, run, lost = heapq.heappop(self._events)
                if not self._goes_on(dispatcher, run, lost):
                    self._free.insert(0, run.slot)
                self._fill(dispatcher)
        finally:
            dispatcher.close(self._now)
        if not dispatcher.exhausted:
            raise RuntimeError("a trial is waited for that nobody runs")

    @property
    def _now(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds)

    def _fill(self, dispatcher: Dispatcher) -> None:
        """Give every free slot a trial, as far as there are any."""
        while self._free and (spec := dispatcher.next_trial(self._now)) is not None:
            run = _Run(self._free.pop(0), spec, self._curve_of(spec), spec.known_epochs)
            dispatcher.receive(spec, TrialStarted(), self._now)
            if spec.trial_id in self._opened or spec.known_epochs:
                self._work(run, self._startup)
            else:
                again = spec.attempt > 1
                self._occupy(run, run.curve.opening, self._startup if again else 0.0)

    def _work(self, run: _Run, startup: float = 0.0) -> None:
        """Begin a trial's next epoch."""
        self._occupy(run, run.curve.seconds[run.done], startup)

    def _occupy(self, run: _Run, seconds: float, startup: float) -> None:
        slot, end = self._slots[run.slot], self.seconds + startup + seconds
        run.began, run.startup = self.seconds, startup
        self._number += 1
        lost = slot.taken < end
        heapq.heappush(self._events, (slot.taken if lost else end, self._number, run, lost))

    def _goes_on(self, dispatcher: Dispatcher, run: _Run, lost: bool) -> bool:
        """Tell what came of the work under way, and begin the next; False: the slot is free."""

        def send(message: Message) -> bool:
            return dispatcher.receive(run.spec, message, self._now)

        wasted = self.seconds - run.began if lost else run.startup
        self.lost_worker_seconds += wasted * run.curve.workers
        if lost:
            self._slots[run.slot].next(self.seconds)
            send(WorkerLost(with_node=True))
            return False
        if run.spec.trial_id not in self._opened and not run.done:
            self._opened.add(run.spec.trial_id)
            self._work(run)
            return True
        run.done += 1
        is_last = run.done == len(run.curve.scores)
        if send(_report(run, is_last and run.curve.whole)):
            return False
        if not is_last:
            self._work(run)
            return True
        if run.curve.failed:
            send(TrialFailed(reason="it had failed"))
        elif run.curve.whole:
            send(TrialFinished(measured={"validation": {}}))
        else:
            self.cut_short.append(run.spec.trial_id)
            send(TrialFailed(reason=RECORD_ENDS))
        return False


def _report(run: _Run, finished: bool) -> EpochFinished:
    scores = [s if math.isfinite(s) else -math.inf for s in run.curve.scores[: run.done]]
    best = max(range(run.done), key=scores.__getitem__)
    score = run.curve.scores[run.done - 1]
    return EpochFinished(
        epoch=run.done,
        score=score,
        validation={run.spec.run.selection.objective: score},
        best_epoch=best + 1,
        best_objective=run.curve.scores[best],
        finished=finished,
        seconds=run.curve.seconds[run.done - 1],
    )


class _Slot:
    """A machine, or a share of one, that can be taken away."""

    def __init__(self, per_hour: float, seed: tuple[int, int]) -> None:
        self._per_hour, self._random = per_hour, np.random.default_rng(seed)
        self.taken = math.inf
        self.next(0.0)

    def next(self, now: float) -> None:
        """Draw when it is taken away after now."""
        if self._per_hour:
            self.taken = now + self._random.exponential(3600 / self._per_hour)
