"""What happens to a trial, and who wants to know?

Tune's callbacks become four events, sent to listeners in order: the ledger first, then the
search, then the terminal.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from dsgkd.study.trial import Report, TrialSpec


class Listener(Protocol):
    """Somebody who follows the trials of a stage."""

    def started(self, spec: TrialSpec) -> None:
        """A trial was given to a worker (again, after a worker was lost)."""
        ...

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """A trial finished an epoch."""
        ...

    def ended(self, spec: TrialSpec, report: Report | None, state: str, reason: str) -> None:
        """A trial is over: `complete`, `pruned`, `failed` or `preempted`."""
        ...


class Dispatcher(Callback):
    """Turns Tune's callbacks into events."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners
        self.open: dict[str, tuple[TrialSpec, Report | None]] = {}

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial started."""
        spec: TrialSpec = trial.config["spec"]
        _, last = self.open.get(spec.trial_id, (spec, None))
        self.open[spec.trial_id] = (spec, last)
        for listener in self.listeners:
            listener.started(spec)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: Report, **info: Any
    ) -> None:
        """A trial reported."""
        spec: TrialSpec = trial.config["spec"]
        self.open[spec.trial_id] = (spec, result)
        for listener in self.listeners:
            listener.reported(spec, result)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial ended by itself or was stopped by the scheduler."""
        report = self.open[trial.config["spec"].trial_id][1]
        if report is None:
            self._end(trial.config["spec"], "failed", "it ended without a report")
        elif "failure" in report:
            self._end(trial.config["spec"], "failed", report["failure"])
        elif report["done"] and "tested" in report:
            self._end(trial.config["spec"], "complete", "")
        else:
            self._end(trial.config["spec"], "pruned", "stopped by the scheduler")

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial's worker was lost more often than it is started again."""
        self._end(trial.config["spec"], "failed", "its worker was lost again and again")

    def interrupt(self) -> None:
        """End what is still open because the study stops; it can be resumed."""
        for spec, _ in list(self.open.values()):
            self._end(spec, "preempted", "the study was interrupted")

    def _end(self, spec: TrialSpec, state: str, reason: str) -> None:
        _, report = self.open.pop(spec.trial_id)
        for listener in self.listeners:
            listener.ended(spec, report, state, reason)
