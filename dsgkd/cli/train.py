r"""Train one student, distilled from a teacher or alone.

Checkpoints go to OUT, the best epoch's student to OUT/model. An interrupted run is continued with
--resume, bit for bit.

Example:
  dsgkd train --out runs/first
  dsgkd train --data notes.csv --text note --label emergency --student kobert --teacher cbert \
      --distillation.alpha 2 --optimisation.epochs 5 --out runs/cbert
  dsgkd train --data notes.csv --teacher cbert --preset paper --out runs/paper
  dsgkd train --data notes.csv --plain --out runs/plain
"""

from dataclasses import replace
from pathlib import Path

from dsgkd.cli.fields import add_field_flags, override
from dsgkd.cli.flags import (
    add_data_flags,
    data_config,
    pick_models,
    store_config,
    store_flags,
)
from dsgkd.cli.training import check_new, epochs, prepare, save_best
from dsgkd.data.sources import SEALED
from dsgkd.errors import InputError
from dsgkd.training.loop import LAST, EpochResult
from dsgkd.training.run import RunConfig, paper_preset

_SHORT = frozenset(
    {
        "data",
        "splits",
        "student.model",
        "distillation.teacher",
        "distillation.teacher_store",
        "seed",
    }
)


def run(arguments: list[str]) -> None:
    """Run `dsgkd train`."""
    parser = add_data_flags(__doc__ or "", models=True)
    parser.prog = "dsgkd train"
    parser.add_argument("--out", required=True, metavar="FOLDER", help="checkpoints and the model")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--plain", action="store_true", help="no teacher: plain fine-tuning")
    parser.add_argument(
        "--preset",
        choices=["standard", "paper"],
        default="standard",
        help="start from the paper's choices; dotted flags still override [%(default)s]",
    )
    parser.add_argument("--cache", metavar="FOLDER", help="tokenised notes [OUT/../cache]")
    parser.add_argument("--seed", type=int, default=17, help="decides everything [%(default)s]")
    store_flags(parser)
    add_field_flags(parser, RunConfig(), _SHORT)
    flags = parser.parse_args(arguments)

    data = data_config(flags)
    student, teachers = pick_models(flags)
    if len(teachers) > 1:
        raise InputError(
            "--teacher", f"{len(teachers)} given, one is used", "name one, or run a study"
        )
    base = RunConfig(data=data, seed=flags.seed, splits=SEALED)
    base = replace(
        base,
        student=replace(base.student, model=student),
        distillation=replace(
            base.distillation,
            teacher="" if flags.plain else teachers[0],
            teacher_store=flags.teacher_store,
        ),
    )
    config = override(paper_preset(base) if flags.preset == "paper" else base, flags)
    folder = Path(flags.out).expanduser().absolute()
    cache = Path(flags.cache).expanduser().absolute() if flags.cache else folder.parent / "cache"
    if not flags.resume:
        check_new(folder, "add --resume, or choose another --out")
    elif not (folder / LAST).is_file():
        raise InputError(str(folder), "no run to resume", "leave out --resume")
    opened = prepare(config, cache, store_config(flags))
    for result in epochs(opened, folder):
        print(_line(result))
    save_best(opened, folder)


def _line(result: EpochResult) -> str:
    terms = "  ".join(
        f"{name.removeprefix('loss_')} {value:.3f}" for name, value in result.train.items() if value
    )
    measured = "  ".join(
        f"{name} {result.validation[name]:.3f}" for name in ("auroc", "f1", "accuracy", "brier")
    )
    best = "  *" if result.best_epoch == result.epoch else ""
    return (
        f"epoch {result.epoch:>3}  train {terms}  |  validation {measured}  |  "
        f"{result.examples_per_second:,.0f} notes/s{best}"
    )
