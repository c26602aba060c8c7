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
from dsgkd.errors import InputError
from dsgkd.models.student import StudentCard, save_student
from dsgkd.models.tiny import build_missing
from dsgkd.text.coverage import coverage
from dsgkd.text.sources import SEALED
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.loop import LAST, DivergedError, EpochResult, restore_best, train
from dsgkd.training.metrics import measures
from dsgkd.training.run import OpenRun, RunConfig, open_run, open_table, paper_preset

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
    _check_folder(folder, flags.resume)
    open_table(config.data, config.world, cache, config.splits)
    build_missing([student, *([] if flags.plain else teachers)], cache, print)
    opened = open_run(config, cache, store_config(flags))
    if opened.teacher:
        print(opened.teacher.why)
        print(f"words: {coverage(opened.notes, config.distillation.cs_max_len)}")
    try:
        for result in train(opened, folder):
            print(_line(result))
    except DivergedError as error:
        raise InputError("training", str(error), "lower the learning rates") from error
    _finish(opened, folder)


def _check_folder(folder: Path, resume: bool) -> None:
    if resume and not (folder / LAST).is_file():
        raise InputError(str(folder), "no run to resume", "leave out --resume")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            str(folder), "not an empty folder", "add --resume, or choose another --out"
        )


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


def _finish(opened: OpenRun, folder: Path) -> None:
    restore_best(opened, folder)
    validation = opened.notes.split("validation")
    probability = predict(opened, validation)
    threshold = validation_threshold(opened, validation.labels, probability)
    card = StudentCard(
        opened.label_names,
        opened.config.student.head,
        opened.config.max_length,
        threshold,
        "mlkd" if opened.teacher else "plain",
        measures(validation.labels, probability, threshold),
    )
    save_student(folder / "model", opened.distiller.student, opened.tokenizer, card)
    print(f"best student: {folder / 'model'}")
    print(f"next: dsgkd evaluate --model {folder / 'model'} --split-name test")
