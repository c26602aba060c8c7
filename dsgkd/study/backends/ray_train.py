"""Trials of several workers: under Ray Train, and still epoch by epoch.

Its Tune actor starts Ray Train in a thread and hands Tune one report a step, like that of any other
trial. The workers wait at an `EpochBarrier` after each epoch until Tune asks for the next one. So a
trial that is stopped early ends by itself, after the epoch on which it was judged: Ray Train takes
its workers and their placement group down in order. (Killed instead, it would leave the placement
group behind, and the next trial would wait for it.) A lost worker ends the attempt, as it does
where there is only one; Ray Train's own retries would go into nobody's ledger.
"""

import os
from threading import Thread
from typing import Any

import ray
import ray.train
from ray import tune
from ray.exceptions import RayActorError
from ray.train import (
    FailureConfig,
    PreemptionError,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dsgkd.study.backends.epoch_barrier import EpochBarrier
from dsgkd.study.backends.tune import TuneBackend
from dsgkd.study.messages import EpochFinished, Report, TrialFailed, pack
from dsgkd.study.spec import TrialSpec
from dsgkd.training.workers import Workers

PATIENCE = 60.0
"""Seconds in which Ray Train has to end after its workers have."""


class RayTrainBackend(TuneBackend):
    """Runs trials of several workers; Tune's actor of each takes no CPU.

    Train reserves the CPUs of its workers by itself, and an actor that held one could starve them;
    but Tune wants a resource named.
    """

    reuses_actors = False

    def trainable(self) -> Any:
        """Return what Tune runs for a trial."""
        return tune.with_resources(DistributedTrial, {"cpu": 0, "node:__internal_head__": 0.001})


class DistributedTrial(tune.Trainable):
    """Runs a trial of several workers; it trains nothing itself.

    Not reused for the next trial: Tune would keep it, and its workers with it, until there is one.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start Ray Train."""
        # Train polls its workers every two seconds, and a trial waits for several polls. Set here
        # because this process, not the study's driver, is the one that Train passes it on from.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        barrier: Any = ray.remote(EpochBarrier)  # Ray's handles know their methods at run time only
        self._barrier = barrier.options(num_cpus=0, scheduling_strategy=here).remote()
        self._asked = False
        self._error: Exception | None = None
        self._training = Thread(target=self._fit, args=(config,), daemon=True)
        self._training.start()

    def _fit(self, config: dict[str, Any]) -> None:
        try:
            _trainer(config | {"barrier": self._barrier}).fit()
        except Exception as error:
            self._error = error
        ray.get(self._barrier.close.remote())

    def step(self) -> dict[str, Any]:
        """Let the workers train one epoch.

        Raises:
            ray.train.TrainingFailedError: a worker was lost.
        """
        if self._asked:
            self._barrier.answer.remote(True)
        report: Report | None = ray.get(self._barrier.next_report.remote())
        self._asked = report is not None
        if report is None:
            raise self._error or RuntimeError("the workers ended without a last report")
        if isinstance(report, TrialFailed):
            self._end()
            if self._error is not None and _is_loss(self._error):
                raise self._error  # what another worker met is what came of it
        return pack(report)

    def cleanup(self) -> None:
        """Let the workers end, and Ray Train after them."""
        self._end()
        ray.kill(self._barrier)

    def _end(self) -> None:
        self._barrier.answer.remote(False)
        self._training.join(PATIENCE)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: the loop keeps its own checkpoints in the trial's folder."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Do nothing: the loop finds its own checkpoint in the trial's folder."""


def _is_loss(error: Exception) -> bool:
    """Whether a worker died, or was about to with its node."""
    if isinstance(error, WorkerGroupError):
        failures = error.worker_failures.values()
        # Train wraps what it met when it asked a worker how it was.
        causes = [getattr(failure, "health_check_failure", failure) for failure in failures]
        return any(isinstance(cause, RayActorError) for cause in causes)
    return isinstance(error, PreemptionError)


class _FailedError(Exception):
    """Ends all workers of a trial because one of them has reported a failure."""


def _trainer(config: dict[str, Any]) -> TorchTrainer:
    spec: TrialSpec = config["spec"]
    return TorchTrainer(
        _work,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=spec.workers,
            use_gpu=spec.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": spec.cpus_per_worker,
                **({"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=str(spec),
            storage_path=spec.scratch,
            failure_config=FailureConfig(
                max_failures=0,
                max_preemption_failures=0,  # type: ignore[call-arg]
            ),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """Be one of the workers. The first one reports; but if another fails alone, that one."""
    barrier, workers = config["barrier"], Workers.current()
    for report in config["steps"](config["spec"]):
        if isinstance(report, TrialFailed):
            ray.get(barrier.report.remote(report))
            raise _FailedError
        go_on = workers.rank > 0 or ray.get(barrier.report.remote(report))
        if not isinstance(report, EpochFinished) or not workers.gather(go_on)[0]:
            return
