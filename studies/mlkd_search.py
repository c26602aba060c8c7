r"""Does a domain-specific teacher help a general student, and with which settings?

A study of DSG-KD (arXiv 2409.14904). The student is first adapted to all texts, labelled or not,
by a teacher of the domain; then its head is fitted, and it is fine-tuned with the teacher at its
side. These methods are compared, with the same head, rates, steps and batches:

    mlkd            distillation of the words in the foreign script from a domain teacher
    plain           fine-tuning of the same student alone
    masked-lm       the student is adapted by filling masks in the same texts instead
    random-teacher  distillation from the teacher's architecture with random weights
    shuffled-words  distillation from the teacher, which reads another word in place of each
    wrong-domain    distillation from a teacher of another domain

On notes of one's own, the best configurations of each, chosen on validation data, are trained again
with fresh seeds. On the synthetic world there is no search: its settings were chosen in other
worlds. The test split stays sealed until --test, which reads it with what was confirmed and writes
that down. A gain over the baselines alone is no evidence that knowledge of the domain moved: what
counts is the difference between `mlkd` and the controls.

    python studies/mlkd_search.py --test
    python studies/mlkd_search.py --data notes.csv --text note --label emergency \
        --student kobert --teacher cbert --teacher bio_roberta --use-gpu --out /shared/studies
"""

from dsgkd.cli.study import main
from dsgkd.data.transfer_set import TransferConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.models.config import StudentConfig
from dsgkd.models.names import is_built_here
from dsgkd.study.config import ConfirmationConfig, StudyConfig
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import (
    AdaptationConfig,
    OptimisationConfig,
    RunConfig,
    SelectionConfig,
)


def study(asked: RunConfig) -> StudyConfig:
    """Return the study, given the notes and the student that the flags ask for."""
    return of_notes(asked) if asked.data.path else embedded()


def of_notes(asked: RunConfig) -> StudyConfig:
    """Return the study of a user's own notes: settings are searched for."""
    student = asked.student.model or "kobert"
    small = is_built_here(student)  # pre-trained on the spot, and in want of larger steps
    return StudyConfig(
        name="mlkd",
        out="runs",
        teachers=("cbert",),
        run=RunConfig(
            student=StudentConfig(student, head="projected"),
            distillation=DistillationConfig(alpha=1.0, weights="relative"),
            adaptation=AdaptationConfig(
                steps=1000, batch_size=32, lr=1e-3 if small else 5e-5, projection_lr=2e-3
            ),
            optimisation=OptimisationConfig(  # the learning rates that are tried first
                epochs=8,
                batch_size=16,
                encoder_lr=3e-4 if small else 3e-5,
                classifier_lr=1e-3,
                projection_lr=2e-3,
                probe=True,
            ),
            max_length=128,
        ),
        search=SearchConfig(trials=12, sampler="tpe", match_rates=True),
        space=SearchSpace(
            encoder_lr=(1e-4, 1e-3) if small else (1e-5, 1e-4),
            classifier_lr=(3e-4, 3e-3),
            alpha=(0.3, 10.0),  # 1: as strong as the task
            beta=(0.0, 0.0),  # the attention term is off unless --beta gives a range
            cs_max_len=(8, 16, 32),
            mappings=("last-1", "last-2", "uniform"),
        ),
        pruning=PruningConfig(scheduler="auto"),  # none below 20 trials of a method
        confirmation=ConfirmationConfig(top=1, seeds=8, controls=("random", "shuffled")),
    )


def embedded() -> StudyConfig:
    """Return the study of the synthetic world, with settings that were chosen in other worlds."""
    return StudyConfig(
        name="mlkd",
        out="runs",
        teachers=("tiny-en-med",),
        run=RunConfig(
            student=StudentConfig("tiny-ko", head="projected"),
            transfer=TransferConfig(
                unlabelled=("synthetic",),
                glossary="synthetic",
                mix="labelled=4,unlabelled=2,glossary=1",
            ),
            distillation=DistillationConfig(alpha=1.0, weights="relative", mapping="last-1"),
            adaptation=AdaptationConfig(
                steps=250,
                mix="labelled=1,unlabelled=4,glossary=1",
                batch_size=32,
                lr=1e-3,
                projection_lr=4e-3,
            ),
            optimisation=OptimisationConfig(
                epochs=5,
                batch_size=16,
                encoder_lr=5e-4,
                classifier_lr=1e-3,
                projection_lr=2e-3,
                probe=True,
            ),
            selection=SelectionConfig(stop_when_stale=()),
            max_length=64,
        ),
        search=SearchConfig(trials=0),
        confirmation=ConfirmationConfig(
            seeds=8, controls=("random", "shuffled", "wrong-domain=tiny-en-tech")
        ),
    )


if __name__ == "__main__":
    main(study, __doc__)
