"""What happens to a trial, and who wants to know?

Tune's callbacks become three events, sent to callbacks in order: the ledger first, then the
search, then the terminal. Each Tune trial is one attempt of one of ours. An attempt whose worker
or node was lost ends as `preempted` and the trial is handed out again; that is neither a failure
nor charged to it as one, unless its worker dies again and again where its node lives on.

A study's stages come one after the other in one run of Tune, so that workers and what they have
imported serve all of them.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from ray.exceptions import ActorDiedError, NodeDiedError, RayActorError
from ray.train import PreemptionError, WorkerGroupError
from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from dsgkd.errors import StorageError
from dsgkd.study.trial import Report, TrialSpec

WORKER_DEATHS = 5
"""So often a trial's worker may die on a living node without an epoch in between."""


class TrialCallback(Protocol):
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


@dataclass
class Stage:
    """Trials that follow the same rules."""

    name: str
    next_spec: Callable[[], TrialSpec | None]
    """Returns the next trial; None: there is none left."""
    total: int = 0
    """Trials of the stage."""
    done: int = 0
    """Of them, those that were finished before."""
    callbacks: Sequence[TrialCallback] = ()
    """Are told what happens, in this order."""
    should_stop: Callable[[TrialSpec], bool] = lambda spec: False
    """Whether a trial's last report is too low to go on."""
    exceeded: Callable[[], str | None] = lambda: None
    """Says which limit of the study is reached, if any; then the stage ends, to be resumed."""
    limit: str | None = None
    """The limit that was reached; noted by the dispatcher."""


Method = TypeVar("Method", bound=Callable[..., Any])


def _noting_errors(method: Method) -> Method:
    """Keep what a method raises in `error`: Tune wraps it into an error of its own."""

    @wraps(method)
    def noted(self: "Dispatcher", *arguments: Any, **keywords: Any) -> Any:
        try:
            return method(self, *arguments, **keywords)
        except BaseException as error:
            self.error = self.error or error
            raise

    return cast(Method, noted)


