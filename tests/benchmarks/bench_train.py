"""What a trial of several workers under Ray Train costs beside one in a Tune actor.

The same trials of one epoch with one worker, with two, and with two at the interval at which Ray
Train polls its workers by itself, each in a local Ray of its own.
"""

import os
import tempfile
from pathlib import Path

from bench_study import new_models, read, search_only
from harness import Row, Section, Spread
from local_ray import LocalRay

INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
RAYS_OWN = "2.0"
"""The default of Ray 2.60."""


def run(quick: bool) -> Section:
    """Run three trials of each kind."""
    kinds = ((1, ""), (2, "")) if quick else ((1, ""), (2, ""), (2, RAYS_OWN))
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        models = new_models(Path(folder) / "models")
        rows = [_trials(Path(folder), models, *kind) for kind in kinds]
    notes = [
        "mini student and teacher, embedded world, 1 epoch; the first trial of each kind, which "
        "imports torch and tokenises, is left out",
        "wall: from the start of a trial to its end as the driver sees them; lost: without "
        "training and evaluation; two workers share each batch of 16 on two CPUs",
    ]
    return Section("Trials of several workers", rows, notes)


def _trials(out: Path, models: tuple[str, str], workers: int, interval: str) -> Row:
    before = os.environ.get(INTERVAL)
    if interval:
        os.environ[INTERVAL] = interval  # read by processes that this Ray starts
    try:
        with LocalRay():
            folder, _ = search_only(out, models, f"w{workers}-{interval}", 4, 1, workers)
    finally:
        if interval and before is not None:
            os.environ[INTERVAL] = before
    table, metrics = read(folder, "trials"), read(folder, "metrics")
    table = table[table["stage"] == "search"].sort_values("started_at").iloc[1:]
    wall = (table["ended_at"] - table["started_at"]).dt.total_seconds()
    useful = metrics.groupby("trial_id")["seconds"].sum().reindex(table["trial_id"])
    return {
        "axis": "workers",
        "value": workers,
        "polled every s": interval or "0.2",
        "wall s": Spread.of(wall.tolist()),
        "lost s": Spread.of((wall.to_numpy() - useful.to_numpy()).tolist()),
    }
