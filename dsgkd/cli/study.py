r"""Search for the best settings, confirm them on fresh seeds beside controls, test them once.

Without a file of notes, the study runs on the embedded synthetic world. `studies/` has scripts of
the same command line, each of which starts from a configuration of its own.

Example:
  dsgkd study --name first --test
  dsgkd study --data notes.csv --text note --label emergency --group patient_id \
      --student kobert --teacher cbert --teacher bio_roberta --trials 30 --out /data/studies
  dsgkd study --name first --resume --trials 40
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Literal

from dsgkd.cli.flags import parse, peek
from dsgkd.cli.paths import (
    absolute_controls,
    absolute_model,
    absolute_run,
    absolute_store,
    studies_folder,
)
from dsgkd.cli.terminal import run_command
from dsgkd.configuration import Text, config
from dsgkd.data.config import DataConfig
from dsgkd.models.config import StudentConfig
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.study.config import StudyConfig
from dsgkd.training.config import RunConfig

Base = Callable[[RunConfig], StudyConfig]
"""Gives a study, knowing the notes and the student that the flags ask for (empty: not named)."""

HIDDEN = frozenset(
    {
        *("study.initial_points", "study.run.seed", "study.run.splits", "study.run.task.kind"),
        *(
            f"study.run.distillation.{name}"
            for name in (
                *("teacher", "teacher_weights", "shuffled", "alpha", "beta", "mapping"),
                "max_transfer_words",
            )
        ),
    }
)
"""What a study decides by itself: the arms say what distils, the space what is searched."""


@config
class StudyCommand:
    """What a study is asked besides its configuration."""

    study: StudyConfig
    first: Text = "base;paper"
    """Points that every method tries first, separated by semicolons: base, paper, or values such as
    alpha=3,beta=0. With no search (--trials 0) the first of them, or as many as --confirm-top says,
    are confirmed as they are."""
    plan: bool = False
    """Train nothing: say what the study will cost and, where it has run before, what other clusters
    and schedulers would have cost and found."""
    track: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Also give settings, losses and validation measures (no text, no file names) to a tracker.
    tensorboard: in the study's folder. mlflow: there too, or on the server that MLFLOW_TRACKING_URI
    names. wandb: kept in the study's folder until you run wandb sync; with WANDB_MODE=online they
    leave your building as the study runs."""
    on_end: Text = ""
    """A shell command, run when the study is over with DSGKD_STUDY, DSGKD_NAME, DSGKD_STATE and
    DSGKD_SUMMARY in its environment, or an http(s) address that is posted these as JSON."""
    plain_progress: bool = False
    """Print plain lines on a terminal too, instead of a live table."""


def run(arguments: list[str]) -> None:
    """Run `dsgkd study`."""
    _run(default_study, arguments, "dsgkd study", __doc__ or "")


def main(base: Base, description: str) -> None:
    """Run a script of `studies/`: a study that flags may change.

    Args:
        base: gives the study that the script describes.
        description: for `--help`.
    """
    run_command(lambda: _run(base, sys.argv[1:], f"python {sys.argv[0]}", description))


def default_study(asked: RunConfig) -> StudyConfig:
    """Return a study with the defaults of all fields."""
    own = bool(asked.data.path)
    run = RunConfig(student=replace(asked.student, model="kobert" if own else "tiny-ko"))
    return StudyConfig("study", "runs", run=run, teachers=("cbert",) if own else ("tiny-en-med",))


def read_flags(base: Base, arguments: list[str], prog: str, description: str) -> StudyCommand:
    """Return what is asked; what the flags leave open is the base's.

    Raises:
        InputError: a flag cannot be used.
    """
    now = f"{datetime.now():%Y%m%d-%H%M%S}"

    student = peek(arguments, "student", "student.model")
    if peek(arguments, "student-corpus"):
        student = CORPUS_PREFIX
    data = DataConfig(peek(arguments, "data", "data.path"))
    study = base(RunConfig(data=data, student=StudentConfig(student)))
    default = StudyCommand(replace(study, name=f"{study.name}-{now}"))
    found = parse(StudyCommand, arguments, prog, description, default, HIDDEN)
    study = found.study
    return replace(
        found,
        study=replace(
            study,
            run=absolute_run(replace(study.run, seed=study.seed)),
            teachers=tuple(map(absolute_model, study.teachers)),
            confirmation=absolute_controls(study.confirmation),
            out=studies_folder(study.out, not peek(arguments, "out")),
            store=absolute_store(study.store),
        ),
    )


def _run(base: Base, arguments: list[str], prog: str, description: str) -> None:
    flags = read_flags(base, arguments, prog, description)
    # Deferred: `--help` and a wrong flag must not wait for Ray, Optuna and PyTorch.
    from dsgkd.cli.points import parse_points
    from dsgkd.cli.session import notify_on_exit, ray_session
    from dsgkd.study.callbacks.notifications import check_target
    from dsgkd.study.callbacks.trackers import trackers
    from dsgkd.study.study import Study

    if flags.on_end:
        check_target(flags.on_end)
    points = parse_points(flags.first, flags.study)
    config = replace(flags.study, initial_points=points)
    study = Study(config, live=not flags.plain_progress)
    study.check()
    with ray_session(config):
        if flags.plan:
            return study.plan()
        with notify_on_exit(flags.on_end, study):
            study.run(trackers(flags.track, config.scratch, config.name, study.console))
    return _report(config)


def _report(config: StudyConfig) -> None:
    import analysis

    folder = config.location.path()
    print(analysis.report(analysis.load(folder)))
    print(f"\nLedger: {folder}/ledger")
    print(f"Next:   python -c \"import analysis; print(analysis.load('{folder}').trials)\"")