class Dispatcher(Callback):
    """Hands out trials, turns Tune's callbacks into events, and decides who is stopped.

    Args:
        stages: each is asked for when the one before has no trial left or running.
        clock: seconds.
    """

    def __init__(
        self, stages: Iterator[Stage], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stages, self._clock = stages, clock
        self._stage = Stage("", lambda: None)
        self._again: list[TrialSpec] = []
        self._handed: dict[str, TrialSpec] = {}
        self._started: dict[str, float] = {}
        self._last: dict[str, Report] = {}
        self._deaths: Counter[str] = Counter()
        self.exhausted = False
        """No stage is left."""
        self.error: BaseException | None = None
        """What the study, its ledger or its search raised first."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes itself down to be restored; a study is restored from its ledger."""
        return {}

    @_noting_errors
    def hand_out(self) -> TrialSpec | None:
        """Return the next trial to run; None: nothing now, perhaps later."""
        while not self.exhausted:
            spec = self._next()
            if spec is not None:
                self._handed[spec.trial_id] = spec
                return spec
            if self._handed:
                return None
            stage = next(self._stages, None)
            self.exhausted = stage is None
            self._stage = stage or self._stage
        return None

    def _next(self) -> TrialSpec | None:
        self._look_at_limits()
        if self._stage.limit:
            self._again.clear()
            return None
        return self._again.pop(0) if self._again else self._stage.next_spec()

    def _look_at_limits(self) -> None:
        self._stage.limit = self._stage.limit or self._stage.exceeded()

    @_noting_errors
    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial's worker is there."""
        spec: TrialSpec = trial.config["spec"]
        now = self._clock()
        for callback in self._stage.callbacks:
            callback.started(spec)
        self._started[spec.trial_id] = now  # now all of them know it, and can be told of its end

    @_noting_errors
    def report(self, spec: TrialSpec, report: Report) -> bool:
        """Pass a report on; return whether the trial is to be stopped.

        Raises:
            StorageError: the trial could not write; the study stops, to be resumed.
        """
        if spec.trial_id not in self._started:
            return True  # it ended before
        if "unwritable" in report:
            self._end(spec, "preempted", "its folder could not be written")
            raise StorageError(*report["unwritable"])
        report = report | self._cost(spec)
        self._last[spec.trial_id] = report
        if report["epoch"] > spec.known_epochs:
            self._deaths[spec.trial_id] = 0
        for callback in self._stage.callbacks:
            callback.reported(spec, report)
        if report["done"]:
            why = report.get("failure", "")
            if not why and not math.isfinite(report.get("best_score", 0.0)):
                why = "its objective is not a number"
            self._end(spec, "failed" if why else "complete", why)
            return True
        if self._stage.should_stop(spec):
            self._end(spec, "pruned", f"below the others after epoch {report['epoch']}")
            return True
        self._look_at_limits()
        if self._stage.limit:
            self._end(spec, "preempted", f"the study reached {self._stage.limit}")
            return True
        return False

    @_noting_errors
    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial ended by itself; its last report said so, unless there was none."""
        spec: TrialSpec = trial.config["spec"]
        if spec.trial_id in self._started and self._handed.get(spec.trial_id) == spec:
            self._end(spec, "failed", "it ended without a last report")

    @_noting_errors
    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial's worker was lost: it goes on elsewhere from its last checkpoint."""
        spec: TrialSpec = trial.config["spec"]
        if self._handed.get(spec.trial_id) != spec:
            return
        node_lost = _is_of_node(trial.get_pickled_error())
        began = spec.trial_id in self._started
        report = self._last.get(spec.trial_id)
        known = max(spec.known_epochs, report["epoch"] if report else 0)
        self._deaths[spec.trial_id] += not node_lost
        if self._deaths[spec.trial_id] >= WORKER_DEATHS:
            if not began:
                self.on_trial_start(iteration, trials, trial)
            self._end(spec, "failed", f"its worker died {WORKER_DEATHS} times within an epoch")
            return
        if began:
            self._end(spec, "preempted", f"its {'node' if node_lost else 'worker'} was lost")
        else:
            del self._handed[spec.trial_id]
        self._again.append(replace(spec, attempt=spec.attempt + began, known_epochs=known))

    def interrupt(self) -> None:
        """End what is still open because the study stops."""
        for spec in [spec for spec in self._handed.values() if spec.trial_id in self._started]:
            self._end(spec, "preempted", "the study was interrupted")

    def _cost(self, spec: TrialSpec) -> dict[str, float]:
        seconds = (self._clock() - self._started[spec.trial_id]) * spec.workers
        return {"worker_seconds": seconds, "gpu_seconds": seconds * spec.gpus_per_worker}

    def _end(self, spec: TrialSpec, state: str, reason: str) -> None:
        nothing = {"epoch": 0, "score": None, "peak_rss_mb": None, "peak_gpu_mb": None}
        report = self._last.pop(spec.trial_id, nothing) | self._cost(spec)
        del self._started[spec.trial_id], self._handed[spec.trial_id]
        for callback in self._stage.callbacks:
            callback.ended(spec, report, state, reason)


def _is_of_node(error: BaseException | None) -> bool:
    """Whether an actor was lost with its node, and not by what it did itself.

    Of several workers one is enough: the loss of one makes the others fail in their own ways.
    """
    for wrapped in ("cause", "health_check_failure"):  # by a task's error, by Ray Train's
        inner = getattr(error, wrapped, None)
        if isinstance(inner, BaseException):
            return _is_of_node(inner)
    if isinstance(error, PreemptionError):
        return True
    if isinstance(error, WorkerGroupError):
        return any(_is_of_node(failure) for failure in error.worker_failures.values())
    if isinstance(error, RayActorError) and error.preempted:
        return True
    if isinstance(error, ActorDiedError):
        return "its node has died" in str(error)  # Ray has no field for it
    return isinstance(error, NodeDiedError)
