"""The learning curves of an earlier study's trials, and how long each epoch took."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dsgkd.errors import InputError
from dsgkd.study.history import TrialHistory


@dataclass(frozen=True)
class Curve:
    """What one trial did, epoch by epoch."""

    trial_id: str
    method: str
    scores: tuple[float, ...]
    """After each epoch; more is better, not a number where undefined."""
    seconds: tuple[float, ...]
    """Of each epoch, training and evaluation."""
    whole: bool
    """It ended by itself, so nothing is unknown beyond the last epoch."""
    opening: float = 0.0
    """Seconds before the first epoch, and whatever else was outside the epochs."""
    failed: bool = False
    """It ended in an error: it costs what it cost, and nobody chooses its weights."""
    workers: int = 1
    gpus: float = 0.0
    """Of all its workers."""

    @property
    def best(self) -> float:
        """The best score; minus infinity where there is none."""
        chosen_from = () if self.failed else filter(math.isfinite, self.scores)
        return max(chosen_from, default=-math.inf)


def curves(past: Iterable[TrialHistory]) -> list[Curve]:
    """Return the curves of a study's search trials, in the order in which they started.

    Trials without a single finished epoch are left out.

    Raises:
        InputError: not one finished an epoch, or none has the objective.
    """
    found = [_curve(trial) for trial in past if trial.stage == "search" and trial.epochs]
    if not found:
        raise InputError("ledger", "no search trial finished an epoch", "choose another study")
    if not any(map(math.isfinite, (score for curve in found for score in curve.scores))):
        raise InputError("ledger", "no trial has the objective", "name one of its measures")
    return found


def _curve(trial: TrialHistory) -> Curve:
    epochs, row = range(1, trial.epochs + 1), trial.row
    workers, busy = row["workers"] or 1, row["worker_seconds"] or 0.0
    return Curve(
        trial.trial_id,
        trial.method,
        tuple(trial.scores.get(epoch, math.nan) for epoch in epochs),
        tuple(trial.epoch_seconds[epoch] for epoch in epochs),
        whole=trial.state in ("complete", "failed"),
        opening=trial.opening,
        failed=trial.state == "failed",
        workers=workers,
        gpus=(row["gpu_seconds"] or 0.0) / busy * workers if busy else 0.0,
    )
