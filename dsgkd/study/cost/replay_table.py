"""A table of replays of a study, from which the next one's cluster can be chosen."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from statistics import median

from dsgkd.errors import InputError
from dsgkd.study.cost.curves import Curve
from dsgkd.study.cost.replay import Replayed, replay
from dsgkd.study.search.config import PruningConfig, Scheduler


def replay_lines(
    curves: Sequence[Curve],
    pruning: PruningConfig | None = None,
    slots: Sequence[int] = (1, 2, 4, 8),
    schedulers: Sequence[Scheduler] = ("none", "asha", "hyperband", "median"),
    rates: Sequence[float] = (0.0, 0.1, 1.0),
    startup_seconds: float = 120.0,
    price: float = 0.0,
    spot_factor: float = 0.3,
    draws: int = 9,
) -> list[str]:
    """Return a table of replays, one line for each cluster, scheduler and spot rate.

    Args:
        curves: of the earlier study.
        pruning: everything but the scheduler.
        slots: trials at a time, to compare.
        schedulers: to compare.
        rates: pre-emptions an hour and slot, to compare; 0: machines that stay.
        startup_seconds: as in `replay`.
        price: of a GPU-hour on machines that stay; 0: no column of costs.
        spot_factor: part of that price which spot machines cost.
        draws: how often a replay with pre-emptions is repeated, with another seed.

    Raises:
        InputError: as `replay`, or there is no curve.
    """
    if not curves:
        raise InputError("replay", "no trial to replay", "choose another study")
    pruning, rows, is_bound = pruning or PruningConfig(), [], False
    for slot, scheduler, rate in product(slots, schedulers, rates):
        chosen = replace(pruning, scheduler=scheduler)
        runs = [
            replay(curves, slot, chosen, rate, seed, startup_seconds)
            for seed in range(draws if rate else 1)
        ]
        is_bound |= any(run.is_lower_bound for run in runs)
        cells = {"slots": str(slot), "scheduler": scheduler, "taken/h": f"{rate:g}"}
        rows.append(cells | _cells(curves, runs, price * (spot_factor if rate else 1.0)))
    titles = list(rows[0])
    widths = [max(len(title), *(len(row[title]) for row in rows)) for title in titles]
    table = [dict(zip(titles, titles)), *rows]
    return [
        *("  ".join(map(str.rjust, line.values(), widths)) for line in table),
        "",
        f"{len(curves)} trials played again. taken/h: pre-emptions an hour and slot, median (and",
        f"range) of {draws} draws. lost-h: worker-hours they took. regret: how far the best trial",
        "that was not stopped stays below the record's best, for the method where that is most.",
        *(_BOUND if is_bound else ()),
    ]


_BOUND = (
    "≤: some trials had been stopped early and would have gone on here, but their record ends",
    "there: regret is at most, and hours and costs are at least, what stands in the line.",
)


def _cells(curves: Sequence[Curve], runs: Sequence[Replayed], price: float) -> dict[str, str]:
    """Return one line's results by title."""
    hours = [run.hours for run in runs]
    spread = f" ({_short(min(hours))}-{_short(max(hours))})" if len(runs) > 1 else ""
    gpu_hours = median(run.gpu_hours for run in runs)
    regret = median(_regret(curves, run) for run in runs)
    bound = "≤" if any(run.is_lower_bound for run in runs) else ""
    cells = {
        "hours": _short(median(hours)) + spread,
        "worker-h": _short(median(run.worker_hours for run in runs)),
        "GPU-h": _short(gpu_hours),
        "lost-h": _short(median(run.lost_hours for run in runs)),
        "cost": f"{gpu_hours * price:.2f}",
        "epochs": f"{median(run.epochs_run for run in runs):g}",
        "regret": bound + f"{regret:.4f}" if math.isfinite(regret) else "-",
    }
    unused = [] if price else ["cost"]
    if not any(curve.gpus for curve in curves):
        unused = ["GPU-h", "cost"]
    return {title: cell for title, cell in cells.items() if title not in unused}


def _regret(curves: Sequence[Curve], run: Replayed) -> float:
    """Return by how much the best of the worst-served method misses the best of its record."""
    record: dict[str, float] = {}
    for curve in curves:
        record[curve.method] = max(record.get(curve.method, -math.inf), curve.best)
    missed = [
        best - run.best.get(method, -math.inf)
        for method, best in record.items()
        if math.isfinite(best)
    ]
    return max(missed, default=math.nan)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
