"""What does a person see while a study runs? A live table, or one plain line for what ended."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

from dsgkd.ledger import Ledger
from dsgkd.study.dispatcher import TrialCallback
from dsgkd.study.status.hyperparameters import settings_of
from dsgkd.study.status.status import ENDED, StageStatus, TrialLine, ended_trials, lines_of
from dsgkd.study.status.status_table import table
from dsgkd.study.trial import Report, TrialSpec

Say = Callable[[str], None]

HEARTBEAT = 20.0
"""Seconds of silence after which a line says that work goes on."""


@dataclass(frozen=True)
class StageInfo:
    """What is known of a stage before its first trial starts."""

    study: str
    """Its name."""
    stage: str
    total: int
    """Trials of the stage."""
    done: int
    """Trials of the stage that ended before this session."""
    measure: str
    """The validation measure that chooses weights and configurations."""
    epochs: int
    """The most that a trial may run."""
    price_per_gpu_hour: float = 0.0
    """In the user's currency; 0: no price was given."""
    worker_hours: float = 0.0
    """Spent by the study before."""
    gpu_hours: float = 0.0
    """Spent by the study before."""
    earlier: tuple[TrialLine, ...] = ()
    """This stage's attempts of earlier sessions; their cost is part of what was spent before."""


def with_past(info: StageInfo, ledger: Ledger) -> StageInfo:
    """Return what is known of a stage with what the ledger knows of the study until now."""
    lines = lines_of(ledger.read("trials").to_pylist())
    return replace(
        info,
        worker_hours=sum(line.worker_seconds for line in lines) / 3600,
        gpu_hours=sum(line.gpu_seconds for line in lines) / 3600,
        earlier=tuple(line for line in lines if line.part_of == info.stage),
    )


@contextmanager
def progress(info: StageInfo, say: Say, live: bool = True) -> Iterator[TrialCallback]:
    """Show how a stage goes: a live table on a terminal, else plain lines.

    Args:
        info: the stage.
        say: prints a line; while the table is shown, lines appear above it.
        live: False: plain lines on a terminal too.
    """
    keeper, stage = StatusCallback(info), (info.stage, info.total, info.done, info.measure, say)
    shown = Live(
        _Drawing(keeper),
        console=Console(),
        refresh_per_second=2,
        transient=True,
        vertical_overflow="crop",
    )
    try:
        if not (live and can_show_tables()):
            raise OSError
        shown.start(refresh=True)
    except OSError:
        yield Progress(*stage)
        return
    try:
        yield _Both(keeper, Progress(*stage, heartbeat=math.inf))
    finally:
        with suppress(OSError, ValueError):  # the terminal may be gone by now
            shown.stop()


def can_show_tables() -> bool:
    """Whether standard output is a terminal whose lines can be drawn again."""
    out = sys.stdout
    try:
        return (
            out.isatty()
            and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ
            and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
            and (out.encoding or "").lower().replace("-", "") == "utf8"
            and Console().is_terminal
        )
    except (AttributeError, ValueError, OSError):  # closed, or no file at all
        return False


@dataclass(frozen=True)
class _Drawing:
    """The board as it stands whenever it is drawn; a picture that fails stops no study."""

    keeper: "StatusCallback"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Room for the ^C that a terminal writes: a line more than was drawn would be left behind.
        options = options.update(width=max(options.max_width - 3, 1))
        try:
            segments = list(console.render(table(self.keeper.board()), options))
        except Exception as error:
            segments = [Segment(f"(no table: {type(error).__name__})"), Segment.line()]
        yield from segments


