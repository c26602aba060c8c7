r"""Say beforehand whether there is any domain knowledge to transfer, and from which teacher.

From stored teacher states, without any training and on the training notes alone: how well do the
words, the text, each teacher's states of the words, and those of random weights predict the label,
and what do a teacher's states add to what the text says already? Without a file of notes, on the
embedded synthetic world.

Example:
  dsgkd headroom
  dsgkd headroom --data notes.csv --text note --label emergency --group patient_id \
      --student kobert --teacher cbert --teacher bio_roberta
  dsgkd headroom --data notes.csv --unlabelled more_notes.csv --teacher models/en-clinical --json
"""

import json
from dataclasses import field, replace
from pathlib import Path

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute, absolute_model, absolute_run, absolute_store
from dsgkd.cli.train import OWN, SYNTHETIC
from dsgkd.configuration import Text, config
from dsgkd.distillation.config import split_teachers
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.models.config import StudentConfig
from dsgkd.training.config import RunConfig


@config
class HeadroomCommand:
    """What `dsgkd headroom` is asked."""

    teachers: tuple[Text, ...] = ()
    """Domain models; none: the default for these notes."""
    run: RunConfig = field(default_factory=RunConfig)
    """The notes, the student, and which words are transferred."""
    headroom: HeadroomConfig = field(default_factory=HeadroomConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    cache: Text = "runs/cache"
    """Tokenised notes, small models and stored teachers."""
    json: bool = False
    """Print one line of JSON."""


_UNASKED = ("task", "selection", "links", "splits", "seed", "optimisation", "adaptation")
HIDDEN = frozenset(
    {
        f"run.{name}"
        for name in (
            *_UNASKED,
            "transfer.mix",
            "transfer.sampler",
            "student.head",
            "student.dropout",
        )
    }
    | {
        f"run.distillation.{name}"
        for name in (
            *("teacher", "teacher_weights", "teacher_store", "shuffled", "hidden", "attention"),
            *("mapping", "alpha", "beta", "terms", "calibration_words"),
        )
    }
)
"""What is asked of a training only."""


def run(arguments: list[str]) -> None:
    """Run `dsgkd headroom`."""
    flags = read_flags(arguments)
    # Deferred: `--help` and a wrong flag must not wait for PyTorch.
    from dsgkd.headroom.check import OPEN, check_headroom
    from dsgkd.headroom.report import as_json, full
    from dsgkd.training.opening import open_table
    from dsgkd.training.pretraining import build_missing

    cache = Path(flags.cache)

    def notify(line: str) -> None:
        if not flags.json:
            print(line)

    open_table(flags.run.data, flags.run.world, cache, OPEN)  # before anything takes time
    build_missing([flags.run.student.model, *flags.teachers], cache, flags.run.world, notify)
    found = check_headroom(flags.run, flags.teachers, flags.headroom, flags.store, cache, notify)
    if flags.json:
        print(json.dumps(as_json(found)))
        return
    for line in full(found):
        print(line)


def read_flags(arguments: list[str]) -> HeadroomCommand:
    """Return what is asked, with the models that nobody named and with absolute paths.

    Raises:
        InputError: a flag cannot be used.
    """
    default = HeadroomCommand(run=RunConfig(student=StudentConfig(model="")))
    flags = parse(HeadroomCommand, arguments, "dsgkd headroom", __doc__ or "", default, HIDDEN)
    student, teacher = OWN if flags.run.data.path else SYNTHETIC
    choices = map(absolute_model, flags.teachers or (teacher,))
    run = replace(
        flags.run,
        student=replace(flags.run.student, model=flags.run.student.model or student),
    )
    return replace(
        flags,
        teachers=tuple(
            dict.fromkeys(model for choice in choices for model, _ in split_teachers(choice))
        ),
        run=absolute_run(run),
        store=absolute_store(flags.store),
        cache=absolute(flags.cache),
    )
