"""Which configuration was best, does distillation help, and is it the teacher's knowledge?

Every function goes from results to a data frame; `analysis.terminal` prints them. Folding
rules, the same everywhere: of a trial's attempts the latest counts; a confirmation run is one
(study, method, seed); where a method was confirmed in several configurations, the one with the
best mean objective on *validation* stands for it, so that the test split chooses nothing; and of
several readings of the test split each model's first counts, whatever became of later ones.

Names of trials say what belongs together: `test-mlkd-003-002` reads the test split with the weights
of `confirm-mlkd-003-002`, which is search trial 003 on the third fresh seed; `seal-001` is no trial
but the first time that the test split's seal was broken.
"""

import json
import math
from collections.abc import Sequence

import pandas as pd

from analysis.results import Results

BASELINE = "plain"
"""The method that fine-tunes without a teacher."""
CONTROLS = ("random-teacher", "shuffled-words", "wrong-domain")
"""Methods whose teacher has no knowledge of the domain to give: what a gain owes to distilling as
such. Any other method of stage `control` is treated as one too."""
MEASURES = ("auroc", "auprc", "f1", "accuracy", "brier")
"""Compared unless told otherwise."""
LOWER_IS_BETTER = frozenset({"loss", "loss_ce", "brier", "ece"})
"""Measures for which the smaller value is the better one."""
CONFIRMATION = ("confirm", "control")
"""Stages whose runs are compared; the search only chooses configurations."""
MINIMUM_PAIRS = 3
"""With fewer seeds than this nothing is claimed."""

HYPERPARAMETERS = (
    "student",
    "teacher",
    "layer_mapping",
    "criterion",
    "alpha",
    "beta",
    "cs_max_len",
    "encoder_lr",
    "classifier_lr",
    "batch_size",
    "other",
)
"""Columns that make up a configuration; `other` is JSON."""


def objective(results: Results, study_id: str | None = None) -> str:
    """The measure that a study searched for, from its configuration; else 'auroc'."""
    studies = results.studies
    if study_id is not None:
        studies = studies[studies.study_id == study_id]
    for text in studies.configuration.dropna():
        configuration = json.loads(text)
        name = configuration.get("objective") if isinstance(configuration, dict) else None
        if isinstance(name, str) and name in results.metrics.columns:
            return name
    return "auroc"


def without_seals(trials: pd.DataFrame) -> pd.DataFrame:
    """All attempts of trials, without the rows that tell of a broken seal."""
    return trials[~_is_seal(trials)]


def final_attempts(trials: pd.DataFrame) -> pd.DataFrame:
    """The latest attempt of each trial: one row per trial; a broken seal is none."""
    trials = without_seals(trials).sort_values("attempt")
    return trials.drop_duplicates(["study_id", "trial_id"], keep="last")


def controls(results: Results) -> list[str]:
    """The methods that were run as controls, by name."""
    trials = results.trials
    return sorted(trials[trials.stage == "control"].method.dropna().unique())


def readings(results: Results) -> pd.DataFrame:
    """How often the test split was read: one row per breaking of its seal, in order.

    Columns study_id, trial_id (`seal-001`, ...), started_at, state (`running` until all models
    have read) and models: how many have read the test split since, and before the next breaking.
    """
    trials = results.trials
    seals = trials[_is_seal(trials)][["study_id", "trial_id", "started_at", "state"]]
    seals = seals.sort_values("started_at", ignore_index=True)
    read = trials[(trials.stage == "test") & ~_is_seal(trials) & (trials.state == "complete")]
    broken = seals[["study_id", "started_at", "trial_id"]].rename(columns={"trial_id": "seal"})
    if seals.empty:
        return seals.assign(models=pd.array([], "Int64"))
    read = pd.merge_asof(read.sort_values("started_at"), broken, on="started_at", by="study_id")
    models = read.groupby(["study_id", "seal"]).trial_id.nunique().rename("models")
    found = seals.merge(models, "left", left_on=["study_id", "trial_id"], right_index=True)
    found = found.astype({"models": "Int64"}).fillna({"models": 0})
    return found.sort_values(["study_id", "started_at"], ignore_index=True)


def _is_seal(trials: pd.DataFrame) -> pd.Series:
    return trials.trial_id.str.startswith("seal-") & trials.method.isna()


def best(results: Results) -> pd.DataFrame:
    """The best complete search trial of each method, with its hyperparameters.

    One row per (study, method): study_id, method, trial_id, objective, best_epoch and the columns
    of `HYPERPARAMETERS`; the best method of a study first.
    """
    trials = final_attempts(results.trials)
    found = trials[
        (trials.stage == "search") & (trials.state == "complete") & trials.objective.notna()
    ]
    columns = ["study_id", "method", "trial_id", "objective", "best_epoch", *HYPERPARAMETERS]
    rows = [
        group.sort_values(
            "objective", ascending=objective(results, str(study)) in LOWER_IS_BETTER, kind="stable"
        ).drop_duplicates("method")
        for study, group in found.groupby("study_id")
    ]
    return pd.concat([found.iloc[:0], *rows], ignore_index=True)[columns]