class StatusCallback:
    """A callback that keeps the board of a stage."""

    def __init__(self, info: StageInfo) -> None:
        # Whoever ran what still counts as running is gone: this session runs the study now.
        earlier = [
            replace(line, state="preempted") if line.state == "running" else line
            for line in info.earlier
        ]
        self._info = replace(info, earlier=tuple(earlier))
        self._lines: dict[tuple[str, int], TrialLine] = {}

    def started(self, spec: TrialSpec) -> None:
        """Add the attempt."""
        key = (spec.trial_id, spec.attempt)
        if key not in self._lines:
            self._lines[key] = TrialLine(
                trial_id=spec.trial_id,
                attempt=spec.attempt,
                stage=spec.stage,
                method=spec.method,
                state="running",
                settings=settings_of(asdict(spec.run)),
                epoch=spec.known_epochs,
                best=None,
                workers=spec.workers,
                worker_seconds=0.0,
                gpu_seconds=0.0,
                started=datetime.now(UTC),
                ended=None,
                reason="",
            )

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Note what the epoch brought and cost."""
        self.started(spec)
        key, result = (spec.trial_id, spec.attempt), report.get("result")
        line = replace(
            self._lines[key],
            worker_seconds=report["worker_seconds"],
            gpu_seconds=report["gpu_seconds"],
        )
        if result is not None:
            line = replace(line, epoch=result["epoch"], best=result["best_objective"])
        self._lines[key] = line

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        """Note how it ended, and what it cost until then."""
        self.reported(spec, report)
        key = (spec.trial_id, spec.attempt)
        ended = datetime.now(UTC)
        self._lines[key] = replace(self._lines[key], state=state, reason=reason, ended=ended)

    def board(self) -> StageStatus:
        """Return how the stage stands now."""
        info, ours = self._info, tuple(self._lines.copy().values())
        before = {line.trial_id for line in info.earlier if line.state in ENDED}
        return StageStatus(
            study=info.study,
            stage=info.stage,
            measure=info.measure,
            epochs=info.epochs,
            total=info.total,
            done=info.done + ended_trials(line for line in ours if line.trial_id not in before),
            trials=info.earlier + ours,
            worker_seconds=info.worker_hours * 3600 + sum(line.worker_seconds for line in ours),
            gpu_seconds=info.gpu_hours * 3600 + sum(line.gpu_seconds for line in ours),
            price_per_gpu_hour=info.price_per_gpu_hour,
            at=datetime.now(UTC),
        )


class Progress:
    """Prints a line when a trial ends, and a sign of life in between.

    The lines suit a terminal and a job's log alike: no colours, no cursor movements.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        done: int,
        measure: str,
        say: Say,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._stage, self._total, self._done = stage, total, done
        self._measure, self._say, self._heartbeat = measure, say, heartbeat
        self._running: dict[str, int] = {}
        self._spoke = time.monotonic()

    def started(self, spec: TrialSpec) -> None:
        """Count the trial as running."""
        self._running[spec.trial_id] = 0

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Note the epoch, and say so if nothing was said for a while."""
        self._running[spec.trial_id] = report["epoch"]
        if time.monotonic() - self._spoke > self._heartbeat:
            epochs = spec.run.optimisation.epochs
            running = ", ".join(f"{t} epoch {e}/{epochs}" for t, e in self._running.items())
            self._line(f"running: {running}")

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        """Say how the trial ended."""
        self._running.pop(spec.trial_id, None)
        self._done += state != "preempted"
        parts = [f"{spec.trial_id:<28} {state:<9}"]
        if report.get("result"):
            value = report["result"]["best_objective"]
            parts.append(f"{self._measure} {value:.3f} in epoch {report['result']['best_epoch']}")
            if "tested" in report and "test" in report["tested"]:
                parts.append(f"(test {report['tested']['test'][self._measure]:.3f})")
            parts.append(f"{report['worker_seconds']:.0f} s")
        elif "test" in report.get("tested", {}):
            parts.append(f"test {self._measure} {report['tested']['test'][self._measure]:.3f}")
        if state == "failed":
            parts.append(reason)
        self._line("  ".join(parts))

    def _line(self, text: str) -> None:
        self._say(f"{self._stage:<8} {self._done:>3}/{self._total:<3} {text}")
        self._spoke = time.monotonic()


class _Both:
    """Keeps the board and says the lines of what ended."""

    def __init__(self, keeper: StatusCallback, lines: Progress) -> None:
        self._callbacks: tuple[TrialCallback, ...] = (keeper, lines)

    def started(self, spec: TrialSpec) -> None:
        for callback in self._callbacks:
            callback.started(spec)

    def reported(self, spec: TrialSpec, report: Report) -> None:
        for callback in self._callbacks:
            callback.reported(spec, report)

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        for callback in self._callbacks:
            callback.ended(spec, report, state, reason)
