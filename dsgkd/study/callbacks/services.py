"""The interfaces of TensorBoard, MLflow and Weights & Biases, imported when asked for."""

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Sent = dict[str, str | int | float | bool]
"""Settings of a run."""
Figures = dict[str, float]


class Service(Protocol):
    """Keeps runs of some service; may raise anything, and may take its time."""

    def open(self, name: str, settings: Sent) -> Any:
        """Begin a run and return what the service calls it."""
        ...

    def log(self, run: Any, epoch: int, figures: Figures) -> None:
        """Add an epoch's figures."""
        ...

    def close(self, run: Any, state: str) -> None:
        """End a run: `complete`, `pruned`, `failed` or `preempted`."""
        ...


class _BoardRun(NamedTuple):
    writer: Any
    settings: Sent
    last: Figures


class _TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = importlib.import_module("tensorboardX").SummaryWriter
        self._hparams = importlib.import_module("tensorboardX.summary").hparams

    def open(self, name: str, settings: Sent) -> _BoardRun:
        return _BoardRun(self._writer(logdir=str(self._folder / name)), settings, {})

    def log(self, run: _BoardRun, epoch: int, figures: Figures) -> None:
        for name, value in figures.items():
            run.writer.add_scalar(name, value, epoch)
        run.writer.flush()
        run.last.update(figures)

    def close(self, run: _BoardRun, state: str) -> None:
        # The table of settings shows beside them what each of these tags reached last. The
        # writer's own add_hparams opens a second file, of the same name within a second.
        for summary in self._hparams(run.settings | {"state": state}, run.last):
            run.writer.file_writer.add_summary(summary)
        run.writer.close()


class _MLflow:
    """Runs of one experiment, which is called like the study."""

    def __init__(self, where: str, study: str, artifacts: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        mlflow = importlib.import_module("mlflow")
        self._metric, self._param = mlflow.entities.Metric, mlflow.entities.Param
        self._client = mlflow.MlflowClient(tracking_uri=where)
        known = self._client.get_experiment_by_name(study)
        self._experiment = (
            known.experiment_id if known else self._client.create_experiment(study, artifacts)
        )

    def open(self, name: str, settings: Sent) -> str:
        run: str = self._client.create_run(self._experiment, run_name=name).info.run_id
        parameters = [self._param(key, str(value)) for key, value in settings.items()]
        self._client.log_batch(run, params=parameters)
        return run

    def log(self, run: str, epoch: int, figures: Figures) -> None:
        now = time.time_ns() // 1_000_000  # milliseconds
        metrics = [self._metric(name, value, now, epoch) for name, value in figures.items()]
        self._client.log_batch(run, metrics=metrics)

    def close(self, run: str, state: str) -> None:
        self._client.set_tag(run, "state", state)
        ends = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
        self._client.set_terminated(run, ends.get(state, "KILLED"))


class _WandB:
    """Runs of one project, which is called like the study."""

    def __init__(self, folder: Path, study: str, mode: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = importlib.import_module("wandb")
        self._folder, self._study, self._mode = folder, study, mode
        # By itself it would send the command line (which names the file of notes), the terminal's
        # output, the machine, the packages and the code.
        self._private = self._wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            host="-",
            username="-",
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )

    def open(self, name: str, settings: Sent) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._wandb.init(
            project=self._study,
            name=name,
            config=settings,
            dir=str(self._folder),
            mode=self._mode,
            reinit="create_new",
            settings=self._private,
        )

    def log(self, run: Any, epoch: int, figures: Figures) -> None:
        run.log(figures, step=epoch)

    def close(self, run: Any, state: str) -> None:
        run.summary["state"] = state
        run.finish(exit_code=0 if state in ("complete", "pruned") else 1)


def _tensorboard(folder: Path, study: str) -> tuple[Service, str]:
    place = folder / "tensorboard"
    return _TensorBoard(place), f"tensorboard --logdir {place}"


def _mlflow(folder: Path, study: str) -> tuple[Service, str]:
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return _MLflow(server, study, None), "settings and figures go to MLFLOW_TRACKING_URI"
    place = folder / "mlflow"
    place.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{place / 'runs.db'}"
    service = _MLflow(database, study, (place / "artifacts").as_uri())
    return service, f"mlflow ui --backend-store-uri {database} (of the package mlflow)"


def _wandb(folder: Path, study: str) -> tuple[Service, str]:
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "offline":
        where = f"kept in {folder / 'wandb'}; nothing is sent until you run wandb sync there"
    else:
        where = f"WANDB_MODE={mode}: settings and figures leave this machine"
    return _WandB(folder, study, mode), where


SERVICES: dict[str, Callable[[Path, str], tuple[Service, str]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
"""Name -> makes a service for a study's folder and name, and says where to look."""
