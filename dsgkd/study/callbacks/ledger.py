"""The rows of trials and of their epochs in the ledger, written before anything is decided.

One file an attempt in each table, replaced as it grows.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from dsgkd.ledger import Ledger
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded, TrialFinished
from dsgkd.study.objectives import judged, judged_epoch
from dsgkd.study.spec import TrialSpec
from dsgkd.tasks.measures import MEASURES

Row = dict[str, Any]


class LedgerCallback(TrialCallback):
    """Writes the rows of `trials` and `metrics` while trials run.

    Args:
        ledger: where to.
        names: objectives and constraints whose values a trial's row keeps.
    """

    def __init__(self, ledger: Ledger, names: Sequence[str] = ()) -> None:
        self._ledger, self._names = ledger, names
        self._trials: dict[str, Row] = {}
        self._metrics: dict[str, list[Row]] = {}

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Write the trial's row."""
        self._trials[spec.trial_id] = _trial_row(spec) | {"started_at": at}
        self._metrics[spec.trial_id] = []
        self._write_trial(spec)

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Write an epoch's rows."""
        values = judged_epoch(epoch, charge) | {spec.run.selection.objective: epoch.best_objective}
        self._trials[spec.trial_id] |= _costs(charge) | {
            "peak_rss_mb": epoch.peak_rss_mb,
            "peak_gpu_mb": epoch.peak_gpu_mb,
            "epochs_done": epoch.epoch,
            "best_epoch": epoch.best_epoch,
            "objective": epoch.best_objective,
            "objectives": self._kept(values),
            "teacher_store": epoch.teacher_store,
        }
        self._metrics[spec.trial_id] += _epoch_rows(spec, epoch)
        self._write_metrics(spec)
        self._write_trial(spec)

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Write how the attempt ended, and what it measured on the test split."""
        row = self._trials[spec.trial_id]
        row |= _costs(end.charge) | end.peaks
        row |= {"state": end.state, "reason": end.reason or None, "ended_at": end.charge.at}
        if isinstance(end.final, TrialFinished):
            if end.last is not None:
                best = {spec.run.selection.objective: end.last.best_objective}
                row["objectives"] = self._kept(judged(end) | best)
            if "test" in end.final.measured:
                test = {"split": "test"} | _columns(end.final.measured["test"])
                self._metrics[spec.trial_id].append(_key(spec) | test)
                self._write_metrics(spec)
        self._write_trial(spec)
        self._ledger.seal(str(spec))
        del self._trials[spec.trial_id], self._metrics[spec.trial_id]

    def _kept(self, values: dict[str, float]) -> dict[str, float]:
        kept = {name: values.get(name, math.nan) for name in self._names}
        return {name: value for name, value in kept.items() if math.isfinite(value)}

    def _write_trial(self, spec: TrialSpec) -> None:
        self._ledger.write("trials", [self._trials[spec.trial_id]], str(spec))

    def _write_metrics(self, spec: TrialSpec) -> None:
        self._ledger.write("metrics", self._metrics[spec.trial_id], str(spec))


def _costs(charge: Charge) -> Row:
    return {"worker_seconds": charge.worker_seconds, "gpu_seconds": charge.gpu_seconds}


def _key(spec: TrialSpec) -> Row:
    return {"study_id": spec.study_id, "trial_id": spec.trial_id, "attempt": spec.attempt}


def _trial_row(spec: TrialSpec) -> Row:
    run = spec.run
    distils = bool(run.distillation.teacher)
    return _key(spec) | {
        "stage": spec.stage,
        "state": "running",
        "method": spec.method,
        "student": run.student.model,
        "teacher": run.distillation.teacher or None,
        "layer_mapping": run.distillation.mapping if distils else None,
        "criterion": run.distillation.form if distils else None,
        "alpha": run.distillation.alpha if distils else None,
        "beta": run.distillation.beta if distils else None,
        "cs_max_len": run.distillation.cs_max_len if distils else None,
        "encoder_lr": run.optimisation.encoder_lr,
        "classifier_lr": run.optimisation.classifier_lr,
        "batch_size": run.optimisation.batch_size,
        "seed": run.seed,
        "other": {"teacher_weights": run.distillation.teacher_weights} if distils else {},
        "workers": spec.workers,
        "epochs_done": spec.known_epochs,
        "checkpoint": "/".join(Path(spec.folder).parts[-2:]),
        "parameters": spec.parameters,
        "configuration": json.loads(json.dumps(asdict(run), default=str)),
    }


def _columns(measured: dict[str, float]) -> Row:
    return {name: value for name, value in measured.items() if name in (*MEASURES, "threshold")}


def _epoch_rows(spec: TrialSpec, epoch: EpochFinished) -> list[Row]:
    key = _key(spec) | {"epoch": epoch.epoch, "step": epoch.step}
    train = {
        "split": "train",
        "loss": epoch.loss,
        "examples_per_second": epoch.examples_per_second,
        "seconds": epoch.seconds,
    }
    validation = {"split": "validation", "seconds": epoch.evaluation_seconds}
    train |= {f"loss_{term}": value for term, value in epoch.weighted.items()}
    return [key | train, key | validation | _columns(epoch.validation)]
