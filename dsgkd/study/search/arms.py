"""The arms of a study: distillation, the baselines, and controls.

    plain           fine-tuning alone
    masked-lm       masked-language-model training on the texts, steps and batches with which the
                    others are adapted by their teacher, then fine-tuning

A gain over the baselines alone is no evidence that knowledge of the domain moved. The controls
distil as well, from a teacher that cannot have that knowledge to give:

    random-teacher  the teacher's architecture with random weights
    shuffled-words  the teacher's own states; every word always gets those of one other word
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
from dsgkd.training.config import AdaptationConfig, LinkConfig, RunConfig

Role = Literal["method", "baseline", "control"]

PLAIN, MASKED_LM, MLKD = "plain", "masked-lm", "mlkd"
RANDOM_TEACHER, SHUFFLED_WORDS, WRONG_DOMAIN = "random-teacher", "shuffled-words", "wrong-domain"
CONTROLS = {"random": RANDOM_TEACHER, "shuffled": SHUFFLED_WORDS, "wrong-domain": WRONG_DOMAIN}
"""What the user writes -> name of the arm."""


@dataclass(frozen=True)
class Arm:
    """One of the methods that are compared."""

    method: str
    role: Role
    distils: bool = True
    adapts: bool = False
    """Without a teacher, the student is adapted all the same: it learns to fill masks."""
    teacher: str = ""
    """The only teacher it has; empty: those of the study."""
    weights: TeacherWeights = "pretrained"
    shuffled: bool = False

    def applied(self, run: RunConfig) -> RunConfig:
        """Return the run as this arm does it, and with it the runs before it that have a teacher.

        Without a teacher, the student is not adapted, or adapted to fill masks. Other runs before
        this one are trained on the same texts all the same, unless only the teacher trains them.
        """
        adaptation, links = run.adaptation, run.links
        if not self.distils:
            links = tuple(link for link in links if not link.task.idle)
            adaptation = (
                replace(adaptation, task="masked_lm") if self.adapts else AdaptationConfig()
            )
        return replace(
            run,
            distillation=self._distillation(run.distillation),
            adaptation=adaptation,
            links=tuple(map(self._link, links)),
        )

    def _link(self, link: LinkConfig) -> LinkConfig:
        """Return a link as this arm does it; without a teacher it is the same in all arms."""
        if not link.distillation.teacher:
            return link
        return replace(link, distillation=self._distillation(link.distillation))

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


def arms(controls: Sequence[str], adapted: bool = False) -> tuple[Arm, ...]:
    """Return distillation, the baselines and the controls, in the order of confirmation.

    Args:
        controls: what the user writes for each.
        adapted: with a baseline that is adapted without a teacher.

    Raises:
        InputError: a control cannot be read, or is given twice.
    """
    found = [Arm(MLKD, "method"), Arm(PLAIN, "baseline", distils=False)]
    if adapted:
        found.append(Arm(MASKED_LM, "baseline", distils=False, adapts=True))
    found += map(control, controls)
    names = [arm.method for arm in found]
    if len(set(names)) < len(names):
        raise InputError("controls", "one is given twice", "give each once")
    return tuple(found)


def _model(given: str) -> str:
    path = Path(given).expanduser()
    if given and path.exists() and not (path / "config.json").exists():
        return CORPUS_PREFIX + str(path.resolve())
    return given
