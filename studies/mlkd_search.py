r"""Does a domain-specific teacher help a general student, and with which settings?

A study of DSG-KD (arXiv 2409.14904). Three methods are compared, each tuned with the same number
of trials, the same head, schedule and batches:

    mlkd            distillation of the words in the foreign script from a domain teacher
    plain           fine-tuning of the same student alone
    random-teacher  distillation from the teacher's architecture with random weights

The best configuration of each, chosen on validation data, is trained again with fresh seeds, and
only those runs read the test split. A gain over `plain` alone is no evidence that knowledge of
the domain moved: what counts is the difference between `mlkd` and `random-teacher`.

    python studies/mlkd_search.py
    python studies/mlkd_search.py --data notes.csv --text note --label emergency \
        --student kobert --teacher cbert --teacher bio_roberta --use-gpu --out /shared/studies
"""

import argparse
from dataclasses import replace

from dsgkd.cli.flags import (
    add_data_flags,
    cluster_flags,
    data_config,
    default_name,
    integers,
    pick_models,
    run_command,
    store_config,
    store_flags,
)
from dsgkd.cli.session import ray_session, studies_folder
from dsgkd.distillation.distiller import DistillationConfig
from dsgkd.models.student import StudentConfig
from dsgkd.models.tiny import is_built_here
from dsgkd.study.space import SearchSpace
from dsgkd.study.study import Study, StudyConfig
from dsgkd.training.run import OptimisationConfig, RunConfig

SPACE = SearchSpace(
    encoder_lr=(1e-5, 2e-4),
    classifier_lr=(3e-4, 1e-2),
    alpha=(0.3, 10.0),
    beta=(0.0, 0.0),  # the attention term is off unless --beta asks for it
    cs_max_len=(8, 16, 32),
    mappings=("uniform", "last-1", "last-2", "first-1", "uniform+emb"),
)
FIRST = OptimisationConfig(encoder_lr=5e-5, classifier_lr=3e-3, projection_lr=2e-3)
"""The learning rates that every method tries first; of projections, always."""

SMALL_SPACE = replace(SPACE, encoder_lr=(3e-4, 2e-3))
SMALL_FIRST = replace(FIRST, encoder_lr=1e-3)
"""Small models that were pre-trained on the spot want larger steps."""


def main() -> None:
    """Run the study and print what it found."""
    flags = parser().parse_args()
    data = data_config(flags)
    student, teachers = pick_models(flags)
    small = is_built_here(student)
    run = RunConfig(
        data=data,
        student=StudentConfig(student),
        distillation=DistillationConfig(alpha=3.0, teacher_store=flags.teacher_store),
        max_length=flags.max_length,
        optimisation=replace(
            SMALL_FIRST if small else FIRST, epochs=flags.epochs, batch_size=flags.batch_size
        ),
        seed=flags.seed,
    )
    config = StudyConfig(
        name=flags.name or default_name("mlkd"),
        out=studies_folder(flags.out),
        run=run,
        teachers=teachers,
        space=replace(
            SMALL_SPACE if small else SPACE,
            beta=(0.0, flags.beta),
            teacher_layers=flags.teacher_layers,
        ),
        trials=flags.trials,
        confirm_seeds=flags.confirm_seeds,
        max_concurrent=flags.max_concurrent,
        workers_per_trial=flags.workers_per_trial,
        gpus_per_worker=flags.gpus_per_worker,
        store=store_config(flags),
        seed=flags.seed,
        resume=flags.resume,
    )
    study = Study(config)
    study.check()
    with ray_session(config):
        study.run()
    report(config)


def report(config: StudyConfig) -> None:
    """Read the ledger back and print the results."""
    import analysis

    print(analysis.report(analysis.load(config.folder)))
    print(f"\nLedger: {config.folder / 'ledger'}")
    print(f"Next:   python -c \"import analysis; print(analysis.load('{config.folder}').trials)\"")
    print(
        f"        dsgkd predict --model {config.folder / 'trials'}/confirm-mlkd-000/model NOTES.csv"
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line; `dsgkd.cli.flags` explains the flags on data and models."""
    parser = add_data_flags(__doc__ or "", models=True)
    study = parser.add_argument_group("study")
    study.add_argument("--trials", type=int, default=12, help="search trials in all [%(default)s]")
    study.add_argument(
        "--confirm-seeds", type=int, default=5, help="fresh seeds for the best [%(default)s]"
    )
    study.add_argument("--epochs", type=int, default=10, help="epochs at most [%(default)s]")
    study.add_argument("--batch-size", type=int, default=8, help="notes in a step [%(default)s]")
    study.add_argument("--max-length", type=int, default=128, help="tokens of a text [%(default)s]")
    study.add_argument(
        "--beta",
        type=float,
        default=0.0,
        metavar="MOST",
        help="search the attention term's weight up to this [%(default)s: off]",
    )
    study.add_argument(
        "--teacher-layers",
        type=integers,
        default=(),
        metavar="LAYERS",
        help="use these layers of the teacher only, such as 6,12 [any]",
    )
    study.add_argument("--seed", type=int, default=17, help="decides everything [%(default)s]")
    study.add_argument("--out", default="", help="folder of studies [runs]")
    study.add_argument("--name", default="", help="the study's folder in it [mlkd-<date>-<time>]")
    study.add_argument("--resume", action="store_true", help="go on with the study of that name")
    cluster_flags(parser)
    store_flags(parser)
    return parser


if __name__ == "__main__":
    run_command(main)
