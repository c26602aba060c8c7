"""The progress of a stage: a live table on a terminal, or one plain line for every trial's end."""

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from rich.console import Console as Terminal
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.console import Console
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded, TrialFinished
from dsgkd.study.spec import TrialSpec
from dsgkd.study.status.hyperparameters import settings_of
from dsgkd.study.status.status import ENDED, LINK, StageStatus, TrialLine, ended_trials
from dsgkd.study.status.status_table import table

HEARTBEAT = 20.0
"""Seconds of silence after which a line says that work goes on."""


@contextmanager
def progress(
    before: StageStatus, console: Console, live: bool = True
) -> Iterator[Sequence[TrialCallback]]:
    """Show how a stage goes: a live table on a terminal, else plain lines.

    Args:
        before: the stage before its first trial of this session.
        console: takes the lines.
        live: False: plain lines on a terminal too.
    """
    status = StatusCallback(before)
    shown = Live(
        _Drawing(status),
        console=Terminal(),
        refresh_per_second=2,
        transient=True,
        vertical_overflow="crop",
    )
    try:
        if not (live and can_show_tables()):
            raise OSError
        shown.start(refresh=True)
    except OSError:
        yield [Progress(before, console)]
        return
    try:
        yield [status, Progress(before, console, heartbeat=math.inf)]
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
            and Terminal().is_terminal
        )
    except (AttributeError, ValueError, OSError):  # closed, or no file at all
        return False


@dataclass(frozen=True)
class _Drawing:
    """The stage as it stands whenever it is drawn; a table that fails stops no study."""

    status: "StatusCallback"

    def __rich_console__(self, console: Terminal, options: ConsoleOptions) -> RenderResult:
        # Room for the ^C that a terminal writes: a line more than was drawn would be left behind.
        options = options.update(width=max(options.max_width - 3, 1))
        try:
            segments = list(console.render(table(self.status.read()), options))
        except Exception as error:
            segments = [Segment(f"(no table: {type(error).__name__})"), Segment.line()]
        yield from segments


class StatusCallback(TrialCallback):
    """Keeps the status of a stage."""

    def __init__(self, before: StageStatus) -> None:
        self._before = before
        self._lines: dict[tuple[str, int], TrialLine] = {}

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Add the attempt."""
        self._lines[spec.trial_id, spec.attempt] = TrialLine(
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
            started=at,
            ended=None,
            reason="",
            shown_in=self._before.stage,
        )

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Note what the epoch brought and cost."""
        best = None if spec.stage == LINK else epoch.best_objective
        self._change(spec, charge, epoch=epoch.epoch, best=best, stuck=bool(epoch.stuck))

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Note how it ended, and what it cost until then."""
        changes = {"state": end.state, "reason": end.reason, "ended": end.charge.at}
        self._change(spec, end.charge, **changes)

    def _change(self, spec: TrialSpec, charge: Charge, **changes: object) -> None:
        key = (spec.trial_id, spec.attempt)
        costs = {"worker_seconds": charge.worker_seconds, "gpu_seconds": charge.gpu_seconds}
        self._lines[key] = replace(self._lines[key], **costs, **changes)  # type: ignore[arg-type]

    def read(self) -> StageStatus:
        """Return how the stage stands now."""
        before, ours = self._before, tuple(self._lines.copy().values())
        ended = {line.trial_id for line in before.trials if line.state in ENDED}
        return replace(
            before,
            done=before.done + ended_trials(line for line in ours if line.trial_id not in ended),
            trials=before.trials + ours,
            worker_seconds=before.worker_seconds + sum(line.worker_seconds for line in ours),
            gpu_seconds=before.gpu_seconds + sum(line.gpu_seconds for line in ours),
            at=datetime.now(UTC),
        )


class Progress(TrialCallback):
    """Prints a line when a trial ends, and a sign of life in between.

    The lines suit a terminal and a job's log alike: no colours, no cursor movements.
    """

    def __init__(self, before: StageStatus, console: Console, heartbeat: float = HEARTBEAT) -> None:
        self._stage, self._console, self._heartbeat = before, console, heartbeat
        self._done = before.done
        self._running: dict[str, int] = {}
        self._spoke = time.monotonic()

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Count the trial as running."""
        self._running[spec.trial_id] = 0

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Note the epoch, and say so if nothing was said for a while."""
        self._running[spec.trial_id] = epoch.epoch
        if time.monotonic() - self._spoke > self._heartbeat:
            epochs = spec.run.optimisation.most_epochs
            running = ", ".join(f"{t} epoch {e}/{epochs}" for t, e in self._running.items())
            self._line(f"running: {running}")

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Print how the trial ended."""
        self._running.pop(spec.trial_id, None)
        self._done += end.state != "preempted" and spec.stage != LINK
        parts, measure = [f"{spec.trial_id:<28} {end.state:<9}"], spec.run.selection.objective
        if end.last is not None:
            parts.append(f"{measure} {end.last.best_objective:.3f} in epoch {end.last.best_epoch}")
            parts.append(f"{end.charge.worker_seconds:.0f} s")
        elif isinstance(end.final, TrialFinished) and measure in end.final.measured.get("test", {}):
            parts.append(f"test {measure} {end.final.measured['test'][measure]:.3f}")
        if end.last is not None and end.last.stuck:
            parts.append("stuck at chance")
        if end.state == "failed":
            parts.append(end.reason)
        self._line("  ".join(parts))

    def _line(self, text: str) -> None:
        self._console.print(f"{self._stage.stage:<8} {self._done:>3}/{self._stage.total:<3} {text}")
        self._spoke = time.monotonic()
