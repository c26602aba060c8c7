"""Train a trial of a study again from what the ledger says of it, and compare.

Nothing is written into the study's folder, and the test split stays sealed. The trained student is
kept where --out says; without it nothing is kept.

Example:
  dsgkd rerun runs/demo confirm-mlkd-003-002
  dsgkd rerun runs/demo search-mlkd-003 --data notes.csv --out runs/again
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute, absolute_model, absolute_run
from dsgkd.configuration import Count, Text, config, structure
from dsgkd.data.config import SEALED
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.study.config import StudyConfig
from dsgkd.study.names import restored
from dsgkd.training.config import RunConfig

if TYPE_CHECKING:
    from dsgkd.training.loop import EpochResult

Measured = Mapping[int, Mapping[str, float | None]]
"""Epoch -> measure -> value on the validation split."""


@config
class Rerun:
    """What `dsgkd rerun` is asked."""

    study: Annotated[Text, tyro.conf.Positional]
    """A study's folder."""
    trial: Annotated[Text, tyro.conf.Positional]
    """The trial's name in the ledger."""
    attempt: Count | None = None
    """Which attempt of it; none: the last."""
    out: Text = ""
    """Keep checkpoints and the model here; none: keep nothing."""
    data: Text = ""
    """Where the notes lie; none: where the study had them."""
    student: Text = ""
    """Where the student lies; none: where the study had it."""
    teacher: Text = ""
    """The same for the teacher."""


def run(arguments: list[str]) -> None:
    """Run `dsgkd rerun`."""
    flags = parse(Rerun, arguments, "dsgkd rerun", __doc__ or "")
    study = Path(absolute(flags.study))
    cache = study.parent / "cache"
    written = read_trial(study, flags.trial, flags.attempt)
    config = found_again(written.run, flags)
    # Deferred: `--help` and a wrong flag must not wait for PyTorch.
    import torch

    from dsgkd.cli.training import prepare, save_best
    from dsgkd.data import identity
    from dsgkd.storage.checkpoint import Checkpoints
    from dsgkd.training.loop import DivergedError, train
    from dsgkd.training.on_the_fly import check_kept

    with _folder(flags.out, study) as folder:
        identity.check_kept(cache)
        teachers = [choice.model for choice in config.distillation.choices]
        check_kept((config.student.model, *teachers), cache, config.world)
        _check_data(config, cache, written.fingerprint)
        if written.cpus:  # sums of another number of threads may differ in their last bits
            torch.set_num_threads(written.cpus)
        print(f"{flags.trial}, attempt {written.attempt}: {written.state} in the ledger")
        if written.workers > 1:
            print(f"trained by {written.workers} workers then and by one now: dropout differs")
        checkpoints = Checkpoints(folder)
        opened = prepare(config, cache, written.store_for(folder))
        try:
            results = _train(train(opened, checkpoints), written)
        except DivergedError as error:
            print(f"failed now: {error}; then: {written.reason or 'it did not fail'}")
            return
        _conclude(results, written)
        if flags.out:
            save_best(opened, checkpoints, folder)


@dataclass(frozen=True)
class WrittenTrial:
    """A trial as the ledger has it."""

    run: RunConfig
    """With the test split closed."""
    store: StoreConfig
    attempt: int
    state: str
    reason: str
    stage: str
    workers: int
    cpus: int
    """CPUs of a worker; 0: not written down."""
    epochs: int
    """Epochs that it trained."""
    best_epoch: int | None
    best_objective: float | None
    measured: Measured
    fingerprint: str
    """Of the study's data."""

    def store_for(self, folder: Path) -> StoreConfig:
        """Return where the teacher is stored: with the study's, unless nobody else asks for it."""
        asked = self.run.distillation
        own = self.stage == "control" and (asked.teacher_weights == "random" or asked.shuffled)
        return replace(self.store, folder=str(folder / "teacher")) if own else self.store


def found_again(run: RunConfig, flags: Rerun) -> RunConfig:
    """Return a run with its notes and models where the flags say that they lie."""
    student, teacher = absolute_model(flags.student), absolute_model(flags.teacher)
    return absolute_run(
        replace(
            run,
            data=replace(run.data, path=flags.data or run.data.path),
            student=replace(run.student, model=student or run.student.model),
            distillation=replace(run.distillation, teacher=teacher or run.distillation.teacher),
        )
    )


