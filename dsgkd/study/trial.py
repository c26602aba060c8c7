"""What a worker does for a trial: train, predict, and say so in messages.

The only file of the study that calls the training loop.
"""

import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.errors import InputError, StorageError
from dsgkd.ledger import Ledger
from dsgkd.models.student import StudentCard, save_student
from dsgkd.study.messages import (
    EpochFinished,
    Measured,
    Report,
    StorageFailed,
    TrialFailed,
    TrialFinished,
)
from dsgkd.study.spec import TrialSpec
from dsgkd.tasks.measures import improvement, measures
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.loop import DivergedError, EpochResult, restore_best, train
from dsgkd.training.run import OpenRun, open_notes, open_run
from dsgkd.training.workers import Workers


def trial_steps(spec: TrialSpec) -> Iterator[Report]:
    """Train, or in the test stage predict; yield a report of every epoch, and one of the end.

    An error of ours or of the input ends the trial with a `TrialFailed`; it is not raised,
    because raising is how Tune sees a lost worker, and lost workers are started again. Where a
    place cannot be written the trial is not at fault: that is a `StorageFailed`.
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
        yield StorageFailed(*error.args)
    except (InputError, DivergedError) as error:
        yield TrialFailed(reason=str(error), **_peaks())
    except Exception as error:
        # Only the kind of error: a library's message may quote what it was reading.
        yield TrialFailed(reason=f"{type(error).__name__} in {_place(error)}", **_peaks())


def _train(run: OpenRun, spec: TrialSpec, workers: Workers) -> Iterator[Report]:
    folder = Path(spec.folder)
    for result in train(run, folder, workers, spec.known_epochs):
        yield _epoch(run, result)
    yield TrialFinished(measured=_finish(run, spec, folder, workers), **_peaks())


def _epoch(run: OpenRun, result: EpochResult) -> EpochFinished:
    objective = run.config.selection.objective
    return EpochFinished(
        epoch=result.epoch,
        score=improvement(objective, result.validation[objective]),
        validation=result.validation | {"threshold": result.threshold},
        best_epoch=result.best_epoch,
        best_objective=result.best_objective,
        finished=result.finished,
        step=result.step,
        loss=result.train["loss"],
        weighted={n.removeprefix("loss_"): v for n, v in result.train.items() if n != "loss"},
        examples_per_second=result.examples_per_second,
        seconds=result.seconds,
        evaluation_seconds=result.evaluation_seconds,
        ms_per_note=1000 * result.evaluation_seconds / len(run.notes.split("validation")),
        teacher_store=run.teacher.store if run.teacher else None,
        **_peaks(),
    )


def _finish(run: OpenRun, spec: TrialSpec, folder: Path, workers: Workers) -> dict[str, Measured]:
    """Predict the validation split with the best weights; return the measures by split."""
    restore_best(run, folder)
    notes = run.notes.split("validation")
    probability = predict(run, notes, workers)
    threshold = validation_threshold(run, notes.labels, probability)
    measured = measures(notes.labels, probability, threshold)
    if workers.rank == 0:
        _write_predictions(spec, "validation", notes, probability)
        if spec.keep_model:
            card = StudentCard(
                run.label_names,
                spec.run.student.head,
                spec.run.max_length,
                threshold,
                spec.method,
                dict(measured),
            )
            save_student(folder / "model", run.distiller.student, run.tokenizer, card)
        if spec.own_teacher:  # before the last report: nobody asks for anything after it
            shutil.rmtree(spec.own_teacher, ignore_errors=True)
    return {"validation": measured | {"threshold": threshold}}


def _test(spec: TrialSpec, workers: Workers) -> Report:
    """Predict the test split with the best weights of a confirmed run; no teacher is asked."""
    alone = replace(spec.run.distillation, teacher="", alpha=0.0, beta=0.0)
    run = open_run(replace(spec.run, distillation=alone), Path(spec.cache), spec.store)
    restore_best(run, Path(spec.folder))
    validation = run.notes.split("validation")
    notes = open_notes(spec.run, Path(spec.cache))[0].split("test")  # knows the teacher's words
    threshold = validation_threshold(run, validation.labels, predict(run, validation, workers))
    probability = predict(run, notes, workers)
    measured = measures(notes.labels, probability, threshold) | {"threshold": threshold}
    if workers.rank == 0:
        _write_predictions(spec, "test", notes, probability)
    return TrialFinished(measured={"test": measured}, **_peaks())


def _write_predictions(
    spec: TrialSpec, split: str, notes: EncodedNotes, probability: NDArray[np.float32]
) -> None:
    words = np.minimum(notes.words.lengths, spec.run.distillation.cs_max_len)
    columns = zip(
        *(notes.example_ids, notes.group_ids, notes.labels, probability, words, notes.lengths),
        strict=True,
    )
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
        for example_id, group_id, label, row, count, length in columns
    ]
    Ledger(spec.ledger).write("predictions", rows, f"{spec}-{split}")


def _peaks() -> Measured:
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_rss_mb": rss, "peak_gpu_mb": gpu}


def _place(error: Exception) -> str:
    """Return file and line of our own code in which an error arose."""
    place, trace = "an unknown place", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if f"{os.sep}dsgkd{os.sep}" in file:
            place = f"{os.path.basename(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
