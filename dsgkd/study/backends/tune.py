"""How are many trials run on a Ray cluster? One run of Tune, for all stages of a study."""

import os
import shutil
import signal
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from dsgkd.errors import StorageError
from dsgkd.study.backends.ray_train import DistributedTrial
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.trial import Steps, TrialActor, TrialSpec, trial_steps, unpacked

# The ledger replaces Tune's own CSV, JSON and TensorBoard files.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Our own progress lines replace its tables.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Its state is never restored, so it is not written down again and again: for every trial that
# keeps 40 kB of text in memory.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")


class TrialSource(Searcher):
    """Hands trials to Tune one by one."""

    def __init__(self, dispatcher: Dispatcher, steps: Steps) -> None:
        super().__init__(metric="score", mode="max")
        self._dispatcher, self._steps = dispatcher, steps
        self.specs: dict[str, TrialSpec] = {}
        """Tune's name of a trial -> the attempt that it is."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        spec = self._dispatcher.hand_out()
        if spec is not None:
            self.specs[trial_id] = spec
            return {"spec": spec, "steps": self._steps}
        # Tune's sentinel for "no more" is a string, whatever the base class's annotation says.
        return Searcher.FINISHED if self._dispatcher.exhausted else None  # type: ignore[return-value]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the callbacks are told by the dispatcher."""

    # Tune may save its searcher at any time; ours has its state elsewhere.
    def save(self, checkpoint_path: str) -> None: ...
    def restore(self, checkpoint_path: str) -> None: ...
    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...
    def get_state(self) -> dict[str, Any]:
        return {}


class StopperAdapter(tune.Stopper):
    """Takes Tune's reports to the dispatcher, and its decisions back.

    A stopper, because Tune asks it before anybody else: so the ledger has a report before
    anything is decided on it.
    """

    def __init__(self, dispatcher: Dispatcher, feed: TrialSource) -> None:
        self._dispatcher, self._feed = dispatcher, feed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._dispatcher.report(self._feed.specs[trial_id], unpacked(result))

    def stop_all(self) -> bool:
        return False


def run_trials(
    stages: Generator[Stage, None, None],
    workers_per_trial: int,
    resources: dict[str, float],
    max_concurrent: int,
    folder: Path,
    steps: Steps = trial_steps,
) -> None:
    """Run trials until no stage is left.

    Args:
        stages: each is asked for when the one before is over.
        workers_per_trial: 1: in the Tune actor; more: under Ray Train.
        resources: of one worker, `{"cpu": 1}` or with `"gpu"`.
        max_concurrent: trials at a time.
        folder: for Tune's own files; removed at the end, because nothing in it is needed again.
        steps: what a trial does.

    Raises:
        StorageError: the ledger, a trial's folder or Tune's cannot be written.
        KeyboardInterrupt: the user stopped it; every callback knows which trials were cut off.
    """
    trainable: Any
    if workers_per_trial == 1:
        trainable = tune.with_resources(TrialActor, resources)
    else:
        # The actor of a Ray Train trial takes no CPU (Train reserves those of its workers by
        # itself, and an actor that held one could starve them) but Tune wants a resource named.
        trainable = tune.with_resources(
            DistributedTrial, {"cpu": 0, "node:__internal_head__": 0.001}
        )
    shutil.rmtree(folder, ignore_errors=True)  # a study that was killed has left it
    dispatcher = Dispatcher(stages)
    feed = TrialSource(dispatcher, steps)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=feed,
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
            stop=StopperAdapter(dispatcher, feed),
            # A lost worker ends Tune's trial; the dispatcher hands out the next attempt itself.
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    except Exception as error:
        if isinstance(error, OSError) and dispatcher.error is None:  # in Tune's own files
            raise StorageError.of(folder, error) from None
        raise dispatcher.error or error from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Tune leaves its own behind
        with suppress(StorageError):  # what cannot be written now is read as cut off later
            dispatcher.interrupt()
        stages.close()
        shutil.rmtree(folder, ignore_errors=True)
    if not dispatcher.exhausted:
        raise KeyboardInterrupt  # Tune ends quietly


def slots(workers_per_trial: int, resources: dict[str, float]) -> int:
    """Return how many trials fit on the cluster at once."""
    cluster = ray.cluster_resources()
    fits = [
        cluster.get(name.upper(), 0.0) / (amount * workers_per_trial)
        for name, amount in resources.items()
        if amount > 0
    ]
    return int(min(fits))
