"""How are many trials run on a Ray cluster? One function, for every stage of a study."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dsgkd.study.events import Dispatcher, Listener
from dsgkd.study.trial import TrialActor, TrialSpec, distributed_trial

# The ledger replaces Tune's own CSV, JSON and TensorBoard files.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Our own progress lines replace its tables.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

Next = Callable[[], TrialSpec | None]

LOST_WORKERS = 5
"""How often a trial is started again after its worker was lost."""


class _Feed(Searcher):
    """Hands trials to Tune one by one, from whatever decides what comes next."""

    def __init__(self, next_spec: Next) -> None:
        super().__init__(metric="score", mode="max")
        self._next = next_spec

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        spec = self._next()
        # Tune's sentinel for "no more" is a string, whatever the base class's annotation says.
        return Searcher.FINISHED if spec is None else {"spec": spec}  # type: ignore[return-value]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the listeners are told by the dispatcher."""

    # Tune may save its searcher at any time; ours has its state elsewhere.
    def save(self, checkpoint_path: str) -> None: ...
    def restore(self, checkpoint_path: str) -> None: ...
    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...
    def get_state(self) -> dict[str, Any]:
        return {}


class _PerMethod(TrialScheduler):
    """One scheduler a method, so that no method's trials are stopped by another's head start."""

    def __init__(self, new_scheduler: Callable[[], TrialScheduler]) -> None:
        super().__init__()
        self._new = new_scheduler
        self._schedulers: dict[str, TrialScheduler] = {}

    def _of(self, trial: Any) -> TrialScheduler:
        method = trial.config["spec"].method
        if method not in self._schedulers:
            self._schedulers[method] = self._new()
        return self._schedulers[method]

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(controller, trial)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["score"] is None:
            return TrialScheduler.CONTINUE
        return self._of(trial).on_trial_result(controller, trial, result)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if result["score"] is not None:
            self._of(trial).on_trial_complete(controller, trial, result)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_error(controller, trial)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(controller, trial)

    def choose_trial_to_run(self, controller: Any) -> Any:
        return FIFOScheduler().choose_trial_to_run(controller)

    def debug_string(self) -> str:
        return "one scheduler for each method"

    def save(self, checkpoint_path: str) -> None: ...
    def restore(self, checkpoint_path: str) -> None: ...


def asha(epochs: int, grace_epochs: int, reduction_factor: float = 3.0) -> TrialScheduler:
    """Return asynchronous successive halving over epochs, for each method by itself.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """
    return _PerMethod(
        lambda: ASHAScheduler(
            time_attr="epoch",
            metric="score",
            mode="max",
            max_t=epochs + 1,  # a trial ends by itself at its last epoch
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
        )
    )


def run_trials(
    next_spec: Next,
    listeners: Sequence[Listener],
    workers_per_trial: int,
    resources: dict[str, float],
    max_concurrent: int,
    folder: Path,
    scheduler: TrialScheduler | None = None,
) -> None:
    """Run trials until there is none left.

    Args:
        next_spec: returns the next trial, or None at the end.
        listeners: are told what happens, in this order.
        workers_per_trial: 1: in the Tune actor; more: under Ray Train.
        resources: of one worker, `{"cpu": 1}` or with `"gpu"`.
        max_concurrent: trials at a time.
        folder: for Tune's own files.
        scheduler: stops unpromising trials; None: no trial is stopped.

    Raises:
        KeyboardInterrupt: the user stopped it; every listener knows which trials were cut off.
    """
    trainable: Any
    if workers_per_trial == 1:
        trainable = tune.with_resources(TrialActor, resources)
    else:
        # The driver of a Ray Train trial takes no CPU (Train reserves those of its workers by
        # itself, and a driver that held one could starve them) but Tune wants a resource named.
        trainable = tune.with_resources(
            distributed_trial, {"cpu": 0, "node:__internal_head__": 0.001}
        )
    dispatcher = Dispatcher(listeners)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_Feed(next_spec),
            scheduler=scheduler or FIFOScheduler(),
            num_samples=-1,
            max_concurrent_trials=max_concurrent,
            reuse_actors=workers_per_trial == 1,
            metric="score",
            mode="max",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[dispatcher],
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        interrupted = bool(dispatcher.open)
        dispatcher.interrupt()
    if interrupted:
        raise KeyboardInterrupt


def slots(workers_per_trial: int, resources: dict[str, float]) -> int:
    """Return how many trials fit on the cluster at once."""
    cluster = ray.cluster_resources()
    fits = [
        cluster.get(name.upper(), 0.0) / (amount * workers_per_trial)
        for name, amount in resources.items()
        if amount > 0
    ]
    return int(min(fits))
