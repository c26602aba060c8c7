"""Over what does a study search? Ranges, and how a configuration is drawn from them.

The space lives in an importable module, not in a script's `__main__`, so that every process that
unpickles it finds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import optuna

from dsgkd.distillation.mapping import LayerMapping
from dsgkd.errors import InputError
from dsgkd.training.run import RunConfig

PLAIN, MLKD, RANDOM_TEACHER = "plain", "mlkd", "random-teacher"
METHODS = (MLKD, PLAIN, RANDOM_TEACHER)
"""Distillation, plain fine-tuning, and distillation from a teacher that knows nothing."""


@dataclass(frozen=True)
class SearchSpace:
    """Ranges of the searched values. Plain fine-tuning draws the learning rates only."""

    encoder_lr: tuple[float, float] = (5e-5, 1e-3)
    """Logarithmic."""
    classifier_lr: tuple[float, float] = (3e-4, 1e-2)
    """Logarithmic."""
    alpha: tuple[float, float] = (0.1, 10.0)
    """Weight of the hidden-state loss, logarithmic."""
    beta: tuple[float, float] = (0.0, 0.0)
    """Weight of the attention loss, linear; equal ends: not searched."""
    cs_max_len: tuple[int, ...] = (8, 16, 32)
    """Words of a text at most."""
    mappings: tuple[str, ...] = ("uniform", "last-1", "last-2", "first-1", "uniform+emb")
    """Layer mappings; those that do not fit a pair of depths are left out for that pair."""
    teacher_layers: tuple[int, ...] = ()
    """Use these layers of the teacher only (0: embeddings); empty: any."""

    def __post_init__(self) -> None:
        for name in ("encoder_lr", "classifier_lr", "alpha", "beta"):
            low, high = getattr(self, name)
            smallest = 0.0 if name == "beta" else 1e-12
            if not smallest <= low <= high:
                raise InputError(
                    name, f"no range from {low} to {high}", "give a low and a high end"
                )
        for mapping in self.mappings:
            LayerMapping.parse(mapping)

    def suggest(
        self,
        trial: optuna.Trial,
        method: str,
        base: RunConfig,
        teachers: Sequence[str],
        depths: Mapping[str, int],
    ) -> RunConfig:
        """Draw a run from the space.

        Args:
            trial: an asked Optuna trial.
            method: one of `METHODS`.
            base: the run in which the searched values are replaced.
            teachers: names of the teachers to choose from.
            depths: number of layers of the student and of each teacher, by model name.
        """
        optimisation = replace(
            base.optimisation,
            encoder_lr=trial.suggest_float("encoder_lr", *self.encoder_lr, log=True),
            classifier_lr=trial.suggest_float("classifier_lr", *self.classifier_lr, log=True),
        )
        if method == PLAIN:
            distillation = replace(base.distillation, teacher="", alpha=0.0, beta=0.0)
            return replace(base, optimisation=optimisation, distillation=distillation)
        teacher = trial.suggest_categorical("teacher", list(teachers))
        fitting = self.fitting_mappings(depths[base.student.model], depths[teacher])
        # The choices depend on the pair of depths, so the parameter's name does too.
        pair = f"mapping_{depths[base.student.model]}_to_{depths[teacher]}"
        beta = self.beta[0]
        if self.beta[0] < self.beta[1]:
            beta = trial.suggest_float("beta", *self.beta)
        distillation = replace(
            base.distillation,
            teacher=teacher,
            teacher_weights="random" if method == RANDOM_TEACHER else "pretrained",
            mapping=trial.suggest_categorical(pair, fitting),
            alpha=trial.suggest_float("alpha", *self.alpha, log=True),
            beta=beta,
            cs_max_len=trial.suggest_categorical("cs_max_len", list(self.cs_max_len)),
        )
        return replace(base, optimisation=optimisation, distillation=distillation)

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
