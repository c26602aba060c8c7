"""A study without a search: settings that were declared beforehand are confirmed as they are.

A pre-registered analysis takes its settings from elsewhere (other data, an earlier study) and is
not to be searched on its own. With `--trials 0` the study's run, or the points that a search would
try first, are the configurations of every arm.
"""

from collections.abc import Mapping
from dataclasses import replace

from dsgkd.errors import InputError
from dsgkd.study.config import StudyConfig
from dsgkd.study.search.arms import public_name
from dsgkd.study.search.space import SearchSpace, at_point
from dsgkd.study.spec import PlannedTrial
from dsgkd.training.config import RunConfig


class Declared:
    """The declared configurations of a study, in place of the best that a search has found.

    Args:
        config: the study.
        run: what trials have in common.

    Raises:
        InputError: a point names something that only a search knows, or no one teacher is named.
    """

    def __init__(self, config: StudyConfig, run: RunConfig) -> None:
        self._config = config
        teachers = {public_name(choice): choice for choice in config.teachers}
        points = (config.initial_points or ({},))[: config.confirmation.top]
        self.runs = tuple(
            at_point(_with_teacher(config, run, point), point, teachers) for point in points
        )
        """The configurations as distillation has them."""

    def best(self, method: str, count: int = 1) -> list[PlannedTrial]:
        """Return the configurations of a method, in the order in which they were declared.

        Their names, `declared-000`, are the same in every arm; they are no trials.
        """
        arm = self._config.arms[method]
        return [
            PlannedTrial("search", method, f"declared-{number:03d}", arm.applied(run))
            for number, run in enumerate(self.runs[:count])
        ]

    def check(self, depths: Mapping[str, int]) -> None:
        """Refuse layer mappings that do not fit the models.

        Args:
            depths: number of layers of the student and of each teacher.

        Raises:
            InputError: names the mapping.
        """
        for run in self.runs:
            for choice in run.distillation.choices:
                choice.mapping.resolve(depths[run.student.model], depths[choice.model])

    @property
    def space(self) -> SearchSpace:
        """The space that holds these configurations and no others, as far as teachers are asked."""
        found = [run.distillation for run in self.runs]
        alphas, betas = [one.alpha for one in found], [one.beta for one in found]
        return replace(
            self._config.space,
            alpha=(min(alphas), max(alphas)),
            beta=(min(betas), max(betas)),
            cs_max_len=tuple({one.max_transfer_words for one in found}),
            mappings=tuple({part for one in found for part in one.mapping.split(";")}),
            teacher_layers=(),
        )


def _with_teacher(config: StudyConfig, run: RunConfig, point: Mapping[str, object]) -> RunConfig:
    """Return the run with its teacher, unless the point names one."""
    own = run.distillation.teacher
    if "teacher" in point:
        return run
    if own and own not in config.teachers:
        raise InputError("teacher", f"{public_name(own)} is none of the study's", "give it as one")
    if not own and len(config.teachers) > 1:
        raise InputError(
            "trials",
            f"0, and {len(config.teachers)} teachers to choose from",
            "name one teacher, or join them as a+b",
        )
    teacher = own or config.teachers[0]
    return replace(run, distillation=replace(run.distillation, teacher=teacher))
