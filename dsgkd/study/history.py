"""What was done before: a study's ledger, read back when it is resumed or extended.

The ledger is the truth: the search's journal and the pruning record are brought to agree with
what is read here.
"""

from collections import defaultdict
from collections.abc import Container, Mapping
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
    epochs: dict[str, set[int]] = defaultdict(set)
    for row in ledger.rows("metrics", "trial_id", "epoch", "split", "loss", "measures"):
        if row["split"] == "validation":
            epochs[row["trial_id"]].add(row["epoch"])
            value = ((row["measures"] or {}) | {"loss": row["loss"]}).get(objective)
            if value is not None:
                scores[row["trial_id"]][row["epoch"]] = improvement(value, direction)
    trials = {}
    for trial_id, rows in attempts.items():
        last = max(rows, key=lambda row: row["attempt"])
        trials[trial_id] = TrialHistory(
            trial_id=trial_id,
            method=last["method"] or "",
            stage=last["stage"],
            state=last["state"],
            parent=last["parent"] or "",
            attempts=last["attempt"],
            scores=dict(sorted(scores[trial_id].items())),
            epochs=_without_gap(epochs[trial_id]),
            values=last["objectives"] or {},
            parameters=last["parameters"] or {},
            seconds=sum(row["worker_seconds"] or 0.0 for row in rows),
            row=last,
        )
    return dict(sorted(trials.items(), key=lambda item: item[1].row["started_at"]))


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


def _without_gap(epochs: Container[int]) -> int:
    count = 0
    while count + 1 in epochs:
        count += 1
    return count
