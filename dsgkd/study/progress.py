"""What does a person see while a study runs? One plain line for each thing that ended."""

import time
from collections.abc import Callable

from dsgkd.study.trial import Report, TrialSpec

HEARTBEAT = 20.0
"""Seconds of silence after which a line says that work goes on."""


class Progress:
    """Prints a line when a trial ends, and a sign of life in between.

    The lines suit a terminal and a job's log alike: no colours, no cursor movements.
    """

    def __init__(
        self, stage: str, total: int, done: int, measure: str, say: Callable[[str], None]
    ) -> None:
        self._stage, self._total, self._done = stage, total, done
        self._measure, self._say = measure, say
        self._best: dict[str, float] = {}
        self._running: dict[str, int] = {}
        self._spoke = time.monotonic()

    def started(self, spec: TrialSpec) -> None:
        """Count the trial as running."""
        self._running[spec.trial_id] = 0

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Note the epoch, and say so if nothing was said for a while."""
        self._running[spec.trial_id] = report["epoch"]
        if time.monotonic() - self._spoke > HEARTBEAT:
            epochs = spec.run.optimisation.epochs
            running = ", ".join(f"{t} epoch {e}/{epochs}" for t, e in self._running.items())
            self._line(f"running: {running}")

    def ended(self, spec: TrialSpec, report: Report | None, state: str, reason: str) -> None:
        """Say how the trial ended."""
        self._running.pop(spec.trial_id, None)
        self._done += state != "preempted"
        parts = [f"{spec.trial_id:<28} {state:<9}"]
        if report is not None and report.get("result"):
            value = report["result"]["best_objective"]
            parts.append(f"{self._measure} {value:.3f} in epoch {report['result']['best_epoch']}")
            if "tested" in report and "test" in report["tested"]:
                parts.append(f"(test {report['tested']['test'][self._measure]:.3f})")
            parts.append(f"{report['worker_seconds']:.0f} s")
        if state == "failed":
            parts.append(reason)
        self._line("  ".join(parts))

    def _line(self, text: str) -> None:
        self._say(f"{self._stage:<8} {self._done:>3}/{self._total:<3} {text}")
        self._spoke = time.monotonic()
