r"""Train one student, distilled from a teacher or alone.

Checkpoints go to OUT, the best epoch's student to OUT/model. An interrupted run is continued with
--resume, bit for bit. Without --student and --teacher, tiny-en-med teaches tiny-ko on the synthetic
world, and cbert teaches kobert on notes of your own.

Example:
  dsgkd train --out runs/first
  dsgkd train --data notes.csv --text note --label emergency --student kobert --teacher cbert \
      --alpha 2 --epochs 5 --out runs/cbert
  dsgkd train --data notes.csv --teacher cbert --preset paper --out runs/paper
  dsgkd train --data notes.csv --plain --out runs/plain
"""

from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsgkd.cli.flags import parse, peek
from dsgkd.cli.paths import absolute, absolute_run, absolute_store
from dsgkd.configuration import Text, config
from dsgkd.data.config import SEALED
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.config import StudentConfig
from dsgkd.tasks import task_of
from dsgkd.training.config import RunConfig, paper_preset

OWN, SYNTHETIC = ("kobert", "cbert"), ("tiny-ko", "tiny-en-med")
"""Student and teacher where none is named: for notes of one's own, and for the synthetic world."""
SHOWN = ("auroc", "f1", "accuracy", "brier")
"""Measures that a line of an epoch shows, where there are any."""

if TYPE_CHECKING:
    from dsgkd.training.loop import EpochResult


@config
class Train:
    """What `dsgkd train` is asked."""

    out: Text
    """Folder of the checkpoints and the model."""
    run: RunConfig = field(default_factory=RunConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    resume: bool = False
    """Go on with the run in --out."""
    plain: bool = False
    """No teacher: plain fine-tuning."""
    task: Text = "classification"
    """What the student is trained for: classification, masked_lm, none (its terms alone), or
    package.module:Class."""
    preset: Literal["standard", "paper"] = "standard"
    """Start from the paper's choices; other flags still override them."""
    cache: Text = ""
    """Tokenised notes, small models and stored teachers; none: the folder `cache` beside --out."""


HIDDEN = frozenset({"run.splits", "run.links", "run.task.kind"})


def run(arguments: list[str]) -> None:
    """Run `dsgkd train`."""
    flags = read_flags(arguments)
    # Deferred: `--help` and a wrong flag must not wait for PyTorch.
    from dsgkd.cli.training import check_new, epochs, prepare, save_best
    from dsgkd.storage.checkpoint import Checkpoints
    from dsgkd.training.loop import LAST

    folder = Path(flags.out)
    checkpoints = Checkpoints(folder)
    if not flags.resume:
        check_new(folder, "add --resume, or choose another --out")
    elif not checkpoints.exists(LAST):
        raise InputError(str(folder), "no run to resume", "leave out --resume")
    opened = prepare(flags.run, Path(flags.cache), flags.store)
    for result in epochs(opened, checkpoints):
        print(_line(result))
    save_best(opened, checkpoints, folder)


def read_flags(arguments: list[str]) -> Train:
    """Return what is asked, with the models that nobody named and with absolute paths.

    Raises:
        InputError: a flag cannot be used.
    """
    base = RunConfig(student=StudentConfig(model=""), splits=SEALED)
    if peek(arguments, "preset") == "paper":
        base = paper_preset(base)
    kind = peek(arguments, "task")
    if kind and kind != base.task.kind:
        task = task_of({"kind": kind})
        selection = replace(base.selection, objective=task.objective, stop_when_stale=())
        base = replace(base, task=task, selection=selection)
    default = Train("", base, task=base.task.kind)
    flags = parse(Train, arguments, "dsgkd train", __doc__ or "", default, HIDDEN)
    if not flags.out:
        raise InputError("--out", "missing", "give a folder for the checkpoints and the model")
    run, out = flags.run, absolute(flags.out)
    if flags.plain and run.distillation.teacher:
        raise InputError("--plain", "given beside --teacher", "give one of the two")
    student, teacher = OWN if run.data.path else SYNTHETIC
    teacher = "" if flags.plain else run.distillation.teacher or teacher
    run = replace(
        run,
        student=replace(run.student, model=run.student.model or student),
        distillation=replace(run.distillation, teacher=teacher),
    )
    cache = absolute(flags.cache) or str(Path(out).parent / "cache")
    store = absolute_store(flags.store)
    return replace(flags, out=out, run=absolute_run(run), cache=cache, store=store)


def _line(result: "EpochResult") -> str:
    terms = "  ".join(f"{name} {value:.3f}" for name, value in result.weighted.items())
    names = [name for name in SHOWN if name in result.validation] or list(result.validation)
    measured = "  ".join(f"{name} {result.validation[name]:.3f}" for name in names)
    best = "  *" if result.best_epoch == result.epoch else ""
    return (
        f"epoch {result.epoch:>3}  train {terms}  |  validation {measured}  |  "
        f"{result.examples_per_second:,.0f} notes/s{best}"
    )
