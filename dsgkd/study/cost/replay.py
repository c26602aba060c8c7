"""What another cluster, scheduler or spot rate would have cost, and what it would have found.

The learning curves of an earlier study are played again by the simulated backend, under the
dispatcher and the early stopper of a study. No model is trained. The search is not asked again:
with other results it might have drawn other configurations, so this compares ways to run the same
trials.
"""

import math
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from dsgkd.errors import InputError
from dsgkd.study.backends.simulated import SimulatedBackend
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.cost.curves import Curve
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.search.config import PruningConfig
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.spec import TrialSpec
from dsgkd.training.config import RunConfig

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

    Args:
        curves: in the order in which they start. The longest has the number of epochs that a
            trial may run.
        slots: as in `SimulatedBackend`, like those below.
        pruning: when a trial is stopped.
        preemptions_per_hour: how often a slot is taken away, on average.
        seed: decides when.
        startup_seconds: until a new machine stands where the old one did.

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
    by_name = {curve.trial_id: curve for curve in curves}
    longest_run = max((len(curve.scores) for curve in curves), default=0)
    trials_each = min(Counter(curve.method for curve in curves).values(), default=0)
    stopper, tally = PruningCallback(pruning.resolved(trials_each), longest_run), _Tally()
    trials = iter([_spec(curve) for curve in curves])

    def stages() -> Generator[Stage, None, None]:
        yield Stage("search", trials, callbacks=(stopper, tally), should_stop=stopper.should_stop)

    backend = SimulatedBackend(
        lambda spec: by_name[spec.trial_id], slots, preemptions_per_hour, seed, startup_seconds
    )
    backend.run(Dispatcher(stages(), slots))
    best: dict[str, float] = {}
    for curve in curves:
        if curve.trial_id not in tally.pruned and math.isfinite(curve.best):
            best[curve.method] = max(best.get(curve.method, -math.inf), curve.best)
    return Replayed(
        hours=backend.seconds / 3600,
        worker_hours=tally.worker_seconds / 3600,
        gpu_hours=tally.gpu_seconds / 3600,
        lost_hours=backend.lost_worker_seconds / 3600,
        best=best,
        epochs_run=tally.epochs,
        pruned=len(tally.pruned),
        cut_short=len(backend.cut_short),
    )


class _Tally(TrialCallback):
    """Adds up what trials cost and how many epochs they finished."""

    def __init__(self) -> None:
        self.worker_seconds = self.gpu_seconds = 0.0
        self.epochs = 0
        self.pruned: set[str] = set()

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Count it."""
        self.epochs += 1

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Add what the attempt cost."""
        self.worker_seconds += end.charge.worker_seconds
        self.gpu_seconds += end.charge.gpu_seconds
        if end.state == "pruned":
            self.pruned.add(spec.trial_id)


_RUN = RunConfig()


def _spec(curve: Curve) -> TrialSpec:
    return TrialSpec(
        study_id="replay",
        trial_id=curve.trial_id,
        attempt=1,
        stage="search",
        method=curve.method,
        run=_RUN,
        workers=curve.workers,
        gpus_per_worker=curve.gpus / curve.workers,
    )
