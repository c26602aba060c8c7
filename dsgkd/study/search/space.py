"""The search space: ranges, and how a configuration is drawn from them.

A space with conditions that ranges cannot express is a function in an importable module, named
`package.module:function`, so that the ledger can say what was searched and a resumed study finds
it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MinLen

from dsgkd.configuration import Count, LearningRate, Positive, Text, Weight, Whole, config
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.errors import InputError
from dsgkd.plugins import find
from dsgkd.study.search.arms import Arm, public_name, teacher_names
from dsgkd.training.config import RunConfig

if TYPE_CHECKING:
    import optuna


def point_of(run: RunConfig) -> dict[str, Any]:
    """Return the values of a run under the names by which a space searches them."""
    distillation, optimisation = run.distillation, run.optimisation
    return {
        "encoder_lr": optimisation.encoder_lr,
        "classifier_lr": optimisation.classifier_lr,
        "alpha": distillation.alpha,
        "beta": distillation.beta,
        "mapping": distillation.mapping,
        "cs_max_len": distillation.max_transfer_words,
    }


def at_point(run: RunConfig, point: Mapping[str, Any], teachers: Mapping[str, str]) -> RunConfig:
    """Return a run with values by the names under which a space searches them.

    Args:
        run: what the point says nothing of.
        point: searched name -> value, as `point_of` gives them, or `teacher`.
        teachers: name that a point may give -> the model.

    Raises:
        InputError: a name or a value cannot be used.
    """
    values = dict(point)
    distillation, optimisation = {}, {}
    for name, value in values.items():
        if name in ("encoder_lr", "classifier_lr"):
            optimisation[name] = value
        elif name in ("alpha", "beta", "mapping"):
            distillation[name] = value
        elif name == "cs_max_len":
            distillation["max_transfer_words"] = value
        elif name == "teacher" and value in teachers:
            distillation["teacher"] = teachers[value]
        else:
            known = ", ".join([*point_of(run), "teacher"])
            what = f"'{name}' = {value!r} means nothing without a search"
            raise InputError("initial_points", what, f"give {known} alone")
    return replace(
        run,
        distillation=replace(run.distillation, **distillation),
        optimisation=replace(run.optimisation, **optimisation),
    )


@config
class SearchSpace:
    """Ranges of the searched values. Plain fine-tuning draws the learning rates only."""

    encoder_lr: tuple[LearningRate, LearningRate] = (5e-5, 1e-3)
    """Logarithmic."""
    classifier_lr: tuple[LearningRate, LearningRate] = (3e-4, 1e-2)
    """Logarithmic."""
    alpha: tuple[Positive, Positive] = (0.1, 10.0)
    """Weight of the hidden-state loss, logarithmic."""
    beta: tuple[Weight, Weight] = (0.0, 0.0)
    """Weight of the attention loss, linear; equal ends: not searched."""
    cs_max_len: Annotated[tuple[Count, ...], MinLen(1)] = (8, 16, 32)
    """Words of a text at most."""
    mappings: Annotated[tuple[Text, ...], MinLen(1)] = (
        *("uniform", "last-1", "last-2", "first-1", "uniform+emb"),
    )
    """Layer mappings; those that do not fit a pair of depths are left out for that pair."""
    teacher_layers: tuple[Whole, ...] = ()
    """Use these layers of the teacher only (0: embeddings); empty: any."""

    function: Text = ""
    """`package.module:function` that draws instead, within these ranges. It is called with
    (space, trial, arm, base, teachers, depths), as `SearchSpace.suggest` is, and returns the
    run."""

    def __post_init__(self) -> None:
        if self.function:
            self._function()
        for name in ("encoder_lr", "classifier_lr", "alpha", "beta"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(
                    name, f"no range from {low} to {high}", "give a low and a high end"
                )
        for mapping in self.mappings:
            LayerMapping.parse(mapping)

    def suggest(
        self,
        trial: optuna.Trial,
        arm: Arm,
        base: RunConfig,
        teachers: Mapping[str, str],
        depths: Mapping[str, int],
    ) -> RunConfig:
        """Draw a run from the space.

        Args:
            trial: an asked Optuna trial.
            arm: the method for which it is drawn; plain fine-tuning gets the learning rates only.
            base: the run in which the searched values are replaced.
            teachers: choices of the teacher, one of which may be several, `a+b`: the name that is
                drawn and written down -> the model.
            depths: number of layers of the student and of each teacher, by model name.
        """
        if self.function:
            run: RunConfig = self._function()(self, trial, arm, base, teachers, depths)
            return arm.applied(run)
        optimisation = replace(
            base.optimisation,
            encoder_lr=trial.suggest_float("encoder_lr", *self.encoder_lr, log=True),
            classifier_lr=trial.suggest_float("classifier_lr", *self.classifier_lr, log=True),
        )
        base = replace(base, optimisation=optimisation)
        if not arm.distils:
            return arm.applied(base)
        choices = {public_name(arm.teacher): arm.teacher} if arm.teacher else teachers
        teacher = choices[trial.suggest_categorical("teacher", list(choices))]
        beta = self.beta[0]
        if self.beta[0] < self.beta[1]:
            beta = trial.suggest_float("beta", *self.beta)
        ours = depths[base.student.model]
        mappings = [
            self._suggest_mapping(trial, ours, depths[name], at)
            for at, name in enumerate(teacher_names(teacher))
        ]
        distillation = replace(
            base.distillation,
            teacher=teacher,
            mapping=";".join(mappings),
            alpha=trial.suggest_float("alpha", *self.alpha, log=True),
            beta=beta,
            max_transfer_words=trial.suggest_categorical("cs_max_len", list(self.cs_max_len)),
        )
        return arm.applied(replace(base, distillation=distillation))

    def _suggest_mapping(self, trial: optuna.Trial, ours: int, theirs: int, at: int) -> str:
        """Draw the mapping to one of the teachers of a choice."""
        # The choices depend on the pair of depths, so the parameter's name does too.
        name = f"mapping_{ours}_to_{theirs}" + (f"_of_{at + 1}" if at else "")
        mapping: str = trial.suggest_categorical(name, self.fitting_mappings(ours, theirs))
        return mapping

    def _function(self) -> Any:
        return find("space", self.function, {})

    def fitting_mappings(self, student_depth: int, teacher_depth: int) -> list[str]:
        """Return the mappings that exist for two depths.

        Raises:
            InputError: none does.
        """
        fitting, refusal = [], None
        for mapping in self.mappings:
            try:
                pairs = LayerMapping.parse(mapping).resolve(student_depth, teacher_depth)
                if not self.teacher_layers or {t for _, t in pairs} <= {*self.teacher_layers}:
                    fitting.append(mapping)
            except InputError as error:
                refusal = error
        if not fitting:
            raise refusal or InputError(
                "teacher layers",
                f"no mapping uses only {', '.join(map(str, self.teacher_layers))} "
                f"(student has {student_depth} layers, teacher {teacher_depth})",
                "give other layers, or a mapping such as last-1",
            )
        return fitting
