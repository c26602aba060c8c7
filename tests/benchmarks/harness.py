"""How things are measured here: side by side, in one process, interleaved, as ratios.

A section of the benchmarks is a function `run(quick) -> Section`; `run.py` prints it and keeps it
in `benchmarks.json`. Machines are noisy, so what is reported of two actions is the ratio within
each round, its median and its quartiles.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


@dataclass
class Section:
    """The findings of one benchmark."""

    title: str
    rows: list[Row]
    """Columns by name; a ratio is a `Spread`."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know to believe or repeat it."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Summarise some values."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0], 1)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))

    def __str__(self) -> str:
        size = abs(self.median)
        digits = 0 if size >= 100 else 2 if size >= 1 else 3
        shown = (f"{value:,.{digits}f}" for value in (self.median, self.low, self.high))
        middle, low, high = shown
        return f"{middle} ({low}{' to ' if self.low < 0 else '-'}{high})"


def interleaved(
    actions: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Time each action once a round, in turns; return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(-warmup, rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: list[float], base: list[float]) -> Spread:
    """Return the ratio of two actions, round by round."""
    return Spread.of([one / other for one, other in zip(seconds, base, strict=True)])


def machine() -> Row:
    """Say on what this was measured."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
