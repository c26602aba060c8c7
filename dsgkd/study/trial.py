"""What is one trial, and how does it run?

A trial of one worker trains inside its Tune actor; a trial of several trains under Ray Train.
Both walk through the same steps, `trial_steps`, and report the same dictionaries.
"""

import os
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray import tune
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from dsgkd.distillation.store.depot import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.student import StudentCard, save_student
from dsgkd.study.ledger import Ledger
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.loop import DivergedError, restore_best, train
from dsgkd.training.metrics import improvement, measures
from dsgkd.training.run import OpenRun, RunConfig, open_run
from dsgkd.training.workers import Workers

Report = dict[str, Any]

OWN_TEACHER = "teacher"
"""Folder of a trial for a teacher that no other trial has; it goes when the trial is over."""


@dataclass(frozen=True)
class TrialSpec:
    """One trial, whole: whoever has it can run it."""

    study_id: str
    trial_id: str
    """Stable over resumption, like `search-mlkd-003`."""
    attempt: int
    stage: str
    method: str
    run: RunConfig
    folder: str
    """Where its checkpoints and its model are kept."""
    cache: str
    store: StoreConfig
    """Where teachers are stored."""
    ledger: str
    splits: tuple[str, ...]
    """Splits whose predictions are written at the end."""
    keep_model: bool
    """Whether the trained student is kept."""
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0


def trial_steps(spec: TrialSpec, workers: Workers | None = None) -> Iterator[Report]:
    """Train, and yield one report an epoch; the last one has `done` set.

    An error of ours or of the input ends the trial with a report of `failure`; it is not raised,
    because raising is how Tune sees a lost worker, and lost workers are started again.
    """
    workers = workers or Workers.current()
    started = time.perf_counter()
    try:
        torch.set_num_threads(max(1, spec.cpus_per_worker))
        if torch.cuda.is_available() and 0 < spec.gpus_per_worker < 1:
            torch.cuda.set_per_process_memory_fraction(spec.gpus_per_worker)
        run = open_run(spec.run, Path(spec.cache), spec.store)
        use = run.teacher.store if run.teacher else None
        folder = Path(spec.folder)
        objective = spec.run.selection.objective
        held = None
        for result in train(run, folder, workers):
            if held is not None:
                yield held
            held = {
                "epoch": result.epoch,
                "score": improvement(objective, result.validation[objective]),
                "best_score": improvement(objective, result.best_objective),
                "result": asdict(result),
                "done": False,
                "teacher_store": use,
                **_cost(started, spec),
            }
        assert held is not None  # `train` yields at least the result of a finished run
        held |= {"tested": _finish(run, spec, folder, workers), "done": True}
        shutil.rmtree(folder / OWN_TEACHER, ignore_errors=True)
        yield held | _cost(started, spec)
    except (InputError, DivergedError) as error:
        yield _failure(str(error), started, spec)
    except Exception as error:
        # Only the kind of error: a library's message may quote what it was reading.
        yield _failure(f"{type(error).__name__} in {_place(error)}", started, spec)


def _finish(run: OpenRun, spec: TrialSpec, folder: Path, workers: Workers) -> dict[str, Any]:
    """Predict with the best weights; return the measures by split."""
    restore_best(run, folder)
    tested: dict[str, Any] = {}
    validation = run.notes.split("validation")
    threshold = 0.5
    for split in dict.fromkeys(("validation", *spec.splits)):
        notes = validation if split == "validation" else run.notes.split(split)
        probability = predict(run, notes, workers)
        if split == "validation":
            threshold = validation_threshold(run, notes.labels, probability)
        tested[split] = measures(notes.labels, probability, threshold) | {"threshold": threshold}
        if split in spec.splits and workers.rank == 0:
            rows = [
                {
                    "study_id": spec.study_id,
                    "trial_id": spec.trial_id,
                    "attempt": spec.attempt,
                    "split": split,
                    "example_id": example_id,
                    "group_id": group_id,
                    "label": int(label),
                    "probability": row.tolist(),
                    "words_transferred": int(words),
                    "length": int(length),
                }
                for example_id, group_id, label, row, words, length in zip(
                    notes.example_ids,
                    notes.group_ids,
                    notes.labels,
                    probability,
                    np.minimum(notes.words.lengths, spec.run.distillation.cs_max_len),
                    notes.lengths,
                    strict=True,
                )
            ]
            name = f"{spec.trial_id}-{spec.attempt}-{split}"
            Ledger(spec.ledger).write("predictions", rows, name)
    if spec.keep_model and workers.rank == 0:
        card = StudentCard(
            run.label_names,
            spec.run.student.head,
            spec.run.max_length,
            threshold,
            spec.method,
            dict(tested["validation"]),
        )
        save_student(folder / "model", run.distiller.student, run.tokenizer, card)
    return tested


def _cost(started: float, spec: TrialSpec) -> dict[str, float]:
    seconds = time.perf_counter() - started
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return {
        "worker_seconds": seconds * spec.workers,
        "gpu_seconds": seconds * spec.workers * spec.gpus_per_worker,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mb": gpu,
    }


def _failure(reason: str, started: float, spec: TrialSpec) -> Report:
    return {"epoch": 0, "score": None, "failure": reason, "done": True, **_cost(started, spec)}


def _place(error: Exception) -> str:
    """Return file and line of our own code in which an error arose."""
    place, trace = "an unknown place", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if f"{os.sep}dsgkd{os.sep}" in file:
            place = f"{os.path.basename(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


class TrialActor(tune.Trainable):
    """Runs trials of one worker, one after another; reused, so that imports are paid once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take up the first trial."""
        self._steps = trial_steps(config["spec"])

    def step(self) -> Report:
        """Train one epoch."""
        return next(self._steps)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial."""
        self._steps = trial_steps(new_config["spec"])
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: the loop keeps its own checkpoints in the trial's folder."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Do nothing: the loop finds its own checkpoint in the trial's folder."""


def distributed_trial(config: dict[str, Any]) -> None:
    """Run a trial of several workers under Ray Train, inside a Tune trial."""
    # Train polls its workers every two seconds, and a trial waits for several polls. Set here
    # because this process, not the study's driver, is the one that Train passes it on from.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    spec: TrialSpec = config["spec"]
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"spec": spec},
        scaling_config=ScalingConfig(
            num_workers=spec.workers,
            use_gpu=spec.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": spec.cpus_per_worker,
                **({"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"{spec.trial_id}-{spec.attempt}",
            storage_path=str(Path(spec.folder) / "ray_train"),
            failure_config=FailureConfig(max_failures=3),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        ),
    )
    trainer.fit()


def _train_worker(config: dict[str, Any]) -> None:
    for report in trial_steps(config["spec"]):
        ray.train.report(report)
