"""The report at the end of a study: plain text, at most 100 columns wide."""

import textwrap
from typing import Any

import pandas as pd

from analysis.comparison import differences
from analysis.results import Results, settings
from analysis.summary import (
    CONFIRMATION,
    best,
    compare,
    confirmed,
    final_attempts,
    is_minimised,
)
from analysis.verdicts import number, p_value, verdict

WIDTH = 100
"""Longest line, in characters."""
METHODS = {"OR": "seeds and notes", "t": "seeds alone"}
"""What intervals are over."""


def report(results: Results) -> str:
    """Return the whole result as text; of each study what was found comes first."""
    sections = []
    names = results.studies.drop_duplicates("study_id").set_index("study_id")["name"]
    for study_id, name in names.fillna(names.index.to_series()).items():
        study = str(study_id)
        measure = results.objective(study)
        sections += [*first_screen(results, study, f"Study {name}"), ""]
        sections += _headroom(results, study)
        sections += [*_configurations(results, study, measure), ""]
        sections += [*_other_measures(results, study, measure)]
        sections += [*_test_split(results, study), ""]
        sections += [*_cost(results, study), ""]
    lines = sections or ["The ledger holds no study yet."]
    return "\n".join(line[:WIDTH].rstrip() for line in lines).rstrip() + "\n"


def first_screen(results: Results, study_id: str, title: str) -> list[str]:
    """Return what a study found: the verdict, its arms, and their differences.

    With six arms it fits a terminal of 24 lines.
    """
    measure = results.objective(study_id)
    split = "test"
    frame = differences(results, measure, split)
    if not frame[frame.study_id == study_id].pairs.any():
        split = "validation"
        frame = differences(results, measure, split)
    frame = frame[frame.study_id == study_id]
    lines = [title, "=" * len(title)]
    for sentence in _verdicts(results, study_id, frame):
        lines += textwrap.wrap(sentence, WIDTH)
    lines += ["", *_arms(results, study_id, measure, split)]
    return [*lines, "", *_differences(frame)] if len(frame) else lines


def _verdicts(results: Results, study_id: str, frame: pd.DataFrame) -> list[str]:
    """Return a sentence for each method, which its teacher stands for if it has always the same."""
    trials = results.trials[results.trials.study_id == study_id]
    trials = trials[(trials.role == "method") & trials.stage.isin(CONFIRMATION)]
    names = {}
    for method, rows in trials.groupby("method"):
        teachers = rows.get("teacher", pd.Series(dtype=object)).dropna().unique()
        if len(teachers) == 1:
            names[str(method)] = f"{method} ({teachers[0]})"
    methods = [
        m for m in frame.method.unique() if m not in set(frame[frame.role == "control"].against)
    ]
    sentences = [verdict(frame[frame.method == method], names).sentence for method in methods]
    return sentences or [verdict(frame).sentence]


def _headroom(results: Results, study_id: str) -> list[str]:
    """Return the sentence that was said before the study, where one was."""
    frame = results.headroom
    if frame.empty:
        return []
    sentences = frame[frame.study_id == study_id].verdict.dropna().unique()
    return (
        [*textwrap.wrap(f"Beforehand: {' '.join(sentences)}", WIDTH), ""] if len(sentences) else []
    )


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


def _arms(results: Results, study_id: str, measure: str, split: str) -> list[str]:
    frame = compare(results, [measure])
    frame = frame[frame.study_id == study_id]
    if frame.empty:
        return ["No method was confirmed on fresh seeds."]
    table = pd.DataFrame({"": frame.method})
    for shown in dict.fromkeys([split, "validation"]):
        column = f"{shown}_{measure}"
        cells = zip(frame[f"{column}_mean"], frame[f"{column}_sd"])
        table[f"{shown} {measure}"] = [_spread(mean, sd) for mean, sd in cells]
    table["seeds"], table["stuck"] = frame.seeds.astype(str), frame.stuck.astype(str)
    head = "Arms on fresh seeds (mean ± standard deviation over seeds; runs that got stuck count)"
    return [head, *_table(table), *_stuck(results, study_id, frame, f"{split}_{measure}")]


