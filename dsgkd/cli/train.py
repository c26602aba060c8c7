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
from typing import Literal

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute_run
from dsgkd.configuration import Text, config
from dsgkd.data.sources import SEALED
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.training.config import RunConfig, paper_preset

OWN, EMBEDDED = ("kobert", "cbert"), ("tiny-ko", "tiny-en-med")
"""Student and teacher where none is named: for notes of one's own, and for the synthetic world."""


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
    preset: Literal["standard", "paper"] = "standard"
    """Start from the paper's choices; other flags still override them."""
    cache: Text = ""
    """Tokenised notes, small models and stored teachers; none: the folder `cache` beside --out."""


HIDDEN = frozenset({"run.splits"})


def read_flags(arguments: list[str]) -> Train:
    """Return what is asked, with models and absolute paths.

    Raises:
        InputError: a flag cannot be used.
    """

    def read(run: RunConfig) -> Train:
        unnamed = replace(run, splits=SEALED, student=replace(run.student, model=""))
        default = Train("", unnamed)
        return parse(Train, arguments, "dsgkd train", __doc__ or "", default, HIDDEN)

    asked = read(RunConfig())
    if asked.preset == "paper":
        asked = read(paper_preset(RunConfig()))
    run = asked.run
    if asked.plain and run.distillation.teacher:
        raise InputError("--plain", "given beside --teacher", "give one of the two")
    student, teacher = OWN if run.data.path else EMBEDDED
    return replace(
        asked,
        run=absolute_run(
            replace(
                run,
                student=replace(run.student, model=run.student.model or student),
                distillation=replace(
                    run.distillation,
                    teacher="" if asked.plain else run.distillation.teacher or teacher,
                ),
            )
        ),
    )
