"""The base class of everything that follows a study's trials."""

from datetime import datetime

from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.spec import TrialSpec


class TrialCallback:
    """Follows the trials of a stage; every method does nothing until it is overridden.

    A stage's callbacks are called one after the other, the ledger's first, in the driver's main
    thread: whatever takes long belongs into a thread of its own.
    """

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """An attempt was taken up by a worker."""

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """An epoch is over; `charge` is what the attempt has cost until now."""

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """An attempt is over."""
