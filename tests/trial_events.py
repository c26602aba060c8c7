"""Trials that never ran: their specs, their messages, and what callbacks are told of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dsgkd.data.config import DataConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.dispatcher import Stage
from dsgkd.study.messages import (
    Charge,
    EpochFinished,
    State,
    TrialEnded,
    TrialFailed,
    TrialFinished,
)
from dsgkd.study.spec import TrialSpec
from dsgkd.tasks.measures import MEASURES
from dsgkd.training.config import OptimisationConfig, RunConfig

EPOCHS = 4
START = datetime.now(UTC)


def make_spec(
    number: int = 0, method: str = "mlkd", stage: str = "search", **changes: Any
) -> TrialSpec:
    run = RunConfig(
        data=DataConfig(path="/secret/notes_of_patients.csv", text="note_column"),
        optimisation=OptimisationConfig(epochs=EPOCHS, encoder_lr=1e-4 * (number + 1)),
        distillation=DistillationConfig(
            teacher="" if method == "plain" else "corpus:/secret/our_clinical_texts",
            alpha=0.0 if method == "plain" else 0.5 + number,
        ),
    )
    settings: dict[str, Any] = {
        "study_id": "s",
        "trial_id": f"{stage}-{method}-{number:03d}",
        "attempt": 1,
        "stage": stage,
        "method": method,
        "run": run,
        "folder": f"/studies/one/trials/{stage}-{method}-{number:03d}",
        "cache": "/studies/cache",
        "ledger": "/studies/one/ledger",
        "scratch": "/studies/one/tune",
    }
    return TrialSpec(**settings | changes)


def make_epoch(spec: TrialSpec, epoch: int, score: float = 0.5, **changes: Any) -> EpochFinished:
    values = {
        "epoch": epoch,
        "score": score,
        "validation": dict.fromkeys(MEASURES, 0.25) | {"auroc": score, "threshold": 0.5},
        "best_epoch": epoch,
        "best_objective": score,
        "finished": epoch == EPOCHS,
        "step": 7 * epoch,
        "loss": 1.0,
        "raw": {"ce": 0.6, "hidden": 0.8},
        "weighted": {"ce": 0.6, "hidden": 0.4},
        "examples_per_second": 100.0,
        "seconds": 9.0,
        "evaluation_seconds": 1.0,
        "ms_per_note": 1.0,
        "teacher_store": "hit" if spec.run.distillation.teacher else None,
        "peak_rss_mb": 100.0,
        "peak_gpu_mb": 0.0,
    }
    return EpochFinished(**values | changes)


def charge(spec: TrialSpec, seconds: float) -> Charge:
    """What an attempt has cost after some seconds."""
    workers = seconds * spec.workers
    return Charge(START + timedelta(seconds=seconds), workers, workers * spec.gpus_per_worker)


def ended(
    spec: TrialSpec,
    state: State,
    last: EpochFinished | None = None,
    reason: str = "",
    seconds: float = 1.0,
    **measured: dict[str, float],
) -> TrialEnded:
    """How an attempt ended; `measured` by split."""
    final: TrialFinished | TrialFailed | None = None
    if state == "complete":
        final = TrialFinished(measured=measured)
    if state == "failed":
        final = TrialFailed(reason=reason)
    return TrialEnded(state, reason, charge(spec, seconds), last, final)


def play(callbacks: Sequence[TrialCallback]) -> None:
    """A search with every end that there is; two trials are left running."""

    def epochs(spec: TrialSpec, first: int, last: int, score: float) -> EpochFinished:
        for number in range(first, last + 1):
            epoch = make_epoch(spec, number, score + 0.01 * number)
            for callback in callbacks:
                callback.on_epoch(spec, epoch, charge(spec, 10.0 * (number - spec.known_epochs)))
        return epoch

    def start(spec: TrialSpec) -> TrialSpec:
        for callback in callbacks:
            callback.on_start(spec, datetime.now(UTC))
        return spec

    def end(spec: TrialSpec, last: EpochFinished | None, state: State, reason: str = "") -> None:
        seconds = 10.0 * (last.epoch - spec.known_epochs) if last else 1.0
        for callback in callbacks:
            over = ended(spec, state, last, reason, seconds)
            callback.on_end(spec, replace(over, charge=replace(over.charge, at=datetime.now(UTC))))

    first, second = start(make_spec(0)), start(make_spec(0, "plain"))
    epochs(first, 1, 1, 0.7)
    end(second, epochs(second, 1, EPOCHS, 0.6), "complete")
    end(first, epochs(first, 2, EPOCHS, 0.7), "complete")
    third, fourth = start(make_spec(1)), start(make_spec(1, "plain"))
    end(third, epochs(third, 1, 1, 0.3), "pruned", "below the others after epoch 1")
    end(fourth, None, "failed", "the loss is not finite in epoch 1")
    fifth = start(make_spec(2, workers=2, gpus_per_worker=0.5))
    end(fifth, epochs(fifth, 1, 2, 0.65), "preempted", "its node was lost")
    again = start(replace(fifth, attempt=2, known_epochs=2))
    epochs(again, 3, 3, 0.65)
    start(make_spec(2, "plain"))


class Heard(TrialCallback):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        self.events.append((spec.trial_id, spec.attempt, "started"))

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        self.events.append((spec.trial_id, spec.attempt, epoch.epoch))

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        seconds = end.charge.worker_seconds
        self.events.append((spec.trial_id, spec.attempt, end.state, end.reason, seconds))

    @property
    def ends(self) -> list[tuple[Any, ...]]:
        """Trial, attempt, state and reason of what is over."""
        return [event[:4] for event in self.events if len(event) == 5]


def one_stage(*stages: Stage) -> Iterator[Stage]:
    """Stages that follow each other."""
    yield from stages
