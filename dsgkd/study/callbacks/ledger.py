"""How do trials get into the ledger? One file an attempt in each table, replaced as it grows."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsgkd.ledger import Ledger
from dsgkd.study.objectives import judged
from dsgkd.study.trial import Report, TrialSpec
from dsgkd.tasks.measures import MEASURES


class LedgerCallback:
    """Writes the rows of `trials` and `metrics` while trials run.

    Args:
        ledger: where to.
        names: objectives and constraints whose values a trial's row keeps.
    """

    def __init__(self, ledger: Ledger, names: Sequence[str] = ()) -> None:
        self._ledger, self._names = ledger, names
        self._trials: dict[str, dict[str, Any]] = {}
        self._metrics: dict[str, list[dict[str, Any]]] = {}

    def started(self, spec: TrialSpec) -> None:
        """Write the trial's row."""
        self._trials[spec.trial_id] = _trial_row(spec)
        self._metrics[spec.trial_id] = []
        self._write_trial(spec)

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Write an epoch's rows, and on the last report those of the other splits."""
        row, result = self._trials[spec.trial_id], report.get("result")
        rows = self._metrics[spec.trial_id]
        row |= {name: report[name] for name in _COSTS}
        if result is not None:
            values = judged(report) | {spec.run.selection.objective: result["best_objective"]}
            row |= {
                "epochs_done": result["epoch"],
                "best_epoch": result["best_epoch"],
                "objective": result["best_objective"],
                "objectives": {
                    name: values[name]
                    for name in self._names
                    if math.isfinite(values.get(name, math.nan))
                },
                "teacher_store": report["teacher_store"],
            }
            rows += _epoch_rows(spec, result)
        if "test" in report.get("tested", {}):
            rows.append(_key(spec) | {"split": "test"} | report["tested"]["test"])
        if self._metrics[spec.trial_id]:
            self._ledger.write("metrics", self._metrics[spec.trial_id], str(spec))
        self._write_trial(spec)

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        """Write how the attempt ended."""
        self._trials[spec.trial_id] |= {
            **{name: report[name] for name in _COSTS},
            "state": state,
            "reason": reason or None,
            "ended_at": datetime.now(UTC),
        }
        self._write_trial(spec)
        self._ledger.seal(str(spec))
        del self._trials[spec.trial_id], self._metrics[spec.trial_id]

    def _write_trial(self, spec: TrialSpec) -> None:
        self._ledger.write("trials", [self._trials[spec.trial_id]], str(spec))


_COSTS = ("worker_seconds", "gpu_seconds", "peak_rss_mb", "peak_gpu_mb")


def _key(spec: TrialSpec) -> dict[str, Any]:
    return {"study_id": spec.study_id, "trial_id": spec.trial_id, "attempt": spec.attempt}


def _trial_row(spec: TrialSpec) -> dict[str, Any]:
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
        "started_at": datetime.now(UTC),
        "epochs_done": spec.known_epochs,
        "checkpoint": "/".join(Path(spec.folder).parts[-2:]),
        "parameters": spec.parameters,
        "configuration": json.loads(json.dumps(asdict(run), default=str)),
    }


def _epoch_rows(spec: TrialSpec, result: dict[str, Any]) -> list[dict[str, Any]]:
    key = _key(spec) | {"epoch": result["epoch"], "step": result["step"]}
    train = {
        "split": "train",
        "examples_per_second": result["examples_per_second"],
        "seconds": result["seconds"],
    }
    measured = {name: result["validation"][name] for name in MEASURES}
    validation = {
        "split": "validation",
        "threshold": result["threshold"],
        "seconds": result["evaluation_seconds"],
    }
    return [key | train | result["train"], key | validation | measured]
