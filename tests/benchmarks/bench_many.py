"""The cost of a trial that computes nothing: a thousand of them in one study.

The driver does all that it does in a study: a search of two methods, the ledger, the account of
the budget with a limit, the lines for people. Trials report three epochs and end. So everything
that is measured is overhead; the driver's processor time is split by who spends it, and what is
left is Tune's and Ray's. The first hundred trials are set against the last: what grows shows there.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench_ledger import by_analysis, by_ledger, on_disk, peak, resident
from harness import Row, Section, Spread, interleaved
from local_ray import CPUS, LocalRay

from dsgkd.ledger import Ledger
from dsgkd.models.student import StudentConfig
from dsgkd.study.backends.tune import TuneBackend
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.callbacks.progress import Progress
from dsgkd.study.console import Console
from dsgkd.study.cost.budget import BudgetCallback, BudgetConfig, Reserve
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.messages import Charge, EpochFinished, Report, TrialEnded, TrialFinished
from dsgkd.study.search.arms import MLKD, PLAIN, arms
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.search.search import Search
from dsgkd.study.search.space import SearchSpace
from dsgkd.study.spec import TrialSpec
from dsgkd.study.status.status import StageStatus
from dsgkd.tasks.measures import MEASURES
from dsgkd.training.config import OptimisationConfig, RunConfig

TRIALS = 1_000
EPOCHS = 3
SAMPLE = 50
"""Trials between two looks at the memory."""
RUN = RunConfig(
    student=StudentConfig("student"),
    optimisation=OptimisationConfig(epochs=EPOCHS),
)
METHODS = (MLKD, PLAIN)
READINGS = 5


def steps(spec: TrialSpec) -> Iterator[Report]:
    """Report epochs at once; the score is a function of the configuration."""
    rates = spec.run.optimisation
    for epoch in range(1, EPOCHS + 1):
        score = 0.5 + rates.encoder_lr * 100 + rates.classifier_lr * 10 + epoch / 100
        measured = dict.fromkeys(MEASURES, 0.5) | {"auroc": score, "threshold": 0.5}
        terms = dict.fromkeys(("ce", "hidden"), 1 / 3)
        yield EpochFinished(
            epoch=epoch,
            score=score,
            validation=measured,
            best_epoch=epoch,
            best_objective=score,
            finished=epoch == EPOCHS,
            step=epoch,
            loss=2 / 3,
            raw=terms,
            weighted=terms,
            examples_per_second=1.0,
            ms_per_note=1.0,
            peak_rss_mb=1.0,
            peak_gpu_mb=0.0,
        )
    yield TrialFinished(measured={"validation": measured}, peak_rss_mb=1.0, peak_gpu_mb=0.0)


class Clock:
    """Sums what the driver spends on what; all of it happens in the thread that calls Tune."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.hundreds: list[Counter[str]] = []
        self.memory: list[float] = []
        self._ended = 0
        self._began = self._now = (0.0, 0.0)

    def start(self) -> None:
        """Begin to count, when the first trial starts: imports are not of interest."""
        if not self._began[1]:
            self._began = self._now = (time.process_time(), time.perf_counter())

    def charge(self, name: str, action: Any, *arguments: Any) -> Any:
        """Do something and charge it to a name."""
        before = time.thread_time()
        try:
            return action(*arguments)
        finally:
            self.spent[name] += time.thread_time() - before

    def trial_ended(self) -> None:
        """Take stock after every hundred trials."""
        self._ended += 1
        if self._ended % SAMPLE == 0:
            self.charge("watch", lambda: self.memory.append(resident()))
        if self._ended % 100 == 0:
            now = (time.process_time(), time.perf_counter())
            self.spent["driver"] = now[0] - self._now[0]
            self.spent["wall"] = now[1] - self._now[1]
            self.hundreds.append(self.spent)
            self.spent, self._now = Counter(), now


class Charged(TrialCallback):
    """A callback whose time is charged to it."""

    def __init__(self, callback: TrialCallback, clock: Clock) -> None:
        self._callback, self._clock = callback, clock
        self._name = type(callback).__name__

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Pass it on."""
        self._clock.charge(self._name, self._callback.on_start, spec, at)

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Pass it on."""
        self._clock.charge(self._name, self._callback.on_epoch, spec, epoch, charge)

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Pass it on."""
        self._clock.charge(self._name, self._callback.on_end, spec, end)


class Watch(TrialCallback):
    """A callback that starts the clock and looks at it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Start the clock."""
        self._clock.start()

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Count it."""
        self._clock.trial_ended()


