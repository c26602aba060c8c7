"""What a worker does for a trial: train, predict, and say so in messages.

The only file of the study that calls the training loop.
"""

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dsgkd.alignment.rarity import RAREST_WORD, rarest_words
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.errors import InputError, StorageError
from dsgkd.ledger import Ledger
from dsgkd.ledger.measures import improvement
from dsgkd.models.export import StudentCard, save_student
from dsgkd.models.folder import save_model
from dsgkd.models.masked import MaskedStudent
from dsgkd.storage.artefacts import Artefacts
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.storage.location import Location
from dsgkd.study.messages import (
    EpochFinished,
    Measured,
    Report,
    StorageFailed,
    TrialFailed,
    TrialFinished,
)
from dsgkd.study.preparation.shared_cache import pull
from dsgkd.study.spec import TrialSpec
from dsgkd.tasks.task import Predictions
from dsgkd.training.evaluation import evaluate, evaluate_validation
from dsgkd.training.loop import BEST, LAST, DivergedError, EpochResult, restore_best, train
from dsgkd.training.opening import OpenRun, open_notes, open_run, open_table
from dsgkd.training.recipe import Link, resolved, train_link
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
        if spec.shared_cache:
            pull(Location(spec.shared_cache), Path(spec.cache))
        yield from _STEPS.get(spec.stage, _train)(spec, workers)
    except StorageError as error:
        yield StorageFailed(*error.args)
    except (InputError, DivergedError) as error:
        yield TrialFailed(reason=str(error), **_peaks())
    except Exception as error:
        # Only the kind of error: a library's message may quote what it was reading.
        yield TrialFailed(reason=f"{type(error).__name__} in {_place(error)}", **_peaks())


def _train(spec: TrialSpec, workers: Workers) -> Iterator[Report]:
    config = resolved(spec.run, Artefacts(spec.artefacts), Path(spec.cache))
    run, checkpoints = open_run(config, Path(spec.cache), spec.store), Checkpoints(spec.folder)
    stores = {teacher.store for teacher in run.teachers}
    store = next((use for use in ("off", "miss", "hit") if use in stores), None)
    for result in train(run, checkpoints, workers, spec.known_epochs):
        ms_per_note = 1000 * result.evaluation_seconds / len(run.validation)
        yield replace(_epoch(spec, result), ms_per_note=ms_per_note, teacher_store=store)
    restore_best(run, checkpoints)
    found = evaluate_validation(run, workers)
    if workers.rank == 0:
        _write_predictions(spec, run, "validation", found.predicted, run.validation)
        if spec.keep_model:
            _keep(spec, lambda folder: _save(folder, spec, run, found.measured))
        _forget_teacher(spec)  # before the last report: nobody asks for anything after it
    yield TrialFinished(measured={"validation": found.measured}, **_peaks())


def _link(spec: TrialSpec, workers: Workers) -> Iterator[Report]:
    """Make an artefact that other trials start from, unless another study has made it."""
    artefacts, checkpoints = Artefacts(spec.artefacts), Checkpoints(spec.folder)
    if artefacts.get(spec.key) is None or checkpoints.exists(LAST):
        link = Link(spec.key, spec.trial_id, spec.run)
        for result in train_link(
            *(link, artefacts, Path(spec.cache), spec.store, checkpoints),
            *(workers, spec.known_epochs),
        ):
            yield _epoch(spec, result)
        workers.on_rank_zero(lambda: _clear(spec, checkpoints))
    yield TrialFinished(**_peaks())


def _clear(spec: TrialSpec, checkpoints: Checkpoints) -> None:
    checkpoints.delete(LAST, BEST)
    _forget_teacher(spec)


def _forget_teacher(spec: TrialSpec) -> None:
    if spec.own_teacher:
        shutil.rmtree(spec.own_teacher, ignore_errors=True)


