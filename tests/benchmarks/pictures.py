"""Pictures of the benchmarks, drawn from `benchmarks.json` alone.

A column is drawn by its name: `stored ms` is the line "stored" in the panel of milliseconds.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

Row = dict[str, Any]

UNITS = {
    "ms": "time of a step (ms)",
    "s": "time (s)",
    "min": "time (min)",
    "MB": "peak memory (MB)",
    "GB": "peak memory (GB)",
    "/s": "per second",
    "/min": "per minute",
    "/h": "per hour",
}
AXES = {
    "words a text": "words transferred of a text",
    "length": "longest text of a batch (tokens)",
    "batch": "texts in a batch",
    "layers mapped": "layers mapped",
    "trials": "trials of the study",
    "workers": "workers",
}
COLOURS = {"plain": "#555555", "hidden only stored": "#2a9d8f", "stored": "#1f5fa8"}
COLOURS |= {"live": "#d1703c"}
SEARCHERS = {"bridge": "#1f5fa8", "stock": "#d1703c", "random": "#555555"}
"""Searcher -> its colour; the others of the table are left out of the picture."""
SPARE = ("#7b4fa3", "#a8871f", "#b03a5b")
INK = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
DPI = 150


def draw(found: dict[str, Any], out: Path) -> None:
    """Draw what there is; sections that were not run are skipped."""
    with plt.rc_context(INK):
        for section in ("growth", "study", "train"):
            rows = found.get(section, {}).get("rows", [])
            for axis in dict.fromkeys(row["axis"] for row in rows if "axis" in row):
                along = [row for row in rows if row.get("axis") == axis]
                _save(_growth(axis, along), out / f"growth-{axis.replace(' ', '-')}.png")
        if rows := found.get("step", {}).get("rows"):
            _save(_step(rows), out / "step.png")
        if rows := found.get("search", {}).get("rows"):
            _save(_search(rows), out / "search.png")


def _save(figure: Any, path: Path) -> None:
    if figure is not None:
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def _growth(axis: str, rows: list[Row]) -> Any:
    """Draw one panel for each unit, side by side."""
    rows = sorted(rows, key=lambda row: row["value"])
    panels: dict[str, list[str]] = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        if (unit := _unit(column)) and any(_middle(row.get(column)) is not None for row in rows):
            panels.setdefault(unit, []).append(column)
    if not panels:
        return None
    figure, drawn = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.4), layout="constrained", squeeze=False
    )
    for panel, (unit, columns) in zip(drawn[0], panels.items()):
        _lines(panel, rows, columns, unit)
        panel.set(xlabel=AXES.get(axis, axis), ylabel=UNITS[unit])
    if held := next((row["held"] for row in rows if row.get("held")), ""):
        precision = rows[0].get("precision")
        figure.suptitle(f"{held}{f', {precision}' if precision else ''}", fontsize=9, color="#555")
    return figure


def _lines(panel: Axes, rows: list[Row], columns: list[str], unit: str) -> None:
    """Draw some columns of one unit, with quartiles where there are any."""
    spare = iter(SPARE * len(columns))
    for column in columns:
        points = [(row["value"], row[column]) for row in rows if _middle(row.get(column))]
        x = [value for value, _ in points]
        y = [_middle(cell) for _, cell in points]
        name = column.removesuffix(unit).strip() or UNITS[unit]
        colour = COLOURS.get(name) or next(spare)
        panel.plot(x, y, "o-", color=colour, label=name, markersize=4)
        if all(isinstance(cell, dict) for _, cell in points):
            low = [cell["low"] for _, cell in points]
            panel.fill_between(
                x, low, [cell["high"] for _, cell in points], color=colour, alpha=0.2
            )
    panel.set_ylim(0, 1.05 * panel.get_ylim()[1])
    panel.set_xlim(0, 1.05 * panel.get_xlim()[1])
    panel.set_xticks([row["value"] for row in rows])
    panel.legend(frameon=False, loc="lower right")


def _step(rows: list[Row]) -> Any:
    """Draw the ratios of every setting with their quartiles, and the aims as short marks."""
    suffix = " / plain"
    arms = [name.removesuffix(suffix) for name in rows[0] if name.endswith(suffix)]
    figure, panel = plt.subplots(figsize=(7.2, 1.2 + 0.62 * len(rows)), layout="constrained")
    gap = 0.8 / len(arms)
    most = 1.0
    for number, row in enumerate(rows):
        for place, arm in enumerate(arms):
            cell, y = row[arm + suffix], number + (place - (len(arms) - 1) / 2) * gap
            reach = [[cell["median"] - cell["low"]], [cell["high"] - cell["median"]]]
            panel.errorbar(
                cell["median"],
                y,
                xerr=reach,
                fmt="o",
                color=COLOURS[arm],
                capsize=2,
                markersize=4.5,
            )
            aim = row.get(f"aim {arm}")
            if aim is not None:
                panel.plot([aim, aim], [y - gap * 0.45, y + gap * 0.45], color="black", lw=1.8)
            most = max(most, cell["high"], aim or 0)
    panel.axvline(1, color="#999", lw=1, zorder=0)
    panel.set_yticks(
        range(len(rows)),
        [f"{row['model']}, batch {row['batch']}, {row['precision']}" for row in rows],
    )
    panel.invert_yaxis()
    panel.set_xlim(min(0.95, *(row[a + suffix]["low"] for row in rows for a in arms)), most + 0.03)
    panel.set_xlabel("step over step of plain fine-tuning (median, quartiles)")
    marks = [
        Line2D([], [], color=COLOURS[arm], marker="o", markersize=4.5, lw=1, label=arm)
        for arm in arms
    ]
    marks.append(
        Line2D([], [], color="black", marker="|", markersize=9, mew=1.8, lw=0, label="aim: at most")
    )
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
    return figure


def _search(rows: list[Row]) -> Any:
    """Draw the regret of each searcher over its cost, and how far the bridge is ahead of stock."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.6), layout="constrained")
    cost = [row["epochs"] for row in rows]
    for name, colour in SEARCHERS.items():
        cells = [row[name] for row in rows]
        left.plot(cost, [cell["median"] for cell in cells], "o-", color=colour, ms=4, label=name)
        low, high = ([cell[end] for cell in cells] for end in ("low", "high"))
        left.fill_between(cost, low, high, color=colour, alpha=0.15, lw=0)
    left.set_yscale("log")
    for axis in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        axis(ScalarFormatter())
    left.set_ylabel("regret (thousandths; median, quartiles)")
    left.legend(frameon=False)
    for place, other in enumerate(("stock", "random")):
        cells = [row[f"bridge - {other}"] for row in rows]
        middle = [cell["median"] for cell in cells]
        reach = [[m - cell["low"] for m, cell in zip(middle, cells)]]
        reach += [[cell["high"] - m for m, cell in zip(middle, cells)]]
        along = [value + (place - 0.5) * 8 for value in cost]
        colour = SEARCHERS[other]
        right.errorbar(
            along, middle, reach, fmt="o", color=colour, ms=4, capsize=2, label=f"bridge - {other}"
        )
    right.axhline(0, color="#999", lw=1, zorder=0)
    right.set_ylabel("difference of regrets (mean, 95 %)")
    right.legend(frameon=False, loc="lower right")
    for panel in (left, right):
        panel.set_xlabel("epochs trained in all")
        panel.set_xticks(cost)
    return figure


def _unit(column: str) -> str | None:
    """Return the unit that a column's name ends with."""
    return next((u for u in sorted(UNITS, key=len, reverse=True) if _ends(column, u)), None)


def _ends(column: str, unit: str) -> bool:
    return column.endswith(unit) if unit.startswith("/") else column.split(" ")[-1] == unit


def _middle(cell: Any) -> float | None:
    """Return the number in a cell, the median of a spread."""
    number = cell.get("median") if isinstance(cell, dict) else cell
    return number if isinstance(number, int | float) else None
