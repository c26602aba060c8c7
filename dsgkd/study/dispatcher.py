"""The decisions of a study: which trial runs next, which is stopped, which is started again.

Backends ask for trials and pass on what happens to them, with the time at which it happened; so
the same dispatcher runs on a cluster and in a simulation. An attempt whose worker was lost ends as
`preempted` and the trial is handed out again; that is neither a failure nor charged as one, unless
its worker dies again and again where its machine lives on.

A trial can start from artefacts that other trials make (stage `link`). They are handed out before
the first trial that needs them; until they are there it waits, without a worker.
"""

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dsgkd.errors import StorageError
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.messages import (
    Charge,
    EpochFinished,
    Message,
    State,
    StorageFailed,
    TrialEnded,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    WorkerLost,
)
from dsgkd.study.spec import LINK, TrialSpec

WORKER_DEATHS = 5
"""So often a trial's worker may die on a living machine without an epoch in between."""


@dataclass
class Stage:
    """Trials that follow the same rules."""

    name: str
    trials: Iterator[TrialSpec | None] = field(default_factory=lambda: iter(()))
    """Asked for the next trial whenever there is room for one; None: not before another one has
    ended."""
    total: int = 0
    """Trials of the stage."""
    done: int = 0
    """Of them, those that were finished before."""
    callbacks: Sequence[TrialCallback] = ()
    """Called in this order."""
    should_stop: Callable[[TrialSpec], bool] = lambda spec: False
    """Whether a trial's last score is too low to go on."""
    rule: Callable[[], str] = lambda: ""
    """By what rule trials are stopped, for people, where it was chosen on the way."""
    exceeded: Callable[[datetime], str | None] = lambda at: None
    """The limit of the study that is reached, if any; then the stage ends, to be resumed."""
    known: bool = False
    """Which trials there are does not depend on how others end: however many of them wait for
    artefacts, the next one is asked for."""
    limit: str | None = None
    """The limit that was reached; set by the dispatcher."""


@dataclass
class _Attempt:
    """A trial that was handed out."""

    spec: TrialSpec
    started: datetime | None = None
    last: EpochFinished | None = None


