"""The report at the end of a study: plain text, at most 100 columns wide."""

import textwrap
from typing import Any

import pandas as pd

from analysis.results import Results, settings
from analysis.summary import (
    MINIMUM_PAIRS,
    best,
    compare,
    differences,
    final_attempts,
    is_minimised,
)

WIDTH = 100
"""Longest line, in characters."""


def report(results: Results) -> str:
    """Return the whole result as text: configurations, methods, differences, verdict and cost."""
    sections = []
    names = results.studies.drop_duplicates("study_id").set_index("study_id")["name"]
    for study_id, name in names.fillna(names.index.to_series()).items():
        study, title = str(study_id), f"Study {name}"
        measure = results.objective(study)
        sections += [title, "=" * len(title), ""]
        sections += [*_configurations(results, study, measure), ""]
        sections += [*_methods(results, study, measure), ""]
        sections += [*_differences(results, study, measure), ""]
        sections += [*_test_split(results, study), ""]
        sections += [*_cost(results, study), ""]
    lines = sections or ["The ledger holds no study yet."]
    return "\n".join(line[:WIDTH].rstrip() for line in lines).rstrip() + "\n"


def _configurations(results: Results, study_id: str, measure: str) -> list[str]:
    found = best(results)
    found = found[found.study_id == study_id]
    if found.empty:
        return ["No trial of the search is complete yet."]
    sense = "lower" if is_minimised(results, study_id) else "higher"
    lines = [
        f"Best configuration of each method in the search (validation {measure}, {sense} is better)"
    ]
    width = max(len(method) for method in found.method)
    for row in found.to_dict("records"):
        head = f"  {row['method']:<{width}}  {row['objective']:.3f}  "
        text = ", ".join([f"trial {row['trial_id']}", *_settings(row, settings(results.trials))])
        lines += textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    return lines


def _settings(row: dict[Any, Any], names: list[str]) -> list[str]:
    """Return the settings of a trial as name=value, without the missing ones."""
    return [
        f"{name}={row[name]:.3g}" if isinstance(row[name], float) else f"{name}={row[name]}"
        for name in names
        if not pd.isna(row[name])
    ]


def _methods(results: Results, study_id: str, measure: str) -> list[str]:
    measures = [n for n in results.measures(study_id) if n == measure or n != "loss"]
    frame = compare(results, measures)
    frame = frame[frame.study_id == study_id]
    if frame.empty:
        return ["No method was confirmed on fresh seeds."]
    columns = [("validation", measure), *(("test", name) for name in measures)]
    table = pd.DataFrame({"": frame.method, "seeds": frame.seeds.astype(str)})
    for split, name in columns:
        column = f"{split}_{name}"
        if frame[f"{column}_mean"].notna().any():
            cells = zip(frame[f"{column}_mean"], frame[f"{column}_sd"])
            table[f"{split} {name}"] = [_spread(mean, sd) for mean, sd in cells]
    return ["Methods on fresh seeds (mean ± standard deviation)", *_table(table)]


def _spread(mean: float, sd: float) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.3f}" if pd.isna(sd) else f"{mean:.3f} ± {sd:.3f}"


def _table(frame: pd.DataFrame) -> list[str]:
    """Return a text table: the first column to the left, others to the right, as many as fit."""
    lines = [""] * (len(frame) + 1)
    for number, name in enumerate(frame.columns):
        cells = [name, *frame[name]]
        width = max(map(len, cells))
        cells = [cell.rjust(width) if number else cell.ljust(width) for cell in cells]
        if len(lines[0]) + 2 + width > WIDTH:
            break
        lines = [f"{line}  {cell}" for line, cell in zip(lines, cells)]
    return lines


def _differences(results: Results, study_id: str, measure: str) -> list[str]:
    split = "test"
    frame = differences(results, measure, split)
    if not frame[frame.study_id == study_id].pairs.any():
        split = "validation"
        frame = differences(results, measure, split)
    frame = frame[frame.study_id == study_id]
    if frame.empty:
        return ["No claim can be made: no method was confirmed beside a baseline."]
    lines = [f"Differences paired by seed ({split} {measure}, 95 % interval over seeds)"]
    rows = frame.to_dict("records")
    names = [f"{row['method']} - {row['against']}" for row in rows]
    width = max(map(len, names))
    for name, row in zip(names, rows):
        bounds = f"[{row['low']:+.3f}, {row['high']:+.3f}]" if row["pairs"] > 1 else "[no interval]"
        mean = f"{row['mean']:+.3f}" if row["pairs"] else "-"
        seeds = f"{row['pairs']} seed{'' if row['pairs'] == 1 else 's'}"
        lines.append(f"  {name:<{width}}  {mean}  {bounds}  {seeds}")
    controls = frame[frame.role == "control"].against.unique()
    for method in frame[~frame.method.isin(controls)].method.unique():
        lines += textwrap.wrap(verdict(frame[frame.method == method]), WIDTH)
    return lines


