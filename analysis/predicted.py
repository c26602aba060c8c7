"""A measure of each confirmed run from its predictions, with its covariance over test sets."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import delong, jackknife
from analysis.delong import Array
from analysis.jackknife import Sample
from analysis.results import Results

TOLERANCE = 1e-4
"""A measure from predictions that is further than this from the ledger's is another measure."""


@dataclass(frozen=True)
class Estimates:
    """A measure of the runs of a study on the same notes."""

    place: dict[str, int]
    """Position of each run, by its trial_id."""
    values: Array
    """[runs]."""
    covariance: Array
    """Over test sets, [runs, runs]."""
    notes: int
    patients: int

    def covers(self, *runs: str) -> bool:
        """Whether these runs are among them."""
        return all(run in self.place for run in runs)

    def of(self, arms: list[list[str]]) -> tuple[Array, Array]:
        """Return values and covariance of runs, [arms, seeds] and [arms, seeds, arms, seeds]."""
        at = np.array([[self.place[run] for run in runs] for runs in arms])
        rows = at.ravel()
        return self.values[at], self.covariance[np.ix_(rows, rows)].reshape(*at.shape, *at.shape)


NONE = Estimates({}, np.zeros(0), np.zeros((0, 0)), 0, 0)
"""Where there are no predictions."""


def estimates(rows: pd.DataFrame, runs: pd.DataFrame, measure: str, split: str) -> Estimates:
    """Return a measure of each run, and how it would vary over test sets.

    The covariance is DeLong's for the AUROC of two classes where no patient has several notes,
    else that of leaving out one patient at a time. Left out are runs with no predictions or of
    other notes than most, and those for which this is not the measure in the ledger.

    Args:
        rows: of `of_runs`, all or those of a subgroup.
        runs: of `analysis.confirmed`, of one study. A column `<split>_<measure>` is what the
            measure has to be, `<split>_threshold` where two classes are told apart.
        measure: its name.
        split: that of the rows.
    """
    if measure not in jackknife.MEASURES or rows.empty:
        return NONE
    rows = rows[rows.run.isin(runs.trial_id)].sort_values("example_id")
    by_run = {str(run): part for run, part in rows.groupby("run")}
    ids = {run: tuple(part.example_id) for run, part in by_run.items()}
    if not ids:
        return NONE
    most = max(dict.fromkeys(ids.values()), key=list(ids.values()).count)
    kept = [run for run, found in ids.items() if found == most]
    frame = by_run[kept[0]]
    patients, known = pd.factorize(frame.group_id.fillna(frame.example_id))
    labels = frame.label.to_numpy(np.int64)
    of = runs.set_index("trial_id").reindex(kept)
    given = of.get(f"{split}_threshold", pd.Series(np.nan, of.index)).fillna(0.5)
    thresholds = np.asarray(given, np.float64)
    probability = np.array([by_run[run].probability.tolist() for run in kept], float)
    if measure in ("auroc", "auprc") and len(np.unique(labels)) < 2:
        return NONE
    sample = Sample(labels, probability, patients.astype(np.int64), thresholds)
    values, covariance = _measured(measure, sample)
    fits = np.isfinite(values) & np.isfinite(np.diag(covariance))
    if (expected := of.get(f"{split}_{measure}")) is not None:
        fits &= np.abs(values - expected.to_numpy(float)) < TOLERANCE
    place = {run: at for at, run in enumerate(kept) if fits[at]}
    return Estimates(place, values, covariance, len(most), len(known))


def _measured(measure: str, sample: Sample) -> tuple[Array, Array]:
    single = len(np.unique(sample.patients)) == len(sample.labels)
    positive = sample.labels == 1
    several = min(positive.sum(), (~positive).sum()) > 1  # of both classes
    if measure == "auroc" and single and several and sample.probability.shape[-1] == 2:
        return delong.auroc(positive, sample.probability[..., 1])
    values, left_out = jackknife.MEASURES[measure](sample)
    return values, jackknife.covariance(left_out)


def of_runs(results: Results, study_id: str, split: str) -> pd.DataFrame:
    """Return a study's predictions with the column `run`: the trial whose weights made them.

    Of several readings of the test split a run's first counts, of several attempts the latest.
    """
    rows = results.predictions
    rows = rows[(rows.study_id == study_id) & (rows.split == split)]
    trials = results.trials
    parents = trials[(trials.study_id == study_id) & (trials.stage == "test")]
    reader = parents.drop_duplicates("trial_id").set_index("trial_id").parent
    run = rows.trial_id.map(reader).fillna(rows.trial_id)
    made_by = rows.assign(run=run)[["run", "trial_id", "attempt"]].drop_duplicates()
    made_by = made_by.sort_values("attempt", kind="stable")
    made_by = made_by.drop_duplicates("run", keep="first" if split == "test" else "last")
    return rows.merge(made_by, on=["trial_id", "attempt"])