def run(quick: bool) -> Section:
    """Run the study, then read its ledger."""
    trials = 200 if quick else TRIALS
    with tempfile.TemporaryDirectory(prefix="b", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with LocalRay():
            clock = study(folder, trials)
        ledger = folder / "ledger"
        size = on_disk(ledger)
        reading = interleaved(
            {
                "Ledger.read s": lambda: by_ledger(str(ledger)),
                "analysis.load s": lambda: by_analysis(str(ledger)),
            },
            READINGS,
        )
        journal = (folder / "search.journal").stat().st_size / 1e6
    rows = [*_by_hundreds(clock, trials), {"trials": "all", **size, "journal MB": journal}]
    rows[-1] |= {way: Spread.of(seconds) for way, seconds in reading.items()}
    return Section("A thousand trials", rows, _notes(trials))


def study(folder: Path, trials: int) -> Clock:
    """Run one search stage as a study does; return what it cost."""
    clock, lines = Clock(), []
    ledger = Ledger(str(folder / "ledger"))
    ledger.write("studies", [{"study_id": "bench", "name": "bench", "configuration": {}}], "study")
    space, by_method = SearchSpace(), {arm.method: arm for arm in arms(())}
    depths = {"student": 4, "teacher": 12}
    search = Search(
        folder / "search.journal",
        "bench",
        SearchConfig(trials=trials),
        RUN,
        dict.fromkeys(METHODS, trials // len(METHODS)),
        lambda trial, method: space.suggest(
            trial, by_method[method], RUN, {"teacher": "teacher"}, depths
        ),
    )
    pruning, budget = (
        PruningCallback(PruningConfig("asha", 3), EPOCHS),
        BudgetConfig(max_hours=1_000.0),
    )
    account, reserve = BudgetCallback(budget), Reserve(dict.fromkeys(METHODS, 5), (), CPUS)

    def specs() -> Iterator[TrialSpec]:
        while (planned := clock.charge("ask", search.ask)) is not None:
            yield TrialSpec(
                study_id="bench",
                trial_id=planned.trial_id,
                attempt=1,
                stage=planned.stage,
                method=planned.method,
                run=planned.run,
                folder=str(folder / "trials" / planned.trial_id),
                cache=str(folder),
                scratch=str(folder / "scratch"),
                ledger=ledger.root,
                parameters=planned.parameters,
            )

    def exceeded(at: datetime) -> str | None:
        limit: str | None = clock.charge("limits", account.exceeded, at, reserve.expected())
        return limit

    before = StageStatus(
        *("bench", "search", "auroc", MEASURES["auroc"], EPOCHS, trials, 0, ()),
        *(0.0, 0.0, 0.0, datetime.now(UTC)),
    )
    progress = Progress(before, Console(lines.append))
    callbacks = (LedgerCallback(ledger, ["auroc"]), search, pruning, reserve, account, progress)
    watched = (Watch(clock), *(Charged(one, clock) for one in callbacks))

    def stages() -> Generator[Stage, None, None]:
        yield Stage("search", specs(), trials, 0, watched, pruning.should_stop, exceeded)

    TuneBackend({"cpu": 1}, CPUS, folder / "tune", steps).run(Dispatcher(stages(), CPUS))
    assert len(lines) >= trials
    return clock


def _by_hundreds(clock: Clock, trials: int) -> list[Row]:
    """Return a row for the first and the last hundred trials, and for all."""
    whole: Counter[str] = sum(clock.hundreds, Counter())
    few = SAMPLE * len(clock.memory) // trials * 2 or 1
    parts = (
        ("first 100", clock.hundreds[0], 100, clock.memory[:2]),
        ("last 100", clock.hundreds[-1], 100, clock.memory[-2:]),
        ("all", whole, trials, clock.memory[-few:]),
    )
    rows: list[Row] = []
    for name, spent, count, memory in parts:
        each = {key: 1e3 * value / count for key, value in spent.items()}
        ours = sum(value for key, value in each.items() if key not in ("driver", "wall", "watch"))
        rows.append(
            {
                "trials": name,
                "wall ms": each["wall"],
                "driver ms": each["driver"] - each["watch"],
                "Tune ms": each["driver"] - each["watch"] - ours,
                "ours ms": ours,
                "ask ms": each["ask"],
                "search ms": each["Search"] + each["PruningCallback"],
                "ledger ms": each["LedgerCallback"],
                "limits ms": each["limits"] + each["BudgetCallback"] + each["Reserve"],
                "lines ms": each["Progress"],
                "driver MB": sum(memory) / len(memory),
            }
        )
    rows[-1]["driver MB"] = peak()
    return rows


def _notes(trials: int) -> list[str]:
    return [
        f"{trials:,} trials of {EPOCHS} epochs that compute nothing, two methods, {CPUS} at a "
        "time, in one study's search stage, ASHA and a limit of hours on; all columns are "
        "for each trial",
        "wall: by the clock, from the start of the first trial; driver: processor time of all the "
        "driver's threads; of it ours: ask (TPE), search (its journal and the pruning record), "
        "ledger, limits, lines for people; Tune: all the rest",
        "driver MB: resident memory of the driver, torch imported; in the last row its peak",
        f"Ledger.read and analysis.load: all of trials and metrics, {READINGS} times in turns; "
        f"{os.cpu_count()} cores",
    ]