def confirmed(results: Results, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """The confirmation runs: one row per (study, method, seed).

    Columns study_id, method, seed, trial_id, and `validation_<measure>` (at the best epoch) and
    `test_<measure>` for each measure. A test split that was read more than once counts with its
    first reading.
    """
    key = ["study_id", "trial_id"]
    trials = final_attempts(results.trials)
    runs = trials[trials.stage.isin(CONFIRMATION) & (trials.state == "complete")]
    measured = results.metrics.sort_values(["attempt", "epoch", "step"], kind="stable")
    at_best = runs[[*key, "best_epoch"]].dropna().rename(columns={"best_epoch": "epoch"})
    # A resumed trial may have had its best epoch in an earlier attempt.
    validation = measured[measured.split == "validation"].merge(at_best, on=[*key, "epoch"])
    test = measured[measured.split == "test"]
    test = test.assign(trial_id=test.trial_id.str.replace("^test-", "confirm-", regex=True))
    for split, rows in (
        ("validation", validation.drop_duplicates(key, keep="last")),
        ("test", test.drop_duplicates(key, keep="first")),
    ):
        named = {measure: f"{split}_{measure}" for measure in measures}
        runs = runs.merge(rows[[*key, *measures]].rename(columns=named), on=key, how="left")

    chosen = [
        _chosen_configuration(group, objective(results, str(study)) in LOWER_IS_BETTER)
        for (study, _), group in runs.groupby(["study_id", "method"])
    ]
    values = [f"{split}_{measure}" for split in ("validation", "test") for measure in measures]
    columns = ["study_id", "method", "seed", "trial_id", *values]
    found = pd.concat([runs.iloc[:0], *chosen])[columns]
    return found.sort_values(["study_id", "method", "seed"], ignore_index=True)


def _chosen_configuration(runs: pd.DataFrame, smaller_is_better: bool) -> pd.DataFrame:
    """Of one method's runs, those of the configuration with the best mean objective."""
    configuration = runs.trial_id.str.rsplit("-", n=1).str[0]  # without the seed's number
    means = runs.objective.groupby(configuration).mean().dropna()
    if configuration.nunique() == 1 or means.empty:
        return runs
    return runs[configuration == (means.idxmin() if smaller_is_better else means.idxmax())]


def compare(results: Results, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """The methods side by side over their confirmation runs.

    One row per (study, method), the baseline first and controls last: study_id, method, seeds,
    and `<split>_<measure>_mean` and `_sd` (over seeds; missing for a single seed).
    """
    runs = confirmed(results, measures)
    rows = []
    for (study, method), group in runs.groupby(["study_id", "method"]):
        row: dict[str, object] = {
            "study_id": study,
            "method": method,
            "seeds": group.seed.nunique(),
        }
        for column in group.columns[4:]:
            row |= {f"{column}_mean": group[column].mean(), f"{column}_sd": group[column].std()}
        rows.append(row)
    columns = [f"{column}_{part}" for column in runs.columns[4:] for part in ("mean", "sd")]
    frame = pd.DataFrame(rows, columns=["study_id", "method", "seeds", *columns])
    last = controls(results)
    frame = frame.assign(role=[_role(method, last) for method in frame.method])
    frame = frame.sort_values(["study_id", "role", "method"], ignore_index=True)
    return frame.drop(columns="role")


def differences(
    results: Results, measure: str = "auroc", split: str = "test", baseline: str = BASELINE
) -> pd.DataFrame:
    """Differences between methods, paired by seed: what distillation, and what its teacher, adds.

    One row per study and pair: every method minus the baseline, then every distillation minus each
    control. Columns study_id, method, against, measure, split, pairs, mean, sd, and the 95 %
    interval of Student's t, low to high (missing for fewer than two pairs). The interval covers
    the spread over seeds, not the sampling of the test set.
    """
    runs = confirmed(results, (measure,)).rename(columns={f"{split}_{measure}": "value"})
    against_all = controls(results)
    rows = []
    for study, group in runs.groupby("study_id"):
        table = group.pivot_table("value", "seed", "method", aggfunc="mean")
        methods = sorted(table.columns, key=lambda name: (_role(name, against_all), name))
        pairs = [(method, baseline) for method in methods if method != baseline]
        pairs += [
            (method, control)
            for control in against_all
            for method in methods
            if method not in (baseline, *against_all)
        ]
        for method, against in dict.fromkeys(pairs):
            if against not in table:
                continue
            values = (table[method] - table[against]).dropna()
            low, high = interval(values)
            rows.append(
                {
                    "study_id": study,
                    "method": method,
                    "against": against,
                    "measure": measure,
                    "split": split,
                    "pairs": len(values),
                    "mean": values.mean(),
                    "sd": values.std(),
                    "low": low,
                    "high": high,
                }
            )
    columns = ["study_id", "method", "against", "measure", "split", "pairs"]
    return pd.DataFrame(rows, columns=[*columns, "mean", "sd", "low", "high"])


def interval(values: pd.Series, level: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of Student's t for the mean; missing for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, (1 + level) / 2) * values.std() / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _role(method: str, controls: Sequence[str]) -> int:
    """Place in a table: the baseline first, controls last."""
    return 0 if method == BASELINE else 2 if method in controls else 1
