"""The arms of a study: distillation, the baseline, and controls.

A gain over the baseline alone is no evidence that knowledge of the domain moved. The controls
distil as well, from a teacher that cannot have that knowledge to give:

    random-teacher  the teacher's architecture with random weights
    shuffled-words  the teacher's own states, each given to another word
    wrong-domain    a teacher of another domain
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dsgkd.distillation.config import DistillationConfig, TeacherWeights, split_teachers
from dsgkd.errors import InputError
from dsgkd.ledger import without_paths
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.training.config import RunConfig

Role = Literal["method", "baseline", "control"]

PLAIN, MLKD = "plain", "mlkd"
RANDOM_TEACHER, SHUFFLED_WORDS, WRONG_DOMAIN = "random-teacher", "shuffled-words", "wrong-domain"
CONTROLS = {"random": RANDOM_TEACHER, "shuffled": SHUFFLED_WORDS, "wrong-domain": WRONG_DOMAIN}
"""What the user writes -> name of the arm."""


@dataclass(frozen=True)
class Arm:
    """One of the methods that are compared."""

    method: str
    role: Role
    distils: bool = True
    teacher: str = ""
    """The only teacher it has; empty: those of the study."""
    weights: TeacherWeights = "pretrained"
    shuffled: bool = False

    def applied(self, run: RunConfig) -> RunConfig:
        """Return the run as this arm does it, and with it the runs before it that have a teacher.

        Without a teacher, they are trained on the same texts all the same; but a run that only the
        teacher trains is left out.
        """
        links = tuple(
            replace(link, distillation=self._distillation(link.distillation))
            if link.distillation.teacher
            else link
            for link in run.links
            if self.distils or not link.task.idle
        )
        return replace(run, distillation=self._distillation(run.distillation), links=links)

    def _distillation(self, given: DistillationConfig) -> DistillationConfig:
        if not self.distils:
            return replace(given, teacher="", alpha=0.0, beta=0.0, terms=())
        return replace(
            given,
            teacher=self.teacher or given.teacher,
            teacher_weights=self.weights,
            shuffled=self.shuffled,
        )


def teacher_names(choice: str) -> list[str]:
    """Return the teachers of a choice: `a`, `a+b` or `0.7*a+0.3*b`."""
    return [name for name, _ in split_teachers(choice)]


def public_name(given: str) -> str:
    """Return a model's name without where it lies: a hub id as it is, the last part of a path.

    Of several teachers, `a+b`, each.
    """
    if Path(given).exists():
        return Path(given).name
    for name in teacher_names(given):
        if name != given:
            given = given.replace(name, public_name(name))
    return str(without_paths(given))


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
        "control",
        teacher=_model(teacher),
        weights="random" if name == "random" else "pretrained",
        shuffled=name == "shuffled",
    )


def arms(controls: Sequence[str]) -> tuple[Arm, ...]:
    """Return distillation, the baseline and the controls, in the order of confirmation.

    Raises:
        InputError: a control cannot be read, or is given twice.
    """
    found = [Arm(MLKD, "method"), Arm(PLAIN, "baseline", distils=False), *map(control, controls)]
    names = [arm.method for arm in found]
    if len(set(names)) < len(names):
        raise InputError("controls", "one is given twice", "give each once")
    return tuple(found)


def _model(given: str) -> str:
    path = Path(given).expanduser()
    if given and path.exists() and not (path / "config.json").exists():
        return CORPUS_PREFIX + str(path.resolve())
    return given
