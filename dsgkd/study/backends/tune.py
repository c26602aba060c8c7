"""Trials on a Ray cluster: one run of Tune for all stages of a study.

Workers and what they have imported serve all stages.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray
from ray import tune
from ray.exceptions import ActorDiedError, NodeDiedError, RayActorError
from ray.train import PreemptionError, WorkerGroupError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from dsgkd.errors import StorageError
from dsgkd.study.backends.backend import Steps, new_clock
from dsgkd.study.dispatcher import Dispatcher
from dsgkd.study.messages import Message, TrialFailed, TrialStarted, WorkerLost, pack, unpack
from dsgkd.study.spec import TrialSpec
from dsgkd.study.trial import trial_steps

# The ledger replaces Tune's own CSV, JSON and TensorBoard files.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Our own progress lines replace its tables.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Its state is never restored, so it is not written down again and again: for every trial that
# keeps 40 kB of text in memory.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class TuneBackend:
    """Runs trials of one worker, each in an actor of Tune.

    Args:
        resources: of one worker, `{"cpu": 1}` or with `"gpu"`.
        concurrent: trials at a time.
        folder: local, for Tune's own files; removed at the end, nothing in it is needed again.
        steps: what a trial does.
    """

    reuses_actors = True

    def __init__(
        self,
        resources: dict[str, float],
        concurrent: int,
        folder: Path,
        steps: Steps = trial_steps,
    ) -> None:
        self.resources, self._concurrent = resources, concurrent
        self._folder, self._steps = folder, steps

    def trainable(self) -> Any:
        """Return what Tune runs for a trial."""
        return tune.with_resources(TrialActor, self.resources)

    def run(self, dispatcher: Dispatcher) -> None:
        """Run trials until no stage is left; see `Backend.run`."""
        shutil.rmtree(self._folder, ignore_errors=True)  # a study that was killed has left it
        clock, link = new_clock(), _Link(dispatcher)
        source = TrialSource(link, clock, self._steps)
        tuner = tune.Tuner(
            self.trainable(),
            tune_config=tune.TuneConfig(
                search_alg=source,
                num_samples=-1,
                max_concurrent_trials=self._concurrent,
                reuse_actors=self.reuses_actors,
                metric="score",
                mode="max",
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self._folder),
                callbacks=[CallbackAdapter(link, clock)],
                stop=StopperAdapter(link, clock, source),
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
            if isinstance(error, OSError) and link.error is None:  # in Tune's own files
                raise StorageError.of(self._folder, error) from None
            raise link.error or error from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)  # Tune leaves its own behind
            with suppress(StorageError):  # what cannot be written now is read as cut off later
                dispatcher.close(clock())
            shutil.rmtree(self._folder, ignore_errors=True)
        if not dispatcher.exhausted:
            raise KeyboardInterrupt  # Tune ends quietly


class _Link:
    """The dispatcher as Tune's hooks see it: keeps what it raises, which Tune wraps."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.error: BaseException | None = None
        self.next_trial = self._noting(dispatcher.next_trial)
        self.receive = self._noting(dispatcher.receive)

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its hooks down to be restored; a study is restored from its ledger."""
        return {}

    def _noting(self, method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(method)
        def noted(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
            try:
                return method(*arguments, **keywords)
            except BaseException as error:
                self.error = self.error or error
                raise

        return noted


class TrialSource(Searcher):
    """Hands trials to Tune one by one."""

    def __init__(self, link: _Link, clock: Callable[[], Any], steps: Steps) -> None:
        super().__init__(metric="score", mode="max")
        self._link, self._clock, self._steps = link, clock, steps
        self.specs: dict[str, TrialSpec] = {}
        """Tune's name of a trial -> the attempt that it is."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        spec = self._link.next_trial(self._clock())
        if spec is not None:
            self.specs[trial_id] = spec
            return {"spec": spec, "steps": self._steps}
        exhausted = self._link.dispatcher.exhausted
        # Tune's sentinel for "no more" is a string, whatever the base class's annotation says.
        return Searcher.FINISHED if exhausted else None  # type: ignore[return-value]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the dispatcher is told by `CallbackAdapter`."""

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

    def __init__(self, link: _Link, clock: Callable[[], Any], source: TrialSource) -> None:
        self._link, self._clock, self._source = link, clock, source

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._link.receive(self._source.specs[trial_id], unpack(result), self._clock())

    def stop_all(self) -> bool:
        return False


class CallbackAdapter(tune.Callback):
    """Turns Tune's callbacks into messages."""

    def __init__(self, link: _Link, clock: Callable[[], Any]) -> None:
        self._link, self._clock = link, clock

    def _send(self, trial: TuneTrial, message: Message) -> None:
        self._link.receive(trial.config["spec"], message, self._clock())

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self._send(trial, TrialStarted())

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        # Its last report has ended the trial before, unless there was none.
        self._send(trial, TrialFailed(reason="it ended without a last report"))

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self._send(trial, WorkerLost(is_of_node(trial.get_pickled_error())))


class TrialActor(tune.Trainable):
    """Runs trials of one worker, one after another; reused, so that imports are paid once."""

    def setup(self, config: dict[str, Any]) -> None:
        self._steps = config["steps"](config["spec"])

    def step(self) -> dict[str, Any]:
        return pack(next(self._steps))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._steps = new_config["steps"](new_config["spec"])
        return True

    # The loop keeps its own checkpoints in the trial's folder.
    def save_checkpoint(self, checkpoint_dir: str) -> None: ...
    def load_checkpoint(self, checkpoint: object) -> None: ...


def is_of_node(error: BaseException | None) -> bool:
    """Whether an actor was lost with its node, and not by what it did itself.

    Of several workers one is enough: the loss of one makes the others fail in their own ways.
    """
    for wrapped in ("cause", "health_check_failure"):  # by a task's error, by Ray Train's
        inner = getattr(error, wrapped, None)
        if isinstance(inner, BaseException):
            return is_of_node(inner)
    if isinstance(error, PreemptionError):
        return True
    if isinstance(error, WorkerGroupError):
        return any(is_of_node(failure) for failure in error.worker_failures.values())
    if isinstance(error, RayActorError) and error.preempted:
        return True
    if isinstance(error, ActorDiedError):
        return "its node has died" in str(error)  # Ray has no field for it
    return isinstance(error, NodeDiedError)


def slots(workers_per_trial: int, resources: dict[str, float]) -> int:
    """Return how many trials fit on the cluster at once."""
    cluster = ray.cluster_resources()
    fits = [
        cluster.get(name.upper(), 0.0) / (amount * workers_per_trial)
        for name, amount in resources.items()
        if amount > 0
    ]
    return int(min(fits))
