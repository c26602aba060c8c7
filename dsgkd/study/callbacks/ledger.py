"""The rows of trials and of their epochs in the ledger, written before anything is decided.

One file an attempt in each table, replaced as it grows.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from dsgkd.ledger import Ledger, without_paths
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded, TrialFinished
from dsgkd.study.objectives import judged, judged_epoch
from dsgkd.study.spec import LINK, TrialSpec

Row = dict[str, Any]


class LedgerCallback(TrialCallback):
    """Writes the rows of `trials` and `metrics` while trials run.

    Args:
        ledger: where to.
        names: objectives and constraints whose values a trial's row keeps.
        public: takes JSON values to what may be in a ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        names: Sequence[str] = (),
        public: Callable[[Any], Any] = without_paths,
    ) -> None:
        self._ledger, self._names, self._public = ledger, names, public
        self._trials: dict[str, Row] = {}
        self._metrics: dict[str, list[Row]] = {}

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Write the trial's row."""
        self._trials[spec.trial_id] = _trial_row(spec, self._public) | {"started_at": at}
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
            "stuck": epoch.stuck,
            "teacher_store": epoch.teacher_store,
        }
        if spec.stage != LINK:  # which has an objective of its own
            self._trials[spec.trial_id] |= {
                "objective": epoch.best_objective,
                "objectives": self._kept(values),
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
            if end.last is not None and spec.stage != LINK:
                best = {spec.run.selection.objective: end.last.best_objective}
                row["objectives"] = self._kept(judged(end) | best)
            if "test" in end.final.measured:
                test = _measured("test", end.final.measured["test"])
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


def _trial_row(spec: TrialSpec, public: Callable[[Any], Any]) -> Row:
    configuration = json.loads(json.dumps(asdict(spec.run), default=str))
    return _key(spec) | {
        "stage": spec.stage,
        "state": "running",
        "method": spec.method,
        "seed": spec.run.seed,
        "parent": spec.parent or None,
        "links": [link.key for link in spec.needs] or None,
        "workers": spec.workers,
        "epochs_done": spec.known_epochs,
        "checkpoint": "/".join(PurePosixPath(spec.folder).parts[-2:]),
        "settings": public(_settings(spec)),
        "parameters": public(spec.parameters),
        "configuration": public(configuration),
    }


def _settings(spec: TrialSpec) -> Row:
    """Return what tells trials apart, by the names that people search for."""
    run, distillation = spec.run, spec.run.distillation
    settings: Row = {"student": run.student.model, "head": run.student.head, "task": run.task.kind}
    if spec.key:
        settings["artefact"] = spec.key
    if distillation.teacher:
        settings |= {
            "teacher": distillation.teacher,
            "teacher_weights": distillation.teacher_weights,
            "layer_mapping": distillation.mapping,
            "criterion": distillation.hidden,
            "alpha": distillation.alpha,
            "beta": distillation.beta,
            "cs_max_len": distillation.max_transfer_words,
        }
    if len(run.transfer.sources) > 1:
        settings["mix"] = run.transfer.mix or ",".join(f"{s}=1" for s in run.transfer.sources)
    optimisation = run.optimisation
    return settings | {
        "encoder_lr": optimisation.encoder_lr,
        "classifier_lr": optimisation.classifier_lr,
        "batch_size": optimisation.batch_size,
    }


def _measured(split: str, measured: dict[str, float]) -> Row:
    others = {name: value for name, value in measured.items() if name != "loss"}
    return {"split": split, "loss": measured.get("loss"), "measures": others}


def _epoch_rows(spec: TrialSpec, epoch: EpochFinished) -> list[Row]:
    key = _key(spec) | {"epoch": epoch.epoch, "step": epoch.step}
    train = {
        "split": "train",
        "loss": epoch.loss,
        "raw": epoch.raw,
        "weighted": epoch.weighted,
        "share": epoch.share,
        "examples_per_second": epoch.examples_per_second,
        "seconds": epoch.seconds,
    }
    validation = _measured("validation", epoch.validation) | {"seconds": epoch.evaluation_seconds}
    return [key | train, key | validation]
