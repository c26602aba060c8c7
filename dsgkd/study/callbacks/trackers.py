"""The figures of trials for TensorBoard, MLflow and Weights & Biases, each if it is asked for.

Each attempt at a trial is one run: its settings, the losses and validation measures of every
epoch, and how it ended. Nothing else leaves: no text, no name or path of a file of notes, no
reason of a failure (which may name a file), no test figure, and models that lie in a folder appear
as `local-` and a hash. The ledger is the truth; trackers are a view, and a tracker that fails is
switched off.
"""

import atexit
import hashlib
import math
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dsgkd.errors import InputError
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.callbacks.services import SERVICES, Figures, Sent, Service
from dsgkd.study.console import Console
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.spec import TrialSpec
from dsgkd.study.status.hyperparameters import leaves

PATIENCE = 20.0
"""Seconds that the end of a study waits for trackers to take what they were given."""


def trackers(
    names: tuple[str, ...], folder: Path, study: str, console: Console
) -> list[TrialCallback]:
    """Return a callback for each tracker that is named.

    Args:
        names: of `tensorboard`, `mlflow`, `wandb`.
        folder: the study's; what stays on this machine is kept in it.
        study: its name, which trackers see.
        console: takes what is to be said.

    Raises:
        InputError: a name is unknown, or the package is not installed.
    """
    found: list[TrialCallback] = []
    for name in dict.fromkeys(names):
        if name not in SERVICES:
            known = ", ".join(SERVICES)
            raise InputError("tracker", f"'{name}' unknown", f"choose of {known}")
        try:
            service, where = SERVICES[name](folder, study)
        except ImportError as error:
            raise InputError(
                f"tracker {name}", "not installed", f"pip install 'dsgkd[{name}]'"
            ) from error
        except Exception as error:  # a server that does not answer, for instance
            console.warn(f"{name} is switched off: {type(error).__name__}; the study goes on")
            continue
        console.print(f"{name}: {where}")
        found.append(TrackerWorker(name, service, console))
    return found


class TrackerWorker(TrialCallback):
    """Hands a study's events to a tracker, in a thread of its own.

    A server that does not answer holds up nothing, and the first error ends it.

    Args:
        name: of the tracker.
        service: who gets the events.
        console: takes what is to be said.
    """

    def __init__(self, name: str, service: Service, console: Console) -> None:
        self._name, self._service, self._console = name, service, console
        self._runs: dict[tuple[str, int], Any] = {}
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._off = False
        self._thread = threading.Thread(target=self._work, name=f"dsgkd-{name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def on_start(self, spec: TrialSpec, at: datetime) -> None:
        """Begin a run."""
        key, settings = (spec.trial_id, spec.attempt), settings_to_send(spec)

        def begin() -> None:
            if key not in self._runs:
                self._runs[key] = self._service.open(str(spec), settings)

        self._add(begin)

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Send what an epoch brought."""
        key, figures = (spec.trial_id, spec.attempt), figures_to_send(epoch)
        self._add(lambda: self._service.log(self._runs[key], epoch.epoch, figures))

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """End the run."""
        key = (spec.trial_id, spec.attempt)
        self._add(lambda: self._service.close(self._runs.pop(key), end.state))

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until everything was taken, but not for ever; called when the process ends too."""
        atexit.unregister(self.close)
        self._waiting.put(None)
        self._thread.join(patience)
        if self._thread.is_alive() and not self._off:
            self._off = True
            self._console.warn(f"{self._name} did not take all figures within {patience:g} s")

    def _add(self, job: Callable[[], None]) -> None:
        if not self._off:
            self._waiting.put(job)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                if not self._off:
                    job()
            except BaseException as error:  # some packages leave with SystemExit
                self._off = True
                # Only the kind of error: a message may quote an address with a key in it.
                kind = type(error).__name__
                self._console.warn(f"{self._name} is switched off: {kind}; the study goes on")


def settings_to_send(spec: TrialSpec) -> Sent:
    """Return what a tracker is told of a trial before it runs."""
    sent: Sent = {"method": spec.method, "stage": spec.stage, "workers": spec.workers}
    for section, name, value in leaves(asdict(spec.run)):
        label = f"{section}.{name}" if section else name
        if isinstance(value, str) and name in ("teacher", "model"):
            sent[label] = _model(value)
        elif isinstance(value, bool | int | float | str):
            sent[label] = value
        elif isinstance(value, tuple | list):
            sent[label] = ",".join(map(str, value))
    return sent


def _model(name: str) -> str:
    """The name of a model, or a hash of where it lies: it may give a hospital's away."""
    path = name.removeprefix(CORPUS_PREFIX)
    if path != name or os.path.isabs(path) or os.path.exists(path):
        return f"local-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    return name


def figures_to_send(epoch: EpochFinished) -> Figures:
    """Return an epoch's losses and validation measures; what is no number is left out."""
    figures = {"train/loss": epoch.loss}
    figures |= {f"train/loss_{term}": value for term, value in epoch.weighted.items()}
    figures |= {f"validation/{name}": value for name, value in epoch.validation.items()}
    figures |= {n: getattr(epoch, n) for n in ("examples_per_second", "seconds")}
    return {n: float(v) for n, v in figures.items() if v is not None and math.isfinite(v)}