class Dispatcher:
    """Hands out trials and decides on what is reported of them.

    Args:
        stages: each is asked for when the one before has no trial left or running.
        concurrent: trials at a time; of a stage whose trials depend on each other, not more than so
            many wait for artefacts.
        made: names of the links whose artefacts are there.
        broken: name of a link that failed before -> why.
    """

    def __init__(
        self,
        stages: Generator[Stage, None, None],
        concurrent: int = 1,
        made: Sequence[str] = (),
        broken: Mapping[str, str] | None = None,
    ) -> None:
        self._stages, self._concurrent = stages, concurrent
        self._stage = Stage("")
        self._open: dict[str, _Attempt] = {}
        self._ready: list[TrialSpec] = []  # handed out before the stage is asked for more
        self._waiting: list[TrialSpec] = []  # for links
        self._made, self._broken = set(made), dict(broken or {})
        self._cut_off: dict[str, TrialSpec] = {}  # links -> their next attempt
        self._deaths: Counter[str] = Counter()
        self.exhausted = False
        """No stage is left."""

    def next_trial(self, at: datetime) -> TrialSpec | None:
        """Return the next trial to run; None: nothing now, perhaps later."""
        while not self.exhausted:
            spec = self._next(at)
            if spec is not None:
                self._open[spec.trial_id] = _Attempt(spec)
                return spec
            if self._open:
                return None
            stage = next(self._stages, None)
            self.exhausted = stage is None
            self._stage = stage or self._stage
        return None

    def _next(self, at: datetime) -> TrialSpec | None:
        self._check_limit(at)
        if self._stage.limit:
            self._ready.clear()
            self._waiting.clear()
            return None
        while not self._ready and (self._stage.known or len(self._waiting) < self._concurrent):
            spec = next(self._stage.trials, None)
            if spec is None:
                break
            self._place(spec, at)
        return self._ready.pop(0) if self._ready else None

    def _place(self, spec: TrialSpec, at: datetime) -> None:
        """Let a trial run, wait for its links, or fail with one of them."""
        missing = [link for link in spec.needs if link.trial_id not in self._made]
        for link in missing:
            if link.trial_id in self._broken:
                reason = f"its {link.trial_id} failed: {self._broken[link.trial_id]}"
                attempt = self._open[spec.trial_id] = _Attempt(spec)
                self._start(attempt, at)
                self._end(attempt, "failed", reason, at)
                return
        if not missing:
            self._ready.append(spec)
            return
        self._waiting.append(spec)
        known = {*self._open, *(one.trial_id for one in (*self._ready, *self._waiting))}
        link = missing[0]
        if link.trial_id not in known:
            self._ready.append(self._cut_off.get(link.trial_id, link))

    def receive(self, spec: TrialSpec, message: Message, at: datetime) -> bool:
        """Take in what happened to a trial; return whether it has to stop.

        Raises:
            StorageError: the trial could not write; the study stops, to be resumed.
        """
        attempt = self._open.get(spec.trial_id)
        if attempt is None or attempt.spec.attempt != spec.attempt:
            return True  # it ended before
        match message:
            case TrialStarted():
                self._start(attempt, at)
                return False
            case WorkerLost():
                self._lose(attempt, message.with_node, at)
                return True
        if attempt.started is None:
            return True
        match message:
            case EpochFinished():
                return self._judge(attempt, message, at)
            case TrialFinished():
                last = attempt.last
                if last is not None and not math.isfinite(last.best_objective):
                    self._end(attempt, "failed", "its objective is not a number", at, message)
                else:
                    self._end(attempt, "complete", "", at, message)
            case TrialFailed():
                self._end(attempt, "failed", message.reason, at, message)
            case StorageFailed():
                self._end(attempt, "preempted", "its folder could not be written", at)
                raise StorageError(message.where, message.what, message.remedy)
        return True

    def _start(self, attempt: _Attempt, at: datetime) -> None:
        for callback in self._stage.callbacks:
            callback.on_start(attempt.spec, at)
        attempt.started = at  # now all of them know it, and can be told of its end

    def _judge(self, attempt: _Attempt, epoch: EpochFinished, at: datetime) -> bool:
        spec, attempt.last = attempt.spec, epoch
        if epoch.epoch > spec.known_epochs:
            self._deaths[spec.trial_id] = 0
        charge = _charge(attempt, at)
        for callback in self._stage.callbacks:
            callback.on_epoch(spec, epoch, charge)
        if epoch.finished:
            return False
        if spec.stage != LINK and self._stage.should_stop(spec):
            rule = self._stage.rule()
            reason = f"below the others after epoch {epoch.epoch}" + (f"; {rule}" if rule else "")
            self._end(attempt, "pruned", reason, at)
            return True
        self._check_limit(at)
        if self._stage.limit:
            self._end(attempt, "preempted", f"the study reached {self._stage.limit}", at)
            return True
        return False

    def _lose(self, attempt: _Attempt, with_node: bool, at: datetime) -> None:
        spec, began = attempt.spec, attempt.started is not None
        self._deaths[spec.trial_id] += not with_node
        if self._deaths[spec.trial_id] >= WORKER_DEATHS:
            if not began:
                self._start(attempt, at)
            reason = f"its worker died {WORKER_DEATHS} times within an epoch"
            self._end(attempt, "failed", reason, at)
            return
        if began:
            reason = f"its {'node' if with_node else 'worker'} was lost"
            self._end(attempt, "preempted", reason, at)
            spec = _next_attempt(attempt)
        else:
            del self._open[spec.trial_id]
        self._ready.append(spec)

    def close(self, at: datetime) -> None:
        """End what is still open, because the study stops or is over."""
        try:
            for attempt in list(self._open.values()):
                if attempt.started is not None:
                    self._end(attempt, "preempted", "the study was interrupted", at)
        finally:
            self._stages.close()

    def _check_limit(self, at: datetime) -> None:
        self._stage.limit = self._stage.limit or self._stage.exceeded(at)

    def _end(
        self,
        attempt: _Attempt,
        state: State,
        reason: str,
        at: datetime,
        final: TrialFinished | TrialFailed | None = None,
    ) -> None:
        trial_id = attempt.spec.trial_id
        del self._open[trial_id]
        end = TrialEnded(state, reason, _charge(attempt, at), attempt.last, final)
        for callback in self._stage.callbacks:
            callback.on_end(attempt.spec, end)
        if attempt.spec.stage != LINK:
            return
        if state == "preempted":
            self._cut_off[trial_id] = _next_attempt(attempt)
            return
        if state == "complete":
            self._made.add(trial_id)
        else:
            self._broken[trial_id] = reason
        waiting, self._waiting = self._waiting, []
        for spec in waiting:
            self._place(spec, at)


def _next_attempt(attempt: _Attempt) -> TrialSpec:
    spec = attempt.spec
    known = max(spec.known_epochs, attempt.last.epoch if attempt.last else 0)
    return replace(spec, attempt=spec.attempt + 1, known_epochs=known)


def _charge(attempt: _Attempt, at: datetime) -> Charge:
    spec = attempt.spec
    seconds = (at - (attempt.started or at)).total_seconds() * spec.workers
    return Charge(at, seconds, seconds * spec.gpus_per_worker)
