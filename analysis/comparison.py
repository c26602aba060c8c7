"""Differences between methods, with intervals that hold for other seeds and for other notes."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.obuchowski_rockette import Array, compare_arms
from analysis.predicted import Estimates, estimates, of_runs
from analysis.results import Results
from analysis.summary import ROLES, confirmed

RAREST_WORD = "rarest_word"
"""The subgroup that says how often training saw the rarest foreign word of a note."""

_COLUMNS = ["study_id", "method", "against", "role", "measure", "direction", "split", "pairs"]
_COLUMNS += ["mean_method", "mean_against", "mean", "sd"]
_COLUMNS += ["error", "df", "low", "high", "p", "interval", "p_holm", "notes", "patients"]


class Uncertainty(NamedTuple):
    """The standard error of a difference, and what follows from it at level .95."""

    error: float
    df: float
    low: float
    high: float
    p: float
    """Two-sided."""
    interval: str
    """`OR`: Obuchowski-Rockette; `t`: Student's t over seeds."""


def differences(
    results: Results,
    measure: str | None = None,
    split: str = "test",
    baseline: str | None = None,
    subgroup: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Return differences between methods, paired by seed: what distillation, and a teacher, adds.

    One row per study and pair: every method minus each baseline, then every distillation minus
    each control. Columns study_id, method, against, role (of `against`), measure, direction, split,
    pairs, the means of both, mean and sd of the difference over seeds, its standard error, degrees
    of freedom, 95 % interval, low to high, and two-sided p; these are missing for fewer than two
    pairs. `interval` says how they came about: `OR` (`analysis.obuchowski_rockette`) where all
    these runs have predictions from which the measure can be computed, and else `t`, Student's t
    over seeds, which leaves the sampling of the notes out and is too narrow. `p_holm` is p
    adjusted for the family of the study's comparisons of distillation (the role `method`), with
    baselines and controls; controls minus baselines are not of the family. `notes` and `patients`
    are those that an interval by `OR` is from.

    Args:
        results: of one or several studies.
        measure: its name; None: each study's objective.
        split: `test` or `validation`.
        baseline: a method that is treated as the only baseline.
        subgroup: only the notes of this category, (column, category); needs predictions.
    """
    rows: list[dict[str, Any]] = []
    studies = results.studies.study_id.unique()
    names = {str(study): measure or results.objective(study) for study in studies}
    fitted = ["threshold"] if "threshold" in results.metrics else []
    runs = confirmed(results, [*dict.fromkeys(names.values()), *fitted])
    for study, group in runs.groupby("study_id"):
        name = names[str(study)]
        column = f"{split}_{name}"
        predicted = of_runs(results, str(study), split)
        if subgroup is not None:
            cells = predicted.get(f"subgroup_{subgroup[0]}", pd.Series(None, predicted.index))
            predicted, group = predicted[cells == subgroup[1]], group.drop(columns=column)
        found = estimates(predicted, group, name, split)
        if subgroup is not None:
            values = {run: found.values[at] for run, at in found.place.items()}
            group = group.assign(**{column: group.trial_id.map(values).astype(float)})
        roles = dict(zip(group.method, group.role))
        if baseline is not None:
            roles |= {m: "method" for m, role in roles.items() if role == "baseline"}
            roles[baseline] = "baseline"
        direction = results.measures(str(study)).get(name, "maximise")
        key = {"study_id": study, "measure": name, "direction": direction, "split": split}
        compared = _compared(group, column, roles, found)
        rows += [key | row for row in compared]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _compared(
    runs: pd.DataFrame, column: str, roles: dict[str, str], found: Estimates
) -> list[dict[str, Any]]:
    """Return the differences of one study's methods."""
    table = runs.pivot_table(column, "seed", "method", aggfunc="mean", dropna=False)
    trial = runs.pivot_table("trial_id", "seed", "method", aggfunc="first", dropna=False)
    rows = []
    for method, against in _pairs(sorted(runs.method.unique()), roles):
        both = table[[method, against]].dropna()
        values = both[method] - both[against]
        used = [trial.loc[both.index, arm].tolist() for arm in (method, against)]
        row = {"method": method, "against": against, "role": roles[against], "pairs": len(values)}
        row |= {"mean_method": both[method].mean(), "mean_against": both[against].mean()}
        row |= {"mean": values.mean(), "sd": values.std()}
        uncertainty = _uncertainty(values, used, found)
        row |= uncertainty._asdict()
        if uncertainty.interval == "OR":
            row |= {"notes": found.notes, "patients": found.patients}
        rows.append(row)
    family = [row for row in rows if roles[str(row["method"])] == "method"]
    adjusted = holm(np.array([row["p"] for row in family], float))
    for row, p in zip(family, adjusted):
        row["p_holm"] = p
    return rows


def _uncertainty(values: pd.Series, used: list[list[str]], found: Estimates) -> Uncertainty:
    if len(values) > 1 and found.covers(*used[0], *used[1]):
        with_cases = compare_arms(*found.of(used))
        error, df, low, high, p = (float(part[0, 1]) for part in with_cases[1:])
        return Uncertainty(error, df, low, high, p, "OR")
    return over_seeds(values)


def over_seeds(values: pd.Series, level: float = 0.95) -> Uncertainty:
    """Return Student's t for the mean of paired differences; missing for fewer than two."""
    df = len(values) - 1
    if df < 1:
        return Uncertainty(math.nan, math.nan, math.nan, math.nan, math.nan, "t")
    from scipy.special import stdtr, stdtrit

    mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    half = float(stdtrit(df, (1 + level) / 2)) * error
    p = 2 * float(stdtr(df, -abs(mean) / error)) if error else math.nan
    return Uncertainty(error, df, mean - half, mean + half, p, "t")


def holm(p: Array) -> Array:
    """Return p values adjusted for their number; missing ones stay missing and do not count.

    The k-th smallest of m is multiplied by m - k + 1, none is smaller than one before it
    (Holm, Scandinavian Journal of Statistics 1979).
    """
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted


def _pairs(methods: list[str], roles: dict[str, str]) -> list[tuple[str, str]]:
    of = {role: [name for name in methods if roles[name] == role] for role in ROLES}
    against = [(m, b) for b in of["baseline"] for m in (*of["method"], *of["control"])]
    return against + [(m, c) for c in of["control"] for m in of["method"]]


def by_subgroup(
    results: Results, column: str, measure: str | None = None, split: str = "test"
) -> pd.DataFrame:
    """Return `differences` within each category of a subgroup, from the runs' predictions.

    The columns of `differences`, after the category; `mean_method` and `mean_against` are the
    measure within it. There are no pairs where the measure is undefined (notes of one class).

    Args:
        results: of one or several studies.
        column: of `--subgroup`, or `rarest_word`.
        measure: one that predictions are enough for; None: each study's objective.
        split: `test` or `validation`.
    """
    cells = results.predictions.get(f"subgroup_{column}", pd.Series(dtype=object))
    parts = [
        differences(results, measure, split, subgroup=(column, category)).assign(category=category)
        for category in sorted(cells.dropna().unique())
    ]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    return found.reindex(columns=["category", *_COLUMNS])


def by_frequency(results: Results, measure: str | None = None, split: str = "test") -> pd.DataFrame:
    """Return `by_subgroup` of how often the training notes have a note's rarest foreign word.

    The categories are `never`, `1-2` and `3+`, and `none` for notes without such a word. Knowledge
    of words can only come from a teacher where training never saw them.
    """
    return by_subgroup(results, RAREST_WORD, measure, split)
