"""Which methods does a study compare? Distillation, the baseline, and controls.

A gain over the baseline alone is no evidence that knowledge of the domain moved. The controls
distil as well, from a teacher that cannot have that knowledge to give:

    random-teacher  the teacher's architecture with random weights
    shuffled-words  the teacher's own states, each given to another word
    wrong-domain    a teacher of another domain
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsgkd.distillation.distiller import TeacherWeights
from dsgkd.errors import InputError
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.training.run import RunConfig

PLAIN, MLKD = "plain", "mlkd"
RANDOM_TEACHER, SHUFFLED_WORDS, WRONG_DOMAIN = "random-teacher", "shuffled-words", "wrong-domain"
CONTROLS = {"random": RANDOM_TEACHER, "shuffled": SHUFFLED_WORDS, "wrong-domain": WRONG_DOMAIN}
"""What the user writes -> the method."""


@dataclass(frozen=True)
class Arm:
    """One of the methods that are compared."""

    method: str
    distils: bool = True
    teacher: str = ""
    """The only teacher it has; empty: those of the study."""
    weights: TeacherWeights = "pretrained"
    shuffled: bool = False

    @property
    def is_control(self) -> bool:
        """Whether it is there to be beaten."""
        return self.method in CONTROLS.values()

    def applied(self, run: RunConfig) -> RunConfig:
        """Return the run as this method does it."""
        if not self.distils:
            alone = replace(run.distillation, teacher="", alpha=0.0, beta=0.0)
            return replace(run, distillation=alone)
        distillation = replace(
            run.distillation,
            teacher=self.teacher or run.distillation.teacher,
            teacher_weights=self.weights,
            shuffled=self.shuffled,
        )
        return replace(run, distillation=distillation)


def control(text: str) -> Arm:
    """Read what the user writes for a control: `random`, `shuffled` or `wrong-domain=MODEL`.

    MODEL is a folder with a model, a hub id, or a folder or file of text from which a small
    teacher is pre-trained.

    Raises:
        InputError: it is none of these.
    """
    name, _, teacher = text.strip().partition("=")
    if name not in CONTROLS or bool(teacher) != (name == "wrong-domain"):
        raise InputError(
            "controls", f"'{text}' is none", "choose of random, shuffled, wrong-domain=MODEL"
        )
    return Arm(
        CONTROLS[name],
        teacher=_model(teacher),
        weights="random" if name == "random" else "pretrained",
        shuffled=name == "shuffled",
    )


def arms(controls: Sequence[str]) -> tuple[Arm, ...]:
    """Return distillation, the baseline and the controls, in the order of confirmation.

    Raises:
        InputError: a control cannot be read, or is given twice.
    """
    found = [Arm(MLKD), Arm(PLAIN, distils=False), *map(control, controls)]
    names = [arm.method for arm in found]
    if len(set(names)) < len(names):
        raise InputError("controls", "one is given twice", "give each once")
    return tuple(found)


def _model(given: str) -> str:
    path = Path(given).expanduser()
    if given and path.exists() and not (path / "config.json").exists():
        return CORPUS_PREFIX + str(path.resolve())
    return given
