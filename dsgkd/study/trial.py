"""What is one trial, and how does it run?

A trial of one worker trains inside its Tune actor, `TrialActor`; one of several trains under Ray
Train, see `distributed.py`. Both walk through the same steps, `trial_steps`, and report the same
dictionaries.
"""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray import tune

from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.errors import InputError, StorageError
from dsgkd.ledger import Ledger
from dsgkd.models.student import StudentCard, save_student
from dsgkd.tasks.measures import improvement, measures
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.loop import DivergedError, restore_best, train
from dsgkd.training.run import OpenRun, RunConfig, open_notes, open_run
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
    scratch: str
    """Folder for Ray's own files; it goes when the study ends."""
    keep_model: bool
    """Whether the trained student is kept."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the search drew: name -> value and distribution."""
    known_epochs: int = 0
    """Epochs whose figures earlier attempts have reported."""
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrialSpec":
        """Return itself: it does not change, and Tune keeps four copies of what it is given."""
        return self

    def __str__(self) -> str:
        """Return the attempt's name; Tune writes this, and no more, into its logs."""
        return f"{self.trial_id}-{self.attempt}"


Steps = Callable[[TrialSpec], Iterator[Report]]
"""What a trial does: one report for each of its steps, the last with `done` set."""


def trial_steps(spec: TrialSpec) -> Iterator[Report]:
    """Train, or in the test stage predict; yield one report an epoch, the last with `done` set.

    An error of ours or of the input ends the trial with a report of `failure`; it is not raised,
    because raising is how Tune sees a lost worker, and lost workers are started again. Where a
    place cannot be written the trial is not at fault: that is a report of `unwritable`.
    """
    workers = Workers.current()
    try:
        torch.set_num_threads(max(1, spec.cpus_per_worker))
        if torch.cuda.is_available() and 0 < spec.gpus_per_worker < 1:
            torch.cuda.set_per_process_memory_fraction(spec.gpus_per_worker)
        if spec.stage == "test":
            yield _test(spec, workers)
        else:
            yield from _train(open_run(spec.run, Path(spec.cache), spec.store), spec, workers)
    except StorageError as error:
        yield _failure(str(error)) | {"unwritable": error.args}
    except (InputError, DivergedError) as error:
        yield _failure(str(error))
    except Exception as error:
        # Only the kind of error: a library's message may quote what it was reading.
        yield _failure(f"{type(error).__name__} in {_place(error)}")


def _train(run: OpenRun, spec: TrialSpec, workers: Workers) -> Iterator[Report]:
    """Train; the last report holds the measures of the best epoch's weights."""
    folder, objective = Path(spec.folder), spec.run.selection.objective
    validation = len(run.notes.split("validation"))
    for result in train(run, folder, workers, spec.known_epochs):
        report = {
            "epoch": result.epoch,
            "score": improvement(objective, result.validation[objective]),
            "best_score": improvement(objective, result.best_objective),
            "ms_per_note": 1000 * result.evaluation_seconds / validation,
            "result": asdict(result),
            "done": result.finished,
            "teacher_store": run.teacher.store if run.teacher else None,
        }
        if result.finished:
            report["tested"] = _finish(run, spec, folder, workers)
            # Before the last report, because nobody asks for anything after it.
            shutil.rmtree(folder / OWN_TEACHER, ignore_errors=True)
        yield report | _peaks()


def _finish(run: OpenRun, spec: TrialSpec, folder: Path, workers: Workers) -> dict[str, Any]:
    """Predict the validation split with the best weights; return the measures by split."""
    restore_best(run, folder)
    notes = run.notes.split("validation")
    probability = predict(run, notes, workers)
    threshold = validation_threshold(run, notes.labels, probability)
    tested = {"validation": measures(notes.labels, probability, threshold)}
    if workers.rank == 0:
        _write_predictions(spec, "validation", notes, probability)
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
    return {split: measured | {"threshold": threshold} for split, measured in tested.items()}


def _test(spec: TrialSpec, workers: Workers) -> Report:
    """Predict the test split with the best weights of a confirmed run; no teacher is asked."""
    alone = replace(spec.run.distillation, teacher="", alpha=0.0, beta=0.0)
    run = open_run(replace(spec.run, distillation=alone), Path(spec.cache), spec.store)
    restore_best(run, Path(spec.folder))
    validation = run.notes.split("validation")
    notes = open_notes(spec.run, Path(spec.cache))[0].split("test")  # knows the teacher's words
    threshold = validation_threshold(run, validation.labels, predict(run, validation, workers))
    probability = predict(run, notes, workers)
    tested = {"test": measures(notes.labels, probability, threshold) | {"threshold": threshold}}
    if workers.rank == 0:
        _write_predictions(spec, "test", notes, probability)
    return {"epoch": 0, "score": None, "tested": tested, "done": True} | _peaks()


def _write_predictions(
    spec: TrialSpec, split: str, notes: EncodedNotes, probability: NDArray[np.float32]
) -> None:
    words = np.minimum(notes.words.lengths, spec.run.distillation.cs_max_len)
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
            "words_transferred": int(count),
            "length": int(length),
        }
        for example_id, group_id, label, row, count, length in zip(
            notes.example_ids,
            notes.group_ids,
            notes.labels,
            probability,
            words,
            notes.lengths,
            strict=True,
        )
    ]
    name = f"{spec}-{split}"
    Ledger(spec.ledger).write("predictions", rows, name)


def _peaks() -> dict[str, float]:
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_rss_mb": rss, "peak_gpu_mb": gpu}


def _failure(reason: str) -> Report:
    return {"epoch": 0, "score": None, "failure": reason, "done": True} | _peaks()


def _place(error: Exception) -> str:
    """Return file and line of our own code in which an error arose."""
    place, trace = "an unknown place", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if f"{os.sep}dsgkd{os.sep}" in file:
            place = f"{os.path.basename(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def packed(report: Report) -> Report:
    """Return a report as Tune is to see it: in one piece.

    Of every number that Tune sees it keeps statistics until the study ends, for every trial, and
    writes them down again and again.
    """
    return {"report": json.dumps(report, default=float), "score": report["score"]}


def unpacked(result: Report) -> Report:
    """Return the report that came with a result of Tune."""
    report: Report = json.loads(result["report"])
    return report


class TrialActor(tune.Trainable):
    """Runs trials of one worker, one after another; reused, so that imports are paid once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take up the first trial."""
        self._steps = config["steps"](config["spec"])

    def step(self) -> Report:
        """Train one epoch."""
        return packed(next(self._steps))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial."""
        self._steps = new_config["steps"](new_config["spec"])
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: the loop keeps its own checkpoints in the trial's folder."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Do nothing: the loop finds its own checkpoint in the trial's folder."""
