"""The status of a stage as a table for a terminal of any width, or plain lines for a file."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from dsgkd.study.status.status import StageStatus, TrialLine

WIDTH = 100
"""Columns of plain text."""

_COLOURS = {
    "running": "cyan",
    "complete": "green",
    "pruned": "yellow",
    "failed": "red",
    "preempted": "magenta",
}
_PARAMETERS = 14
"""Width that parameters are worth their column."""
_GAP = 2
"""Spaces between columns."""


def duration(seconds: float | None) -> str:
    """Return a time in words of a few characters: `26 s`, `12 min`, `3.5 h`, `4.2 d`."""
    if seconds is None:
        return "-"
    for unit, length, digits in (("s", 1, 0), ("min", 60, 0), ("h", 3600, 1), ("d", 86400, 1)):
        most = {"s": 99.5, "min": 99.5 * 60, "h": 48 * 3600}.get(unit, float("inf"))
        if seconds < most:
            return f"{seconds / length:.{digits}f} {unit}"
    return "-"


def heading(status: StageStatus) -> list[str]:
    """Return what stands above the table: where the study is, what is best, what was spent."""
    of = f" of {status.total}" if status.total is not None else ""
    where = f"{status.study}: {status.stage}, {status.done}{of} trials done"
    if status.running:
        where += f", {len(status.running)} running"
        if status.left is not None and status.left > 0:
            where += f", about {duration(status.left)} left"
    elif status.total is not None and status.done < status.total:
        where += ", nothing running"
        why = [line.reason for line in status.latest if line.state == "preempted" and line.reason]
        where += f": {why[-1]}" if why else ""
    best = ", ".join(f"{method} {value:.3f}" for method, value in status.best.items())
    spent = f"spent: {hours(status.worker_seconds)} worker hours"
    if status.gpu_seconds:
        spent += f", {hours(status.gpu_seconds)} GPU-hours"
    if status.gpu_seconds and status.price_per_gpu_hour:
        spent += f", {status.price:,.2f} at {status.price_per_gpu_hour:g} a GPU-hour"
    if status.stage == "test":  # nothing is chosen there
        return [where, spent]
    return [where, f"best {status.measure} so far: {best or 'none yet'}", spent]


def hours(seconds: float) -> str:
    """Return a time in hours, without the unit."""
    return "<0.01" if 0 < seconds < 36 else f"{seconds / 3600:.2f}"


def table(status: StageStatus, rows: int | None = None) -> "StatusTable":
    """Return what rich draws: the heading, and as many trials as fit the terminal (or `rows`)."""
    return StatusTable(status, rows)


def plain(status: StageStatus, rows: int | None = 20) -> str:
    """Return the same as text without colours, at most `WIDTH` columns wide.

    Args:
        status: what to draw.
        rows: trials at most; None: all.
    """
    paper = io.StringIO()
    console = Console(file=paper, width=WIDTH, color_system=None, legacy_windows=False)
    console.print(table(status, len(status.rows) if rows is None else rows))
    return "\n".join(line.rstrip() for line in paper.getvalue().splitlines()) + "\n"


@dataclass(frozen=True)
class StatusTable:
    """A stage's status as a renderable, fitted to the terminal when it is drawn."""

    status: StageStatus
    rows: int | None = None
    """Trials at most; None: as many as fit."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        width = max(options.max_width, 1)
        above: list[Text] = []
        for line in heading(self.status):
            above += Text(line).wrap(console, width)
        shown = self.status.rows
        most = self.rows
        if most is None:
            most = max(options.max_height - len(above) - 1, 1)  # the table has a line of names
        cut = len(shown) - most
        if cut > 0:  # a line says what is missing
            most = max(most - 1, 1) if self.rows is None else most
            cut = len(shown) - most
        above[0].stylize("bold")
        yield from above
        if shown:
            yield self._table(shown[:most], width)
        if cut > 0:
            yield Text(f"and {cut} more".ljust(width)[:width], style="dim")

    def _table(self, lines: tuple[TrialLine, ...], width: int) -> Table:
        cells = self._cells(lines)
        natural = {name: max(map(len, (name, *texts))) for name, texts in cells.items()}
        natural["parameters"] = _PARAMETERS
        for name in _dropped(cells):
            if sum(natural[name] + _GAP for name in cells) - _GAP <= width:
                break
            del cells[name]
        if "parameters" in cells:
            taken = sum(natural[name] + _GAP for name in cells if name != "parameters")
            parameters = (self.status.parameters[line.trial_id] for line in lines)
            cells["parameters"] = [fitting(parts, width - taken) for parts in parameters]
        drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        drawn.expand = "parameters" in cells
        for name in cells:
            drawn.add_column(
                name,
                no_wrap=True,
                overflow="crop",
                justify="left" if name in ("trial", "stage", "state", "parameters") else "right",
                ratio=1 if name == "parameters" else None,
                min_width=None if name == "parameters" else min(natural[name], width),
            )
        for line, texts in zip(lines, zip(*cells.values())):
            colours = (_COLOURS.get(line.state, "") if name == "state" else "" for name in cells)
            drawn.add_row(*map(Text, texts, colours))
        return drawn

    def _cells(self, lines: tuple[TrialLine, ...]) -> dict[str, list[str]]:
        status, test = self.status, self.status.stage == "test"
        unit = "cost"
        if status.gpu_seconds:
            unit = "price" if status.price_per_gpu_hour else "GPU-h"
        return {
            "trial": [line.trial_id for line in lines],
            "stage": [line.stage for line in lines],
            "state": [line.state + ", stuck" * line.stuck for line in lines],
            "parameters": ["" for _ in lines],
            "epoch": ["-" if test else f"{line.epoch}/{status.epochs}" for line in lines],
            "best": ["-" if line.best is None else f"{line.best:.3f}" for line in lines],
            "time left": [duration(status.trial_left(line)) for line in lines],
            unit: [self._cost(line, unit) for line in lines],
        }

    def _cost(self, line: TrialLine, unit: str) -> str:
        """All attempts of the trial together."""
        attempts = [one for one in self.status.trials if one.trial_id == line.trial_id]
        gpu = sum(one.gpu_seconds for one in attempts)
        if unit == "price":
            return f"{gpu / 3600 * self.status.price_per_gpu_hour:.2f}"
        if unit == "GPU-h":
            return hours(gpu)
        return duration(sum(one.worker_seconds for one in attempts))


def _dropped(cells: Mapping[str, object]) -> list[str]:
    """Columns that a narrow terminal goes without, the first one first."""
    unit = [name for name in cells if name in ("cost", "price", "GPU-h")]
    return ["stage", *unit, "time left", "epoch", "best", "parameters", "state"]


def fitting(parts: tuple[str, ...], width: int) -> str:
    """Join as many parts as fit: a number that is cut short would be another number."""
    whole = " ".join(parts)
    while len(whole) > width and parts:
        parts = parts[:-1]
        whole = " ".join((*parts, ".."))
    return whole if len(whole) <= width else ""
