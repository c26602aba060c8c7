"""What happens to a trial, and who wants to know?

Tune's callbacks become three events, sent to listeners in order: the ledger first, then the
search, then the terminal. Each Tune trial is one attempt of one of ours. An attempt whose worker
or node was lost ends as `preempted` and the trial is handed out again; that is neither a failure
nor charged to it as one, unless its worker dies again and again where its node lives on.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ray.exceptions import ActorDiedError, NodeDiedError, RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from dsgkd.study.trial import Report, TrialSpec

WORKER_DEATHS = 5
"""So often a trial's worker may die on a living node without an epoch in between."""


class Listener(Protocol):
    """Somebody who follows the trials of a stage.

    A report always holds `epoch`, `score` and what the attempt cost so far: `worker_seconds` and
    `gpu_seconds` by the driver's clock, `peak_rss_mb` and `peak_gpu_mb`.
    """

    def started(self, spec: TrialSpec) -> None:
        """A trial was given to a worker."""
        ...

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """A trial finished an epoch."""
        ...

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        """An attempt is over: `complete`, `pruned`, `failed` or `preempted`."""
        ...


Next = Callable[[], TrialSpec | None]
ShouldStop = Callable[[TrialSpec], bool]
Exceeded = Callable[[], str | None]


class Dispatcher(Callback):
    """Hands out trials, turns Tune's callbacks into events, and decides who is stopped.

    Args:
        next_spec: returns the next trial, or None at the end.
        listeners: are told what happens, in this order.
        should_stop: whether a trial's last report is too low to go on.
        exceeded: says which limit of the study is reached; then all trials end, to be resumed.
        clock: seconds.
    """

    def __init__(
        self,
        next_spec: Next,
        listeners: Sequence[Listener],
        should_stop: ShouldStop | None = None,
        exceeded: Exceeded | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._next, self._listeners = next_spec, listeners
        self._should_stop = should_stop or (lambda spec: False)
        self._exceeded = exceeded or (lambda: None)
        self._clock = clock
        self._again: list[TrialSpec] = []
        self._handed: dict[str, TrialSpec] = {}
        self._started: dict[str, float] = {}
        self._last: dict[str, Report] = {}
        self._deaths: Counter[str] = Counter()
        self.limit: str | None = None
        """Which limit of the study was reached."""
        self.exhausted = False
        """No trial is left to hand out or to wait for."""

    def hand_out(self) -> TrialSpec | None:
        """Return the next trial to run; None: nothing now, perhaps later."""
        self.limit = self.limit or self._exceeded()
        if self._again:
            spec: TrialSpec | None = self._again.pop(0)
        else:
            spec = None if self.limit else self._next()
        if spec is not None:
            self._handed[spec.trial_id] = spec
        self.exhausted = spec is None and not self._handed
        return spec

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial's worker is there."""
        spec: TrialSpec = trial.config["spec"]
        self._started[spec.trial_id] = self._clock()
        for listener in self._listeners:
            listener.started(spec)

    def report(self, spec: TrialSpec, report: Report) -> bool:
        """Pass a report on; return whether the trial is to be stopped."""
        if spec.trial_id not in self._started:
            return True  # it ended before
        report = report | self._cost(spec)
        self._last[spec.trial_id] = report
        if report["epoch"] > spec.known_epochs:
            self._deaths[spec.trial_id] = 0
        for listener in self._listeners:
            listener.reported(spec, report)
        if report["done"]:
            failed = "failure" in report
            self._end(spec, "failed" if failed else "complete", report.get("failure", ""))
            return True
        if self._should_stop(spec):
            self._end(spec, "pruned", f"below the others after epoch {report['epoch']}")
            return True
        self.limit = self.limit or self._exceeded()
        if self.limit:
            self._end(spec, "preempted", f"the study reached {self.limit}")
            return True
        return False

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial ended by itself; its last report said so, unless there was none."""
        spec: TrialSpec = trial.config["spec"]
        if spec.trial_id in self._started and self._handed.get(spec.trial_id) == spec:
            self._end(spec, "failed", "it ended without a last report")

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial's worker was lost: it goes on elsewhere from its last checkpoint."""
        spec: TrialSpec = trial.config["spec"]
        if self._handed.get(spec.trial_id) != spec:
            return
        error = trial.get_pickled_error()
        node_lost = _is_of_node(error)
        began = spec.trial_id in self._started
        report = self._last.get(spec.trial_id)
        known = max(spec.known_epochs, report["epoch"] if report else 0)
        if began:
            where = "node" if node_lost else "worker"
            self._end(spec, "preempted", f"its {where} was lost")
        else:
            del self._handed[spec.trial_id]
        if not node_lost:
            self._deaths[spec.trial_id] += 1
        refused = ""
        if self._deaths[spec.trial_id] >= WORKER_DEATHS:
            refused = f"its worker died {WORKER_DEATHS} times without finishing an epoch"
        attempt = spec.attempt + began
        self._again.append(replace(spec, attempt=attempt, known_epochs=known, refused=refused))

    def interrupt(self) -> bool:
        """End what is still open because the study stops; return whether there was anything."""
        open_trials = [spec for spec in self._handed.values() if spec.trial_id in self._started]
        for spec in open_trials:
            self._end(spec, "preempted", "the study was interrupted")
        return bool(open_trials or self._again)

    def _cost(self, spec: TrialSpec) -> dict[str, float]:
        seconds = (self._clock() - self._started[spec.trial_id]) * spec.workers
        return {"worker_seconds": seconds, "gpu_seconds": seconds * spec.gpus_per_worker}

    def _end(self, spec: TrialSpec, state: str, reason: str) -> None:
        nothing = {"epoch": 0, "score": None, "peak_rss_mb": None, "peak_gpu_mb": None}
        report = self._last.pop(spec.trial_id, nothing) | self._cost(spec)
        del self._started[spec.trial_id], self._handed[spec.trial_id]
        for listener in self._listeners:
            listener.ended(spec, report, state, reason)


def _is_of_node(error: BaseException | None) -> bool:
    """Whether an actor was lost with its node, and not by what it did itself."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    if isinstance(error, RayActorError) and error.preempted:
        return True
    if isinstance(error, ActorDiedError):
        return "node" in str(error).lower().split("worker", 1)[0]
    return isinstance(error, NodeDiedError)
