"""The best configurations, and the methods side by side on fresh seeds.

Every function goes from results to a data frame; `analysis.comparison` compares the methods,
`analysis.terminal` prints them. Folding rules, the same everywhere: of a trial's attempts the
latest counts; a confirmation run is one (study, method, seed); where a method was confirmed in
several configurations, the one with the best mean objective on *validation* stands for it, so that
the test split chooses nothing; and of several readings of the test split each model's first
counts, whatever became of later ones.

A trial's `parent` says what belongs together: runs of a method that confirm the same search trial
are one configuration, and a reading of the test split belongs to the run whose weights it used.
"""

from collections.abc import Sequence

import pandas as pd

from analysis.results import Results, settings

ROLES = ("baseline", "method", "control")
"""The order of methods in tables: what trains without a teacher, distillation, and the controls,
whose teacher has no knowledge to give: what a gain owes to distilling as such."""
CONFIRMATION = ("confirm", "control")
"""Stages whose runs are compared; the search only chooses configurations."""

_OF_A_RUN = ["study_id", "method", "role", "seed", "trial_id", "stuck"]


def final_attempts(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the latest attempt of each trial: one row per trial."""
    ordered = trials.sort_values("attempt")
    return ordered.drop_duplicates(["study_id", "trial_id"], keep="last")


def best(results: Results) -> pd.DataFrame:
    """Return the best complete search trial of each method, with its settings.

    One row per (study, method): study_id, method, trial_id, objective, best_epoch and the
    settings; the best method of a study first.
    """
    trials = final_attempts(results.trials)
    found = trials[
        (trials.stage == "search") & (trials.state == "complete") & trials.objective.notna()
    ]
    columns = ["study_id", "method", "trial_id", "objective", "best_epoch", *settings(trials)]
    rows = [
        group.sort_values(
            "objective", ascending=is_minimised(results, str(study)), kind="stable"
        ).drop_duplicates("method")
        for study, group in found.groupby("study_id")
    ]
    return pd.concat([found.iloc[:0], *rows], ignore_index=True)[columns]


def is_minimised(results: Results, study_id: str, measure: str | None = None) -> bool:
    """Whether less of a measure, by default of the study's objective, is better."""
    measure = measure or results.objective(study_id)
    return results.measures(study_id).get(measure) == "minimise"


def confirmed(results: Results, measures: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the confirmation runs: one row per (study, method, seed).

    Columns study_id, method, role, seed, trial_id, stuck (it never left the chance level), and
    `validation_<measure>` (at the best epoch) and `test_<measure>` for each measure (by default
    all that the studies declare). A test split that was read more than once counts with its first
    reading.
    """
    measures = list(results.measures() if measures is None else measures)
    key = ["study_id", "trial_id"]
    trials = final_attempts(results.trials)
    runs = trials[trials.stage.isin(CONFIRMATION) & (trials.state == "complete")]
    runs = runs.assign(stuck=_is_true(runs.get("stuck"), runs.index))
    measured = results.metrics.sort_values(["attempt", "epoch", "step"], kind="stable")
    at_best = runs[[*key, "best_epoch"]].dropna().rename(columns={"best_epoch": "epoch"})
    # A resumed trial may have had its best epoch in an earlier attempt.
    validation = measured[measured.split == "validation"].merge(at_best, on=[*key, "epoch"])
    readers = trials[trials.stage == "test"][[*key, "parent"]]
    test = measured[measured.split == "test"].merge(readers, on=key, how="left")
    test = test.assign(trial_id=test.parent.fillna(test.trial_id))
    for split, rows in (
        ("validation", validation.drop_duplicates(key, keep="last")),
        ("test", test.drop_duplicates(key, keep="first")),
    ):
        named = {measure: f"{split}_{measure}" for measure in measures}
        runs = runs.merge(rows[[*key, *measures]].rename(columns=named), on=key, how="left")

    chosen = [
        _chosen_configuration(group, is_minimised(results, str(study)))
        for (study, _), group in runs.groupby(["study_id", "method"])
    ]
    values = [f"{split}_{measure}" for split in ("validation", "test") for measure in measures]
    found = pd.concat([runs.iloc[:0], *chosen])[[*_OF_A_RUN, *values]]
    return found.sort_values(["study_id", "method", "seed"], ignore_index=True)


def _is_true(flags: pd.Series | None, index: pd.Index) -> pd.Series:
    """Return flags as bool; those that are missing, or of ledgers without them, are False."""
    return pd.Series(False, index) if flags is None else flags.eq(True).fillna(False).astype(bool)


def _chosen_configuration(runs: pd.DataFrame, smaller_is_better: bool) -> pd.DataFrame:
    """Return, of one method's runs, those of the configuration with the best mean objective."""
    configuration = runs.parent.fillna("")
    means = runs.objective.groupby(configuration).mean().dropna()
    if configuration.nunique() == 1 or means.empty:
        return runs
    return runs[configuration == (means.idxmin() if smaller_is_better else means.idxmax())]


def compare(
    results: Results, measures: Sequence[str] | None = None, with_stuck: bool = True
) -> pd.DataFrame:
    """Return the methods side by side over their confirmation runs.

    One row per (study, method), the baseline first and controls last: study_id, method, role,
    seeds, stuck (how many of these runs are), and `<split>_<measure>_mean` and `_sd` (over seeds;
    missing for a single seed).

    Args:
        results: of one or several studies.
        measures: by default all that the studies declare.
        with_stuck: count the runs that got stuck. A method is what comes out of it, so they do
            count; leaving them out is for a second figure beside the first.
    """
    runs = confirmed(results, measures)
    runs = runs if with_stuck else runs[~runs.stuck]
    rows = []
    for (study, method, role), group in runs.groupby(["study_id", "method", "role"]):
        row = {"study_id": study, "method": method, "role": role, "seeds": group.seed.nunique()}
        row["stuck"] = int(group.stuck.sum())
        for column in runs.columns[len(_OF_A_RUN) :]:
            row |= {f"{column}_mean": group[column].mean(), f"{column}_sd": group[column].std()}
        rows.append(row)
    values = runs.columns[len(_OF_A_RUN) :]
    columns = [f"{column}_{part}" for column in values for part in ("mean", "sd")]
    frame = pd.DataFrame(rows, columns=["study_id", "method", "role", "seeds", "stuck", *columns])
    order = frame.role.map(ROLES.index).rename("order")
    frame = frame.assign(order=order).sort_values(["study_id", "order", "method"])
    return frame.drop(columns="order").reset_index(drop=True)
