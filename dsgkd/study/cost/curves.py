"""The learning curves of an earlier study's trials, and how long each epoch took."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsgkd.errors import InputError

Rows = Sequence[Mapping[str, Any]]


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


def curves(trials: Rows, metrics: Rows, objective: str, lower_is_better: bool) -> list[Curve]:
    """Read the curves of a study's search trials, in the order in which they started.

    Epochs of several attempts are joined. Trials without a single finished epoch are left out.

    Args:
        trials: rows of the ledger's table.
        metrics: the same.
        objective: measure by which trials are compared, on validation.
        lower_is_better: for the objective, such as a loss.

    Raises:
        InputError: no trial has the measure, or not one finished an epoch.
    """
    sign = -1.0 if lower_is_better else 1.0
    attempts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in trials:
        if row["stage"] == "search":
            attempts[row["trial_id"]].append(row)
    epochs: dict[str, dict[tuple[int, int], dict[str, Any]]] = defaultdict(dict)
    known = False
    for row in metrics:
        if row["trial_id"] not in attempts or row["split"] not in ("train", "validation"):
            continue
        epoch = epochs[row["trial_id"]].setdefault((row["epoch"], row["attempt"]), {"seconds": 0.0})
        epoch["seconds"] += row.get("seconds") or 0.0
        if row["split"] == "validation":
            value = row.get("loss") if objective == "loss" else row["measures"].get(objective)
            known |= value is not None
            epoch["score"] = math.nan if value is None else sign * value
    ordered = sorted(attempts.items(), key=lambda item: min(row["started_at"] for row in item[1]))
    found = [_curve(trial_id, rows, epochs[trial_id]) for trial_id, rows in ordered]
    if not any(curve.scores for curve in found):
        raise InputError("ledger", "no search trial finished an epoch", "choose another study")
    if not known:
        raise InputError("ledger", f"no measure '{objective}'", "name one of its measures")
    return [curve for curve in found if curve.scores]


def _curve(
    trial_id: str,
    attempts: Iterable[Mapping[str, Any]],
    epochs: Mapping[tuple[int, int], Mapping[str, Any]],
) -> Curve:
    last = max(attempts, key=lambda row: row["attempt"])
    # A later attempt may name an epoch of an earlier one again, without what it cost.
    score: dict[int, float] = {}
    seconds: dict[int, float] = {}
    for (epoch, _), found in sorted(epochs.items()):
        score[epoch] = found.get("score", score.get(epoch, math.nan))
        seconds[epoch] = found["seconds"] or seconds.get(epoch, 0.0)
    number = 0
    while number + 1 in score:
        number += 1
    workers = last.get("workers") or 1
    busy, gpu = last.get("worker_seconds") or 0.0, last.get("gpu_seconds") or 0.0
    own = sum(
        found["seconds"] for (_, attempt), found in epochs.items() if attempt == last["attempt"]
    )
    return Curve(
        trial_id,
        last["method"],
        tuple(score[epoch] for epoch in range(1, number + 1)),
        tuple(seconds[epoch] for epoch in range(1, number + 1)),
        whole=last["state"] in ("complete", "failed"),
        opening=max(0.0, busy / workers - own),
        failed=last["state"] == "failed",
        workers=workers,
        gpus=gpu / busy * workers if busy else 0.0,
    )
