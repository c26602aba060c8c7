"""What was done before: a study's ledger, read back when it is resumed or extended.

The ledger is the truth: the search's journal and the pruning record are brought to agree with
what is read here.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dsgkd.ledger import Ledger
from dsgkd.ledger.measures import Direction, improvement

FINISHED = ("complete", "pruned", "failed")
"""States after which a trial is not run again."""


@dataclass(frozen=True)
class TrialHistory:
    """A trial as the ledger knows it: its last attempt, and what all its attempts reported."""

    trial_id: str
    method: str
    stage: str
    state: str
    parent: str
    """The trial from which it follows; empty: none."""
    attempts: int
    scores: dict[int, float]
    """Epoch -> validation score, more is better."""
    epochs: int
    """Epochs whose figures are in the ledger, without a gap."""
    epoch_seconds: dict[int, float]
    """Epoch -> seconds of training and evaluation."""
    opening: float
    """Seconds of the last attempt outside its epochs."""
    values: dict[str, float]
    """Name -> value of the objectives and constraints."""
    parameters: dict[str, dict[str, Any]]
    """Searched name -> value and distribution."""
    seconds: float
    """Worker seconds of all attempts."""
    row: dict[str, Any] = field(repr=False)
    """The last attempt's row."""

    @property
    def finished(self) -> bool:
        """Whether it is not to be run again."""
        return self.state in FINISHED


def read_history(
    ledger: Ledger, objective: str, direction: Direction = "maximise"
) -> dict[str, TrialHistory]:
    """Return the trials of a ledger by their names, in the order in which they were begun."""
    attempts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in ledger.rows("trials"):
        attempts[row["trial_id"]].append(row)
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    seconds: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    for row in ledger.rows("metrics"):
        trial_id, epoch = row["trial_id"], row["epoch"]
        if row["split"] == "validation":
            value = ((row["measures"] or {}) | {"loss": row["loss"]}).get(objective)
            if value is not None:
                scores[trial_id][epoch] = improvement(value, direction)
        if row["split"] in ("train", "validation"):
            key = (row["attempt"], epoch)
            seconds[trial_id][key] = seconds[trial_id].get(key, 0.0) + (row["seconds"] or 0.0)
    trials = [
        _history(trial_id, rows, scores[trial_id], seconds[trial_id])
        for trial_id, rows in attempts.items()
    ]
    trials.sort(key=lambda trial: min(row["started_at"] for row in attempts[trial.trial_id]))
    return {trial.trial_id: trial for trial in trials}


def _history(
    trial_id: str,
    rows: list[dict[str, Any]],
    scores: dict[int, float],
    seconds: dict[tuple[int, int], float],
) -> TrialHistory:
    last = max(rows, key=lambda row: row["attempt"])
    by_epoch: dict[int, float] = {}
    for (_, epoch), spent in sorted(seconds.items()):
        # A later attempt may name an epoch again, without what it cost.
        by_epoch[epoch] = spent or by_epoch.get(epoch, 0.0)
    own = sum(spent for (attempt, _), spent in seconds.items() if attempt == last["attempt"])
    whole = (last["worker_seconds"] or 0.0) / (last["workers"] or 1)
    return TrialHistory(
        trial_id=trial_id,
        method=last["method"] or "",
        stage=last["stage"],
        state=last["state"],
        parent=last["parent"] or "",
        attempts=last["attempt"],
        scores=dict(sorted(scores.items())),
        epochs=next(count for count in itertools.count() if count + 1 not in by_epoch),
        epoch_seconds=by_epoch,
        opening=max(0.0, whole - own),
        values=last["objectives"] or {},
        parameters=last["parameters"] or {},
        seconds=sum(row["worker_seconds"] or 0.0 for row in rows),
        row=last,
    )


def close_lost(ledger: Ledger, past: Mapping[str, TrialHistory]) -> None:
    """Write down that attempts which nobody ended were cut off, with the cost that was known."""
    for trial in past.values():
        if trial.state == "running":
            workers = trial.row["workers"] or 1
            seconds = (trial.row["worker_seconds"] or 0.0) / workers
            ended = trial.row["started_at"] + timedelta(seconds=seconds)
            row = trial.row | {
                "state": "preempted",
                "reason": "the study was killed",
                "ended_at": min(ended, datetime.now(UTC)),
            }
            ledger.write("trials", [row], f"{trial.trial_id}-{trial.attempts}")