def read_trial(study: Path, trial: str, attempt: int | None) -> WrittenTrial:
    """Read one attempt of a trial from a study's ledger.

    Args:
        study: the study's folder.
        trial: the trial's name.
        attempt: number of the attempt; None: the last.

    Raises:
        InputError: there is no such study, trial or attempt, or it was not trained.
    """
    ledger = Ledger(str(study / "ledger"))
    if not ledger.exists():
        raise InputError(str(study), "no study here", "give a study's folder, such as runs/NAME")
    rows = ledger.rows("trials")
    mine = {row["attempt"]: row for row in rows if row["trial_id"] == trial}
    if not mine:
        names = list(dict.fromkeys(row["trial_id"] for row in rows))
        close = ", ".join(get_close_matches(trial, names, cutoff=0.5)) or "none"
        raise InputError(str(study), f"no trial '{trial}'", f"the closest names are: {close}")
    row = mine.get(max(mine) if attempt is None else attempt)
    if row is None:
        there = ", ".join(map(str, sorted(mine)))
        raise InputError("--attempt", f"{trial} has no attempt {attempt}", f"choose of {there}")
    if row["stage"] == "test":
        remedy = "give a trial of search or confirmation"
        raise InputError(trial, "it read the test split and trained nothing", remedy)
    if not row["configuration"]:
        remedy = "give a trial that was trained"
        raise InputError(trial, "its configuration was not written down", remedy)
    studies = {one["study_id"]: one for one in ledger.rows("studies")}
    if row["study_id"] not in studies:
        raise InputError(str(study), "its ledger has no row of the study", "copy it whole")
    begun = studies[row["study_id"]]
    measured = {
        one["epoch"]: {**(one["measures"] or {}), "loss": one["loss"]}
        for one in ledger.rows("metrics")  # later attempts come last
        if one["trial_id"] == trial and one["attempt"] <= row["attempt"]
        if one["split"] == "validation"
    }
    cluster = (begun["configuration"] or {}).get("cluster", {})
    run, store = _with_paths(study, row)
    return WrittenTrial(
        run=replace(run, splits=SEALED),
        store=store,
        attempt=row["attempt"],
        state=row["state"],
        reason=row["reason"] or "",
        stage=row["stage"],
        workers=row["workers"] or 1,
        cpus=cluster.get("cpus_per_worker", 0),
        epochs=row["epochs_done"] or 0,
        best_epoch=row["best_epoch"],
        best_objective=row["objective"],
        measured=measured,
        fingerprint=begun["data_fingerprint"],
    )


def _with_paths(study: Path, row: Mapping[str, Any]) -> tuple[RunConfig, StoreConfig]:
    """Return a trial's run, with its files where the study has them; a ledger has no paths."""
    from dsgkd.study.manifest import PRIVATE  # deferred: it imports PyTorch

    private = study / PRIVATE
    if not private.is_file():  # the ledger was given away without it
        return structure(RunConfig, row["configuration"]), StoreConfig()
    config = structure(StudyConfig, json.loads(private.read_text())["configuration"])
    return restored(row, config), config.store


@contextmanager
def _folder(out: str, study: Path) -> Iterator[Path]:
    """Give a folder for checkpoints: the user's, or one that goes away."""
    if not out:
        with tempfile.TemporaryDirectory(prefix="dsgkd-rerun-") as temporary:
            yield Path(temporary)
        return
    from dsgkd.cli.training import check_new

    folder = Path(absolute(out))
    if folder.resolve().is_relative_to(study.resolve()):
        raise InputError("--out", "inside the study's folder", "choose another --out")
    check_new(folder)
    yield folder


def _check_data(config: RunConfig, cache: Path, fingerprint: str) -> None:
    from dsgkd.training.opening import open_table

    notes = open_table(config.data, config.world, cache, config.splits)
    if notes.fingerprint != fingerprint:
        raise InputError(
            notes.name, "not the data that the study began with", "name them with --data"
        )


def _train(epochs: "Iterator[EpochResult]", written: WrittenTrial) -> "list[EpochResult]":
    """Train, printing the objective then and now; a trial that was pruned ends where it did."""
    objective = written.run.selection.objective
    print(f"validation {objective}\nepoch        then         now  difference")
    results = []
    for result in epochs:
        results.append(result)
        now = result.validation[objective]
        then = written.measured.get(result.epoch, {}).get(objective)
        if then is None:
            print(f"{result.epoch:>5} {'-':>11} {now:>11.6f}")
        else:
            print(f"{result.epoch:>5} {then:>11.6f} {now:>11.6f} {now - then:>11.2g}")
        if written.state == "pruned" and result.epoch >= written.epochs:
            break
    return results


def _conclude(results: "list[EpochResult]", written: WrittenTrial) -> None:
    """Print both bests, and whether every measure of every epoch is the same."""
    objective, last = written.run.selection.objective, results[-1]
    best = "-" if written.best_objective is None else f"{written.best_objective:.6f}"
    print(f"best epoch: {written.best_epoch or '-'} then, {last.best_epoch} now")
    print(f"best {objective}: {best} then, {last.best_objective:.6f} now")
    found = {result.epoch: result.validation for result in results}
    missing = sorted(written.measured.keys() - found.keys())
    apart = _differences(written.measured, found)
    if not apart:
        print("nothing to compare: no epoch is in the ledger and was trained now")
    elif missing:
        print(f"different: epoch {missing[0]} is in the ledger and was not trained now")
    elif not any(difference for difference, _, _ in apart):
        print(f"identical: every validation measure (epochs: {len(written.measured)})")
    if any(difference for difference, _, _ in apart):
        ours = [each for each in apart if each[1] == objective]
        for difference, measure, epoch in dict.fromkeys((max(ours), max(apart))):
            print(f"largest difference of {measure}: {difference:.2g} (epoch {epoch})")


def _differences(then: Measured, now: Measured) -> list[tuple[float, str, int]]:
    """Return (absolute difference, measure, epoch) for all that was measured both times."""
    found = []
    for epoch in then.keys() & now.keys():
        for measure in then[epoch]:
            pair = [_number(measured[epoch].get(measure)) for measured in (then, now)]
            if all(map(math.isnan, pair)):
                found.append((0.0, measure, epoch))
            elif any(map(math.isnan, pair)):
                found.append((math.inf, measure, epoch))
            else:
                found.append((abs(pair[0] - pair[1]), measure, epoch))
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