def _stuck(results: Results, study_id: str, frame: pd.DataFrame, column: str) -> list[str]:
    """Name the runs that got stuck, and say what the means would be without them."""
    runs = confirmed(results, [column.partition("_")[2]])
    runs = runs[(runs.study_id == study_id) & runs.stuck]
    if runs.empty:
        return []
    calm = compare(results, [column.partition("_")[2]], with_stuck=False)
    calm = calm[calm.study_id == study_id].set_index("method")
    parts = []
    for method in [name for name in frame.method if name in set(runs.method)]:
        seeds = ", ".join(str(seed) for seed in runs[runs.method == method].seed)
        without = "none is left"
        if method in calm.index:
            mean, sd = calm.loc[method, [f"{column}_mean", f"{column}_sd"]]
            without = _spread(mean, sd)
        parts.append(f"{method} (seeds {seeds}; without: {without})")
    return textwrap.wrap(
        f"Stuck: {', '.join(parts)}.", WIDTH, initial_indent="  ", subsequent_indent="  "
    )


def _other_measures(results: Results, study_id: str, measure: str) -> list[str]:
    """Return the arms' other measures on the test split, as many as fit."""
    measures = [name for name in results.measures(study_id) if name not in ("loss", measure)]
    frame = compare(results, measures)
    frame = frame[frame.study_id == study_id]
    table = pd.DataFrame({"": frame.method})
    for name in measures:
        if frame[f"test_{name}_mean"].notna().any():
            cells = zip(frame[f"test_{name}_mean"], frame[f"test_{name}_sd"])
            table[f"test {name}"] = [_spread(mean, sd) for mean, sd in cells]
    if len(table.columns) == 1 or table.empty:
        return []
    return ["Other measures (mean ± standard deviation over seeds)", *_table(table), ""]


def _spread(mean: float, sd: float) -> str:
    if pd.isna(mean):
        return "-"
    return number(mean) if pd.isna(sd) else f"{number(mean)} ± {number(sd)}"


def _table(frame: pd.DataFrame) -> list[str]:
    """Return a text table: the first column to the left, others to the right, as many as fit."""
    lines = [""] * (len(frame) + 1)
    for place, name in enumerate(frame.columns):
        cells = [name, *frame[name]]
        width = max(map(len, cells))
        cells = [cell.rjust(width) if place else cell.ljust(width) for cell in cells]
        if len(lines[0]) + 2 + width > WIDTH:
            break
        lines = [f"{line}  {cell}" for line, cell in zip(lines, cells)]
    return lines


def _differences(frame: pd.DataFrame) -> list[str]:
    """Return the differences of distillation, or, where it was not confirmed, all there are."""
    family = frame[frame.p_holm.notna()]
    shown = family if len(family) else frame
    first = shown.iloc[0]
    kinds = [name for name in METHODS if (shown.interval == name).any()]
    table = pd.DataFrame(
        {
            "": shown.method + " - " + shown.against,
            "difference": [number(value, True) for value in shown["mean"]],
            "95 % interval": [
                f"[{number(low)}, {number(high)}]" if pairs > 1 else "[no interval]"
                for low, high, pairs in zip(shown.low, shown.high, shown.pairs)
            ],
            "p": [p_value(p).removeprefix("p = ").removeprefix("p ") for p in shown.p],
            "Holm": [p_value(p).removeprefix("p = ").removeprefix("p ") for p in shown.p_holm],
            "seeds": shown.pairs.astype(str),
        }
    )
    head = f"Differences paired by seed ({first['split']} {first['measure']}; interval over "
    return [head + "; ".join(METHODS[name] for name in kinds) + ")", *_table(table)]


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
