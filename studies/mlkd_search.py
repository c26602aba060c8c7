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

from dsgkd.cli.study import main
from dsgkd.distillation.config import DistillationConfig
from dsgkd.models.config import StudentConfig
from dsgkd.models.names import is_built_here
from dsgkd.study.config import ConfirmationConfig, StudyConfig
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import OptimisationConfig, RunConfig


def study(asked: RunConfig) -> StudyConfig:
    """Return the study, given the notes and the student that the flags ask for."""
    own = bool(asked.data.path)
    student = asked.student.model or ("kobert" if own else "tiny-ko")
    small = is_built_here(student)  # pre-trained on the spot, and in want of larger steps
    return StudyConfig(
        name="mlkd",
        out="runs",
        teachers=("cbert",) if own else ("tiny-en-med",),
        run=RunConfig(
            student=StudentConfig(student),
            distillation=DistillationConfig(alpha=3.0),
            optimisation=OptimisationConfig(  # the learning rates that every method tries first
                epochs=10,
                batch_size=8,
                encoder_lr=1e-3 if small else 5e-5,
                classifier_lr=3e-3,
                projection_lr=2e-3,
            ),
            max_length=128,
        ),
        search=SearchConfig(trials=12, sampler="tpe", equal="trials"),
        space=SearchSpace(
            encoder_lr=(3e-4, 2e-3) if small else (1e-5, 2e-4),
            classifier_lr=(3e-4, 1e-2),
            alpha=(0.3, 10.0),
            beta=(0.0, 0.0),  # the attention term is off unless --beta gives a range
            cs_max_len=(8, 16, 32),
            mappings=("uniform", "last-1", "last-2", "first-1", "uniform+emb"),
        ),
        pruning=PruningConfig(scheduler="auto"),  # none below 20 trials a method
        confirmation=ConfirmationConfig(top=1, seeds=5, controls=("random",)),
    )


if __name__ == "__main__":
    main(study, __doc__)
