"""The interface between a study's decisions and the machines that run its trials."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from dsgkd.study.dispatcher import Dispatcher
from dsgkd.study.messages import Report
from dsgkd.study.spec import TrialSpec

Steps = Callable[[TrialSpec], Iterator[Report]]
"""What a trial does: its reports, the last one a `TrialFinished`, `TrialFailed` or
`StorageFailed`."""


class Backend(Protocol):
    """Runs the trials of a study somewhere."""

    def run(self, dispatcher: Dispatcher) -> None:
        """Run what the dispatcher hands out and tell it what happens, until no stage is left.

        The dispatcher is closed at the end, however it comes.

        Raises:
            StorageError: the ledger, a trial's folder or the backend's own files cannot be written.
            KeyboardInterrupt: the user stopped it.
        """
        ...


def new_clock() -> Callable[[], datetime]:
    """Return a clock that nobody can set back: the time of now, and on from it monotonically."""
    began, started = datetime.now(UTC), time.monotonic()
    return lambda: began + timedelta(seconds=time.monotonic() - started)
