"""Figures: functions from data frames to matplotlib figures.

    figure = plots.learning_curves(results.metrics, results.trials, "auroc")
    figure.savefig("curves.png", dpi=150)

Colours are those of Okabe and Ito, told apart with any colour vision; methods differ in their
markers too. Figures belong to the caller: nothing is registered with pyplot.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.summary import ROLES, final_attempts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = {
    "baseline": (("#404040", "s"), ("#808080", "s")),
    "method": (
        ("#0072B2", "o"),
        ("#009E73", "^"),
        ("#CC79A7", "v"),
        ("#56B4E9", "P"),
        ("#F0E442", "X"),
    ),
    "control": (("#D55E00", "D"), ("#E69F00", "d"), ("#8C3F00", "p")),
}
_UPPER = frozenset({"auroc", "auprc", "ece", "f1"})


def learning_curves(metrics: pd.DataFrame, trials: pd.DataFrame, measure: str) -> "Figure":
    """Draw training loss and a validation measure by epoch: one line per trial, coloured by method.

    Trials that were pruned, failed or pre-empted are drawn thin and end with a cross.
    """
    figure, axes = _figure(2)
    last = metrics.sort_values("attempt").drop_duplicates(
        ["study_id", "trial_id", "epoch", "split"], keep="last"
    )
    chosen = final_attempts(trials)
    style = _styles(chosen)
    for panel, split, column in ((axes[0], "train", "loss"), (axes[1], "validation", measure)):
        rows = last[(last.split == split) & last[column].notna()].sort_values("epoch")
        for key, line in rows.groupby(["study_id", "trial_id"]):
            trial = chosen[(chosen.study_id == key[0]) & (chosen.trial_id == key[1])]
            if trial.empty:
                continue
            method, state = trial.method.iloc[0], trial.state.iloc[0]
            x, y = line.epoch.astype(float), line[column]
            finished = state in ("complete", "running")
            colour = style[method][0]
            panel.plot(
                x, y, color=colour, alpha=0.8 if finished else 0.4, lw=1.5 if finished else 1
            )
            panel.plot(x.iloc[-1:], y.iloc[-1:], "." if finished else "x", color=colour, ms=5)
        panel.set_xlabel("epoch")
        panel.set_ylabel("training loss" if split == "train" else f"validation {_name(column)}")
        _whole_numbers(panel)
    _legend(figure, style, lines=True)
    return figure


def methods(runs: pd.DataFrame, measure: str, split: str = "test") -> "Figure":
    """Draw one point per seed and the mean of each method; grey lines join the runs of one seed.

    `runs` is the frame of `analysis.confirmed`.
    """
    figure, (panel,) = _figure(1)
    column = f"{split}_{measure}"
    style = _styles(runs)
    place = {method: number for number, method in enumerate(style)}
    for _, pair in runs.groupby("seed"):
        pair = pair.assign(place=pair.method.map(place)).sort_values("place")
        panel.plot(pair.place, pair[column], color="#BBBBBB", lw=1, zorder=1)
    for method, (colour, marker) in style.items():
        values = runs.loc[runs.method == method, column].dropna()
        panel.scatter([place[method]] * len(values), values, color=colour, marker=marker, zorder=2)
        panel.hlines(
            values.mean(), place[method] - 0.25, place[method] + 0.25, color=colour, lw=2.5
        )
    panel.set_xticks(list(place.values()), list(place))
    panel.set_xlim(-0.5, max(len(place), 1) - 0.5)
    panel.set_ylabel(f"{split} {_name(measure)}")
    panel.set_title("one point per seed, bar: mean", fontsize="medium", loc="left")
    return figure


def arms_and_differences(
    runs: pd.DataFrame, differences: pd.DataFrame, measure: str, split: str = "test"
) -> "Figure":
    """Draw each arm's runs and mean, and beside them what distillation adds, with its intervals.

    Runs that got stuck are hollow. Differences are those of the arms with the role `method`; the
    zero line is no difference.

    Args:
        runs: of one study, as from `analysis.confirmed`.
        differences: of the same study, as from `analysis.differences`.
        measure: the runs' and the differences'.
        split: theirs.
    """
    figure, (left, right) = _figure(2)
    figure.set_size_inches(9.6, 0.42 * max(runs.method.nunique(), 3) + 1.3)
    style = _styles(runs)
    shown = differences[differences.method.map(_roles(runs)) == "method"]
    for panel in (left, right):
        panel.grid(axis="y", visible=False)
        panel.grid(axis="x", color="#E6E6E6", lw=0.8)
    for place, (method, (colour, marker)) in enumerate(style.items()):
        own = runs[runs.method == method]
        values, stuck = own[f"{split}_{measure}"], own.stuck
        heights = place + _spread_out(len(own))
        for chosen, fill in ((~stuck, colour), (stuck, "none")):
            x, y = values[chosen], heights[chosen]
            left.scatter(x, y, 18, marker=marker, facecolor=fill, edgecolor=colour, linewidth=0.8)
        left.vlines(values.mean(), place - 0.32, place + 0.32, color=colour, lw=2.5)
    left.set_yticks(range(len(style)), list(style))
    left.set_xlabel(f"{split} {_name(measure)}")
    hollow = " (hollow: it got stuck)" if runs.stuck.any() else ""
    left.set_title(f"a point per seed{hollow}, bar: mean", fontsize="medium", loc="left")
    for place, row in enumerate(shown.to_dict("records")):
        colour, marker = style[row["against"]]
        right.hlines(place, row["low"], row["high"], color=colour, lw=2)
        right.plot([row["mean"]], [place], marker, color=colour, ms=6)
    right.axvline(0, color="#404040", lw=1)
    names = [f"{method} \N{MINUS SIGN} {x}" for method, x in zip(shown.method, shown.against)]
    right.set_yticks(range(len(shown)), names)
    right.set_xlabel(f"difference in {split} {_name(measure)}")
    kinds = "seeds and notes" if (shown.interval == "OR").all() else "seeds"
    right.set_title(f"95 % interval over {kinds}", fontsize="medium", loc="left")
    for panel, count in ((left, len(style)), (right, len(shown))):
        panel.set_ylim(max(count, 1) - 0.5, -0.5)
    return figure


def _roles(runs: pd.DataFrame) -> dict[str, str]:
    return dict(zip(runs.method, runs.role))


def _spread_out(count: int) -> np.ndarray:
    """Return heights of points about a line, so that equal values can be told apart."""
    return np.linspace(-0.2, 0.2, count) if count > 1 else np.zeros(count)


def search_history(
    trials: pd.DataFrame, measure: str = "objective", smaller_is_better: bool = False
) -> "Figure":
    """Draw the objective of each search trial in the order they started, and the best so far."""
    figure, (panel,) = _figure(1)
    search = final_attempts(trials)
    search = search[search.stage == "search"].sort_values("started_at").reset_index(drop=True)
    style = _styles(search)
    for method, (colour, marker) in style.items():
        own = search[(search.method == method) & search.objective.notna()]
        done = own[own.state == "complete"]
        other = own[own.state != "complete"]
        panel.scatter(done.index + 1, done.objective, color=colour, marker=marker)
        panel.scatter(
            other.index + 1, other.objective, edgecolor=colour, facecolor="none", marker=marker
        )
        best = done.objective.cummin() if smaller_is_better else done.objective.cummax()
        panel.step(done.index + 1, best, where="post", color=colour, lw=1.5)
    panel.set_xlabel("trial of the search, by start")
    panel.set_ylabel(f"validation {_name(measure)}")
    panel.set_title("line: best so far; hollow: stopped early", fontsize="medium", loc="left")
    _whole_numbers(panel)
    _legend(figure, style)
    return figure


def parameter(trials: pd.DataFrame, name: str, measure: str = "objective") -> "Figure":
    """Draw the objective against one setting over the complete search trials.

    Positive numbers that crowd
    at the small end (median below a quarter of the largest) get a logarithmic axis; texts become
    categories.
    """
    figure, (panel,) = _figure(1)
    done = final_attempts(trials)
    done = done[(done.stage == "search") & (done.state == "complete")]
    done = done.assign(value=done.get(name)).dropna(subset=["value", "objective"])
    done = done.sort_values("value")
    style = _styles(done)
    numeric = pd.to_numeric(done.value, errors="coerce")
    if numeric.notna().all():
        done = done.assign(value=numeric.astype(float))
        if done.value.min() > 0 and done.value.median() < done.value.max() / 4:
            panel.set_xscale("log")
    else:
        panel.margins(x=0.2)
    for method, (colour, marker) in style.items():
        own = done[done.method == method]
        panel.scatter(own.value, own.objective, color=colour, marker=marker)
    panel.set_xlabel(name.replace("_", " "))
    panel.set_ylabel(f"validation {_name(measure)}")
    _legend(figure, style)
    return figure


def _figure(panels: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * panels + 0.4, 3.6), layout="constrained")
    axes = [figure.add_subplot(1, panels, number + 1) for number in range(panels)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#E6E6E6", lw=0.8)
        panel.set_axisbelow(True)
    return figure, axes


def _whole_numbers(panel: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _styles(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each method: the baseline first, controls last."""
    found = rows.dropna(subset="method").drop_duplicates("method").sort_values("method")
    return {
        name: _STYLES[role][number % len(_STYLES[role])]
        for role in ROLES
        for number, name in enumerate(found[found.role == role].method)
    }


def _legend(figure: "Figure", style: dict[str, tuple[str, str]], lines: bool = False) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker="" if lines else marker,
            ls="-" if lines else "",
            label=name,
        )
        for name, (colour, marker) in style.items()
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)


def _name(measure: str) -> str:
    return measure.upper() if measure in _UPPER else measure.replace("_", " ")
