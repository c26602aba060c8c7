"""What a study is told of its trials, as types, and the one place that packs them for Tune."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["complete", "pruned", "failed", "preempted"]
Measured = dict[str, float]
"""Measure -> value."""


@dataclass(frozen=True)
class TrialStarted:
    """A worker has taken up the trial."""


@dataclass(frozen=True, kw_only=True)
class _Reported:
    """What a worker says with each of its messages."""

    peak_rss_mb: float | None = None
    peak_gpu_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class EpochFinished(_Reported):
    """A trial has trained and evaluated one epoch. Times are in seconds."""

    epoch: int
    """Counted from 1."""
    score: float
    """The objective after this epoch; more is better."""
    validation: Measured
    """All measures, and the `threshold` where the task has one."""
    best_epoch: int
    best_objective: float
    """Value of the objective in the best epoch."""
    finished: bool = False
    """No epoch follows."""
    step: int = 0
    loss: float | None = None
    raw: Measured = field(default_factory=dict)
    """Term -> mean value without its weight."""
    weighted: Measured = field(default_factory=dict)
    """Term -> mean value with its weight."""
    share: Measured = field(default_factory=dict)
    """Term -> its share of the update of the encoder."""
    stuck: bool | None = None
    """No epoch so far was better than chance; None: not judged."""
    examples_per_second: float | None = None
    seconds: float = 0.0
    """Of training."""
    evaluation_seconds: float = 0.0
    ms_per_note: float | None = None
    """Milliseconds to predict one note of the validation split in batches."""
    teacher_store: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrialFinished(_Reported):
    """A trial has come to its end by itself."""

    measured: dict[str, Measured] = field(default_factory=dict)
    """Split -> measures of the best epoch's weights."""


@dataclass(frozen=True, kw_only=True)
class TrialFailed(_Reported):
    """A trial cannot go on, and would not anywhere else."""

    reason: str


@dataclass(frozen=True)
class WorkerLost:
    """A trial's worker is gone; the trial can go on elsewhere from its last checkpoint."""

    with_node: bool = False
    """Whether its whole machine is gone."""


@dataclass(frozen=True)
class StorageFailed:
    """A trial could not write; it is not at fault. The fields are those of a `StorageError`."""

    where: str
    what: str
    remedy: str


Report = EpochFinished | TrialFinished | TrialFailed | StorageFailed
"""What a trial itself says."""
Message = TrialStarted | Report | WorkerLost

_REPORTS: dict[str, type[Report]] = {
    kind.__name__: kind for kind in (EpochFinished, TrialFinished, TrialFailed, StorageFailed)
}


@dataclass(frozen=True)
class Charge:
    """What an attempt has cost up to a moment."""

    at: datetime
    worker_seconds: float = 0.0
    gpu_seconds: float = 0.0


@dataclass(frozen=True)
class TrialEnded:
    """How an attempt ended: what the study made of the messages."""

    state: State
    reason: str
    charge: Charge
    last: EpochFinished | None = None
    """The last epoch that this attempt reported."""
    final: TrialFinished | TrialFailed | None = None
    """What the trial said at its end."""

    @property
    def peaks(self) -> dict[str, float | None]:
        """The most memory that a worker took."""
        said = self.final or self.last or TrialFinished()
        return {"peak_rss_mb": said.peak_rss_mb, "peak_gpu_mb": said.peak_gpu_mb}


def pack(report: Report) -> dict[str, Any]:
    """Return a report as Tune is to see it: in one piece, and the score.

    Of every number that Tune sees it keeps statistics until the study ends, for every trial, and
    writes them down again and again.
    """
    packed = {"kind": type(report).__name__} | asdict(report)
    score = report.score if isinstance(report, EpochFinished) else None
    return {"report": json.dumps(packed, default=float), "score": score}


def unpack(result: dict[str, Any]) -> Report:
    """Return the report that came with a result of Tune."""
    fields = json.loads(result["report"])
    return _REPORTS[fields.pop("kind")](**fields)
