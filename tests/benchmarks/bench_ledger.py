"""How fast a ledger of up to a hundred thousand trials is written and read.

Trials are invented, and written as a study's driver writes them: a row when a trial starts, one
flush in the middle, its last epoch, and how it ended; its name is then sealed. (A real driver
flushes after every epoch, which repeats the write in the middle.) Nothing else is running.
"""

import gc
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness import Row, Section, Spread, interleaved, ratio

import analysis
from dsgkd.ledger import Ledger, Table
from dsgkd.ledger import ledger as module

T = TypeVar("T")
EPOCHS = 10
STUDY = "bench-0123abcd"
AT_ONCE = 8
"""Trials that are open at the same time."""
CONFIGURATION = json.dumps(
    {f"group_{i}": {"a field": i / 7, "another": "x" * 12} for i in range(40)}
)
"""As long as a real run's, 2 kB."""
MEASURES = (
    *("accuracy", "auroc", "auprc", "f1", "precision", "recall", "brier", "ece", "threshold"),
)
TERMS = ("task", "hidden", "attention")
IMPORTED = ["pandas", "pyarrow.parquet", "analysis", "dsgkd.ledger", "torch"]


def run(quick: bool) -> Section:
    """Write and read studies of several sizes, each action in a process of its own."""
    sizes = ((1_000, 1), (5_000, 25)) if quick else ((1_000, 1), (5_000, 1), (100_000, 25))
    rounds = 3 if quick else 7
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)

    def apart(action: Callable[[], T]) -> T:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            return process.submit(action).result()

    rows = []
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        for trials, shared in sizes:
            root = str(Path(folder) / str(trials))
            row: Row = {"trials": trials, "rows": trials * 2 * EPOCHS, "a file": shared}
            row |= apart(partial(write, root, trials, shared))
            row |= on_disk(Path(root))
            few = rounds if trials < 50_000 else 3
            row |= apart(partial(read, root, few))
            row |= {
                f"{way} +MB": apart(partial(memory, root, way)) for way in ("Ledger", "analysis")
            }
            rows.append(row)
        apart_ratio = apart(partial(unmerged, str(Path(folder) / "unmerged"), rounds))
    return Section("The ledger", [*rows, apart_ratio], _notes(rounds))