def _test(spec: TrialSpec, workers: Workers) -> Iterator[Report]:
    """Predict the test split with the best weights of a confirmed run; no teacher is asked."""
    alone = replace(spec.run.distillation, teacher="", alpha=0.0, beta=0.0, terms=())
    config = resolved(spec.run, Artefacts(spec.artefacts), Path(spec.cache))
    run = open_run(replace(config, distillation=alone), Path(spec.cache), spec.store)
    restore_best(run, Checkpoints(spec.folder))
    validation = evaluate_validation(run, workers).measured
    fitted = {name: validation[name] for name in validation.keys() - run.task.measures.keys()}
    texts = open_notes(config, Path(spec.cache)).split("test")  # knows the teachers' words
    found = evaluate(run, texts, fitted, workers)
    if workers.rank == 0:
        _write_predictions(spec, run, "test", found.predicted, texts)
    yield TrialFinished(measured={"test": found.measured}, **_peaks())


_STEPS = {"link": _link, "test": _test}


def _epoch(spec: TrialSpec, result: EpochResult) -> EpochFinished:
    objective = spec.run.selection.objective
    direction = spec.run.task.measures[objective]
    return EpochFinished(
        epoch=result.epoch,
        score=improvement(result.validation[objective], direction),
        validation=result.validation,
        best_epoch=result.best_epoch,
        best_objective=result.best_objective,
        finished=result.finished,
        step=result.step,
        loss=result.loss,
        raw=result.raw,
        weighted=result.weighted,
        share=result.share,
        stuck=result.stuck,
        examples_per_second=result.examples_per_second,
        seconds=result.seconds,
        evaluation_seconds=result.evaluation_seconds,
        **_peaks(),
    )


def _save(folder: Path, spec: TrialSpec, run: OpenRun, measured: Measured) -> None:
    if isinstance(run.student, MaskedStudent):
        save_model(folder, run.student.model, run.tokenizer)
        return
    config = spec.run
    card = StudentCard(
        run.label_names,
        config.student.head,
        config.max_length,
        measured.get("threshold", 0.5),
        spec.method,
        {name: value for name, value in measured.items() if name in run.task.measures},
        config.words,
        config.distillation.max_transfer_words,
    )
    save_student(folder, run.student, run.tokenizer, card)


def _keep(spec: TrialSpec, save: Callable[[Path], None]) -> None:
    """Save the student in the trial's folder."""
    location = Location(spec.folder).child("model")
    if not location.is_remote:
        save(location.folder)
        return
    with tempfile.TemporaryDirectory(prefix="dsgkd-") as name:
        save(Path(name))
        for file in Path(name).rglob("*"):
            if file.is_file():
                location.upload(str(file.relative_to(name)), file)


def _write_predictions(
    spec: TrialSpec, run: OpenRun, split: str, predicted: Predictions, texts: EncodedTexts
) -> None:
    config = spec.run
    notes = open_table(config.data, config.world, Path(spec.cache), config.splits)
    asked, training = notes.only((split,)), notes.only(("train",)).table["text"].to_pylist()
    rarest = rarest_words(training, asked.table["text"].to_pylist(), config.words)
    subgroups = [
        {RAREST_WORD: rarity} | categories
        for rarity, categories in zip(rarest, asked.subgroups.to_pylist(), strict=True)
    ]
    key = {"study_id": spec.study_id, "trial_id": spec.trial_id, "attempt": spec.attempt}
    columns = zip(
        *(texts.example_ids, texts.group_ids, texts.lengths),
        *(texts.words_transferred(config.distillation.max_transfer_words), subgroups),
        strict=True,
    )
    rows = [
        key
        | {"split": split, "example_id": example_id, "group_id": group_id, "length": int(length)}
        | {"words_transferred": int(words), "subgroups": categories}
        | row
        for row, (example_id, group_id, length, words, categories) in zip(
            run.task.rows(predicted, texts), columns
        )
    ]
    if rows:
        Ledger(spec.ledger).write("predictions", rows, f"{spec}-{split}")


def _peaks() -> dict[str, Any]:
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