def verdict(rows: pd.DataFrame) -> str:
    """Return what may be said about one method, given its rows of `differences`.

    "Better" needs an interval that excludes zero; domain knowledge is credited only where the
    teacher also beats every control that was run.
    """
    found = rows.to_dict("records")
    method, where = found[0]["method"], f"{found[0]['split']} {found[0]['measure']}"
    pairs = min(row["pairs"] for row in found)
    if pairs < MINIMUM_PAIRS:
        seeds = f"{pairs} paired seed{'' if pairs == 1 else 's'}"
        return f"No claim can be made about {method}: {seeds}, at least {MINIMUM_PAIRS} are needed."
    said = {
        1: "{0} is better than {1} on {2}: the interval excludes zero.",
        0: "{0} and {1} cannot be told apart on {2}: the interval includes zero.",
        -1: "{0} is worse than {1} on {2}: the interval excludes zero.",
    }
    sentences = [
        said[_effect(row)].format(method, row["against"], where)
        for row in found
        if row["role"] == "baseline"
    ]
    sentences = sentences or [f"{method} was not compared with a baseline."]
    effects = {row["against"]: _effect(row) for row in found if row["role"] == "control"}
    return " ".join([*sentences, _credit(effects)])


def _credit(effects: dict[str, int]) -> str:
    """Say whether a gain may be credited to what the teacher knows, given the effect by control."""
    if not effects:
        return "Without a control no gain can be credited to the teacher."
    by_effect = {
        effect: " and ".join(name for name, found in effects.items() if found == effect)
        for effect in (1, 0, -1)
    }
    if by_effect[1] and not (by_effect[0] or by_effect[-1]):
        return f"It beats {by_effect[1]}: what the teacher knows made a difference."
    parts = [
        f"{words} {by_effect[effect]}"
        for effect, words in (
            (0, "cannot be told apart from"),
            (-1, "does worse than"),
            (1, "beats"),
        )
        if by_effect[effect]
    ]
    return f"It {', '.join(parts)}: no credit to the teacher's knowledge."


def _effect(row: dict[Any, Any]) -> int:
    """Return 1 for better, -1 for worse, 0 where the interval includes zero."""
    sign = int(row["low"] > 0) - int(row["high"] < 0)
    return -sign if row["direction"] == "minimise" else sign


def _test_split(results: Results, study_id: str) -> list[str]:
    """Say how often the test split was read: whoever reads the figures has to know."""
    found = results.test_reads[results.test_reads.study_id == study_id]
    dates = [f"{moment:%Y-%m-%d}" for moment in found.opened_at]
    if found.empty:
        read = results.metrics[results.metrics.study_id == study_id].split == "test"
        text = "read, but nothing says when" if read.any() else "sealed: not read yet"
    elif len(found) == 1:
        models = found.models.iloc[0]
        text = f"read once, on {dates[0]}, by {models} model{'' if models == 1 else 's'}"
    else:
        text = (
            f"read {len(found)} times ({', '.join(dates)}): figures are those of the first reading"
            " of each model"
        )
    if found.closed_at.isna().any():
        text += "; the last reading is not finished"
    return textwrap.wrap(f"Test split: {text}.", WIDTH)


def _cost(results: Results, study_id: str) -> list[str]:
    attempts = results.trials[results.trials.study_id == study_id]
    states = final_attempts(attempts).state.value_counts()
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
    text = f"Trials: {states.sum()} ({counts})"
    if len(attempts) > states.sum():
        text += f" in {len(attempts)} attempts"
    text += f"; worker time {_duration(attempts.worker_seconds.sum())}"
    if gpu := attempts.gpu_seconds.sum():
        text += f", GPU time {_duration(gpu)}"
    lines = textwrap.wrap(f"{text}.", WIDTH)
    for name, column in (("Worker", "worker_seconds"), ("GPU", "gpu_seconds")):
        spent = attempts.groupby("state")[column].sum().sort_values(ascending=False)
        if total := spent.sum():
            parts = [
                f"{state} {_duration(seconds)} ({seconds / total:.0%})"
                for state, seconds in spent.items()
                if seconds
            ]
            text = f"{name} time by how attempts ended: {', '.join(parts)}."
            lines += textwrap.wrap(text, WIDTH)
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