def write(root: str, trials: int, shared: int = 1) -> Row:
    """Write a study; return trials per second, and the memory when a tenth and all is written.

    `shared` trials have their rows in one file.
    """
    ledger = Ledger(root)
    ledger.write("studies", [{"study_id": STUDY, "name": "bench", "configuration": {}}], "study")
    first, seconds = 0.0, []
    files = [range(start, min(start + shared, trials)) for start in range(0, trials, shared)]
    started = time.perf_counter()
    for start in range(0, len(files), AT_ONCE):
        batch = files[start : start + AT_ONCE]
        for numbers in batch:
            write_file(ledger, "trials", numbers, lambda number: [trial(number, "running")])
        for numbers in batch:
            write_file(ledger, "metrics", numbers, lambda number: metrics(number, EPOCHS // 2))
        for numbers in batch:
            write_file(ledger, "metrics", numbers, lambda number: metrics(number, EPOCHS))
            write_file(ledger, "trials", numbers, lambda number: [trial(number, "complete")])
            before = time.perf_counter()
            ledger.seal(name(numbers[0]))
            seconds.append(time.perf_counter() - before)
        if not first and start >= len(files) // 10:
            first = resident()
    spent = time.perf_counter() - started
    return {
        "trials/s": trials / spent,
        "merging": sum(seconds) / spent,
        "longest merge s": max(seconds),
        "writer MB at 10%": first,
        "at 100%": resident(),
        "peak": peak(),
    }


def write_file(
    ledger: Ledger, table: Table, numbers: range, rows: Callable[[int], list[Row]]
) -> None:
    ledger.write(table, [row for number in numbers for row in rows(number)], name(numbers[0]))


def read(root: str, rounds: int) -> Row:
    """Time both readers in turns."""
    actions = {"Ledger": lambda: by_ledger(root), "analysis": lambda: by_analysis(root)}
    seconds = interleaved(actions, rounds)
    return {f"{way} s": Spread.of(values) for way, values in seconds.items()}


def memory(root: str, way: str) -> float:
    """How much more memory a process has had at most after reading all, in MB."""
    before = resident()
    found = {"Ledger": by_ledger, "analysis": by_analysis}[way](root)
    return peak() - before if found else 0.0


def unmerged(root: str, rounds: int) -> Row:
    """Read 1,000 trials in small files, and the same after merging."""
    at, module.MERGE_AT = module.MERGE_AT, 10**9
    apart = Path(root) / "small", Path(root) / "merged"
    write(str(apart[0]), 1_000)
    module.MERGE_AT = at
    write(str(apart[1]), 1_000)
    seconds = interleaved({place.name: partial(by_analysis, str(place)) for place in apart}, rounds)
    return {
        "trials": 1_000,
        "rows": 1_000 * 2 * EPOCHS,
        **on_disk(apart[0]),
        "analysis s": Spread.of(seconds["small"]),
        "not merged / merged": ratio(seconds["small"], seconds["merged"]),
    }


def by_ledger(root: str) -> list[Any]:
    ledger = Ledger(root)
    return [ledger.read("trials"), ledger.read("metrics")]


def by_analysis(root: str) -> list[Any]:
    results = analysis.load(root)
    return [results.trials, results.metrics]


def trial(number: int, state: str) -> Row:
    return {
        **key(number),
        "stage": "search",
        "state": state,
        "method": "mlkd",
        "settings": {
            "student": "mini-ko",
            "teacher": "mini-en-med",
            "layer_mapping": "uniform",
            "alpha": 1.0 + number % 7,
            "beta": 0.0,
            "cs_max_len": 25,
            "encoder_lr": 3e-4 / (1 + number % 11),
            "classifier_lr": 1e-3,
            "batch_size": 16,
        },
        "seed": number,
        "workers": 1,
        "started_at": datetime.now(UTC),
        "epochs_done": EPOCHS,
        "objective": number % 997 / 997,
        "worker_seconds": 30.0 + number % 13,
        "configuration": CONFIGURATION,
    }


def metrics(number: int, epochs: int) -> list[Row]:
    """Rows of a trial's epochs; their values have all the digits of real ones."""
    chance = random.Random(number)
    given = {
        "train": lambda: {
            "raw": {term: chance.random() for term in TERMS},
            "weighted": {term: chance.random() for term in TERMS},
        },
        "validation": lambda: {"measures": {measure: chance.random() for measure in MEASURES}},
    }
    return [
        {**key(number), "epoch": epoch, "step": 52 * epoch, "split": split}
        | {"loss": chance.random(), "seconds": chance.random(), **values()}
        for epoch in range(epochs)
        for split, values in given.items()
    ]


def key(number: int) -> Row:
    return {"study_id": STUDY, "trial_id": f"search-mlkd-{number:06d}", "attempt": 1}


def name(number: int) -> str:
    return f"search-mlkd-{number:06d}-1"


def on_disk(root: Path) -> Row:
    sizes = [path.stat().st_size for path in root.rglob("*.parquet")]
    return {"files": len(sizes), "disk MB": sum(sizes) / 1e6}


def resident() -> float:
    """Memory of this process now, in MB."""
    gc.collect()
    return _status("VmRSS")


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def _notes(rounds: int) -> list[str]:
    return [
        f"one process, {AT_ONCE} trials open at a time; of each its row at the start, a flush in "
        f"the middle, the last of {EPOCHS} epochs (2 rows each), its row at the end, then sealed: "
        f"four files written and forced to the disk ({1e3 * fsync_seconds():.1f} ms each); "
        f"a configuration of {len(CONFIGURATION):,} bytes a trial",
        "a file: trials whose rows share a file; a study has one, and 400,000 files would take "
        "hours of this machine, so that the largest ledger is written 25 at a time",
        "merging: share of the writer's time; longest merge: for so long the driver waits",
        "writer MB: resident memory of the writing process (torch is imported) after a tenth of "
        "the trials and after all, and the most there ever was",
        "Ledger s, analysis s: all of trials and metrics with Ledger.read and analysis.load; "
        f"median of {rounds} rounds in turns (3 for 100,000), files in the page cache; +MB: the "
        "most memory of a process that reads them once, less what it had before",
        "last row: 1,000 trials whose files were never merged, against the same merged",
        f"every action in a process of its own; {os.cpu_count()} cores",
    ]


def fsync_seconds() -> float:
    """What it takes to force a small file to the disk."""
    with tempfile.NamedTemporaryFile() as file:
        seconds = []
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
