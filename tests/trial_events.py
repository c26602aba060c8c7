"""Trials that never ran: their specs, their reports, and what callbacks are told of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dsgkd.data.sources import DataConfig
from dsgkd.distillation.distiller import DistillationConfig
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.study.dispatcher import TrialCallback
from dsgkd.study.trial import Report, TrialSpec
from dsgkd.tasks.measures import MEASURES
from dsgkd.training.run import OptimisationConfig, RunConfig

EPOCHS = 4


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
        "store": StoreConfig(),
        "ledger": "/studies/one/ledger",
        "scratch": "/studies/one/tune",
        "keep_model": False,
    }
    return TrialSpec(**settings | changes)


def make_report(
    spec: TrialSpec, epoch: int, score: float = 0.5, seconds: float | None = None, **changes: Any
) -> Report:
    seconds = 10.0 * epoch if seconds is None else seconds
    result = {
        "epoch": epoch,
        "step": 7 * epoch,
        "train": {"loss": 1.0, "loss_ce": 0.6, "loss_hidden": 0.4, "loss_attention": 0.0},
        "validation": dict.fromkeys(MEASURES, 0.25) | {"auroc": score},
        "threshold": 0.5,
        "examples_per_second": 100.0,
        "seconds": 9.0,
        "evaluation_seconds": 1.0,
        "best_epoch": epoch,
        "best_objective": score,
        "finished": epoch == EPOCHS,
    }
    report = {
        "epoch": epoch,
        "score": score,
        "best_score": score,
        "ms_per_note": 1.0,
        "result": result,
        "done": epoch == EPOCHS,
        "teacher_store": "hit" if spec.run.distillation.teacher else None,
        "worker_seconds": seconds * spec.workers,
        "gpu_seconds": seconds * spec.workers * spec.gpus_per_worker,
        "peak_rss_mb": 100.0,
        "peak_gpu_mb": 0.0,
    }
    return report | changes


NOTHING: Report = {
    "epoch": 0,
    "score": None,
    "worker_seconds": 1.0,
    "gpu_seconds": 0.0,
    "peak_rss_mb": None,
    "peak_gpu_mb": None,
}
"""Of an attempt that ended before its first epoch."""


def play(callbacks: Sequence[TrialCallback]) -> None:
    """A search with every end that there is; two trials are left running."""

    def epochs(spec: TrialSpec, first: int, last: int, score: float) -> Report:
        for epoch in range(first, last + 1):
            seconds = 10.0 * (epoch - spec.known_epochs)
            report = make_report(spec, epoch, score + 0.01 * epoch, seconds)
            for callback in callbacks:
                callback.reported(spec, report)
        return report

    def start(spec: TrialSpec) -> TrialSpec:
        for callback in callbacks:
            callback.started(spec)
        return spec

    def end(spec: TrialSpec, report: Report, state: str, reason: str = "") -> None:
        for callback in callbacks:
            callback.ended(spec, report, state, reason)

    first, second = start(make_spec(0)), start(make_spec(0, "plain"))
    epochs(first, 1, 1, 0.7)
    end(second, epochs(second, 1, EPOCHS, 0.6), "complete")
    end(first, epochs(first, 2, EPOCHS, 0.7), "complete")
    third, fourth = start(make_spec(1)), start(make_spec(1, "plain"))
    end(third, epochs(third, 1, 1, 0.3), "pruned", "below the others after epoch 1")
    end(fourth, NOTHING, "failed", "the loss is not finite in epoch 1")
    fifth = start(make_spec(2, workers=2, gpus_per_worker=0.5))
    end(fifth, epochs(fifth, 1, 2, 0.65), "preempted", "its node was lost")
    again = start(replace(fifth, attempt=2, known_epochs=2))
    epochs(again, 3, 3, 0.65)
    start(make_spec(2, "plain"))
