r"""Does a domain-specific teacher help a general student, and with which settings?

A study of DSG-KD (arXiv 2409.14904). These methods are compared, each tuned with the same number
of trials, the same head, schedule and batches:

    mlkd            distillation of the words in the foreign script from a domain teacher
    plain           fine-tuning of the same student alone
    random-teacher  distillation from the teacher's architecture with random weights; --controls
                    adds shuffled words and a teacher of the wrong domain

The best configurations of each, chosen on validation data, are trained again with fresh seeds.
The test split stays sealed until --test, which reads it with what was confirmed and writes that
down. A gain over `plain` alone is no evidence that knowledge of the domain moved: what counts is
the difference between `mlkd` and the controls.

    python studies/mlkd_search.py --test
    python studies/mlkd_search.py --data notes.csv --text note --label emergency \
        --student kobert --teacher cbert --teacher bio_roberta --use-gpu --out /shared/studies
"""

import argparse
from dataclasses import replace

from dsgkd.cli import study_flags as flags_of
from dsgkd.cli.flags import (
    add_data_flags,
    data_config,
    default_name,
    pick_models,
    run_command,
    store_config,
    store_flags,
)
from dsgkd.cli.session import notify_on_exit, ray_session, studies_folder
from dsgkd.cli.watching import watching_flags
from dsgkd.distillation.distiller import DistillationConfig
from dsgkd.models.on_the_fly import is_built_here
from dsgkd.models.student import StudentConfig
from dsgkd.study.callbacks.notifications import check_hook
from dsgkd.study.callbacks.trackers import trackers
from dsgkd.study.config import StudyConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.study.study import Study
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
    if flags.on_end:
        check_hook(flags.on_end)
    config = study_config(flags)
    study = Study(config, live=not flags.plain_progress)
    study.check()
    with ray_session(config):
        if flags.plan:
            return study.plan()
        with notify_on_exit(flags.on_end, study):
            study.run(trackers(tuple(flags.track), config.folder, config.name, study.say))
    return report(config)


def study_config(flags: argparse.Namespace) -> StudyConfig:
    """Return the study that the flags describe."""
    student, teachers = pick_models(flags)
    small = is_built_here(student)
    run = RunConfig(
        data=data_config(flags),
        student=StudentConfig(student),
        distillation=DistillationConfig(alpha=3.0, teacher_store=flags.teacher_store),
        max_length=flags.max_length,
        optimisation=replace(
            SMALL_FIRST if small else FIRST, epochs=flags.epochs, batch_size=flags.batch_size
        ),
        seed=flags.seed,
    )
    return StudyConfig(
        name=flags.name or default_name("mlkd"),
        out=studies_folder(flags.out),
        run=run,
        teachers=teachers,
        space=replace(
            SMALL_SPACE if small else SPACE,
            beta=(0.0, flags.beta),
            teacher_layers=flags.teacher_layers,
            function=flags.space,
        ),
        first=flags_of.first_points(flags, run),
        search=flags_of.search_config(flags),
        pruning=flags_of.pruning_config(flags),
        confirmation=flags_of.confirmation_config(flags),
        test=flags.test,
        budget=flags_of.budget_config(flags),
        cluster=flags_of.cluster_config(flags),
        store=store_config(flags),
        seed=flags.seed,
        resume=flags.resume,
    )


def report(config: StudyConfig) -> None:
    """Read the ledger back and print the results."""
    import analysis

    print(analysis.report(analysis.load(config.folder)))
    print(f"\nLedger: {config.folder / 'ledger'}")
    print(f"Next:   python -c \"import analysis; print(analysis.load('{config.folder}').trials)\"")


def parser() -> argparse.ArgumentParser:
    """Return the command line; `dsgkd.cli` explains each group of flags."""
    parser = add_data_flags(__doc__ or "", models=True)
    flags_of.folder_flags(parser)
    flags_of.training_flags(parser)
    flags_of.search_flags(parser)
    flags_of.confirmation_flags(parser)
    flags_of.budget_flags(parser)
    flags_of.cluster_flags(parser)
    store_flags(parser)
    watching_flags(parser)
    return parser


if __name__ == "__main__":
    run_command(main)
