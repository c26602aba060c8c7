"""A study's ledger as pandas frames."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import pandas as pd

from dsgkd.ledger import SCHEMAS, Ledger, Table, find_ledgers, frames


@dataclass(frozen=True)
class Results:
    """One or several ledgers as pandas frames; each is read when first asked for, then kept.

    Rows are sorted by their key (study_id, trial_id, attempt, epoch). Counts are Int64 (they can
    be missing), measures float64, times UTC. A running study can be loaded again at any moment.
    """

    ledgers: tuple[Ledger, ...]

    @cached_property
    def studies(self) -> pd.DataFrame:
        """One row per study: versions, data fingerprint, arms and measures as JSON, budget."""
        return frames(self.ledgers, "studies")

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per attempt of a trial: stage, state, cost, its arm's role and its settings.

        The columns `settings(trials)` are the settings; `role` is `baseline`, `method` or
        `control`.
        """
        trials = frames(self.ledgers, "trials")
        rows = self.studies.dropna(subset="arms")
        arms = {study: json.loads(text) for study, text in zip(rows.study_id, rows.arms)}
        roles = [
            arms.get(study, {}).get(method, {}).get("role", "method") if pd.notna(method) else None
            for study, method in zip(trials.study_id, trials.method)
        ]
        return trials.assign(role=pd.array(roles, dtype=str))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per attempt, epoch and split: a column for each measure and term of the loss.

        Measures that a study declares have a column before they were first measured.
        """
        metrics = frames(self.ledgers, "metrics")
        missing = [name for name in self.measures() if name not in metrics]
        return metrics.assign(**dict.fromkeys(missing, float("nan")))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per attempt, split and example: label, probability of each class, subgroups."""
        return frames(self.ledgers, "predictions")

    @cached_property
    def test_reads(self) -> pd.DataFrame:
        """One row per reading of the test split; `closed_at` is missing while it goes on."""
        return frames(self.ledgers, "test_reads")

    @cached_property
    def headroom(self) -> pd.DataFrame:
        """One row per set of features: what could be gained from a teacher, estimated beforehand.

        Empty where nothing was estimated, or ledgers have no such table.
        """
        table = cast(Table, "headroom")
        return frames(self.ledgers, table) if table in SCHEMAS else pd.DataFrame()

    def measures(self, study_id: str | None = None) -> dict[str, str]:
        """Return measure -> `maximise` or `minimise`, of one study or of all, objectives first."""
        studies = self.studies
        if study_id is not None:
            studies = studies[studies.study_id == study_id]
        found = dict.fromkeys(studies.objective.dropna(), "maximise")
        for text in studies.measures.dropna():
            found |= json.loads(text)
        return found

    def objective(self, study_id: str | None = None) -> str:
        """Return the measure that a study, by default the first, searched for."""
        return next(iter(self.measures(study_id)), "loss")


def settings(trials: pd.DataFrame) -> list[str]:
    """Return the columns of `Results.trials` that make up a configuration."""
    return [name for name in trials.columns if name not in (*SCHEMAS["trials"].names, "role")]


def load(path: str | os.PathLike[str]) -> Results:
    """Return the results in `path`: a ledger, a study's folder, or a folder of several studies.

    Args:
        path: a local path or a URI such as `s3://bucket/runs`.

    Raises:
        NotALedger: there is none, in one line.
        InputError: the place cannot be read, in one line.
    """
    return Results(tuple(find_ledgers(path)))
