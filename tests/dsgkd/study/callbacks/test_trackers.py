"""Trackers get the figures and nothing but the figures, and can do no harm."""

import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trial_events import EPOCHS, make_epoch, make_spec, play

from dsgkd.errors import InputError
from dsgkd.study.callbacks import services
from dsgkd.study.callbacks.trackers import (
    TrackerWorker,
    figures_to_send,
    settings_to_send,
    trackers,
)
from dsgkd.study.console import Console
from dsgkd.tasks.measures import MEASURES

SECRETS = (b"/secret", b"notes_of_patients", b"note_column", b"our_clinical_texts", b"/studies/")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def assert_nothing_is_told(folder: Path, pattern: str = "*") -> None:
    contents = [path.read_bytes() for path in folder.rglob(pattern) if path.is_file()]
    assert contents
    for secret in SECRETS:
        assert not any(secret in content for content in contents)


def tracked(name: str, folder: Path) -> list[str]:
    """Play the trials to a tracker; return what was said."""
    said: list[str] = []
    (feed,) = trackers((name,), folder, "demo", Console(said.append))
    assert isinstance(feed, TrackerWorker)
    play([feed])
    feed.close(60)
    return said


def records(path: Path) -> Iterator[bytes]:
    """The records of an event file: length, its checksum, the record, its checksum."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 16 + length


def test_tensorboard_has_every_figure_of_every_attempt(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    said = tracked("tensorboard", tmp_path)
    assert said == [f"tensorboard: tensorboard --logdir {tmp_path / 'tensorboard'}"]
    assert_nothing_is_told(tmp_path)
    runs = {path.parent.name: path for path in files(tmp_path / "tensorboard")}
    assert sorted(runs) == [
        *("search-mlkd-000-1", "search-mlkd-001-1", "search-mlkd-002-1", "search-mlkd-002-2"),
        *("search-plain-000-1", "search-plain-001-1", "search-plain-002-1"),
    ]
    figures: dict[str, dict[int, float]] = {}
    settings: dict[str, Any] = {}
    for record in records(runs["search-mlkd-000-1"]):
        event = Event.FromString(record)
        for value in event.summary.value:
            content = value.metadata.plugin_data.content
            if value.tag == "_hparams_/session_start_info":
                start = HParamsPluginData.FromString(content).session_start_info
                settings |= dict(start.hparams)
            elif not value.tag.startswith("_hparams_"):
                figures.setdefault(value.tag, {})[event.step] = value.simple_value
    assert figures["validation/auroc"] == pytest.approx({1: 0.71, 2: 0.72, 3: 0.73, 4: 0.74})
    assert figures["train/loss_hidden"][EPOCHS] == pytest.approx(0.4)
    assert settings["optimisation.encoder_lr"].number_value == 1e-4
    assert settings["state"].string_value == "complete"


def test_mlflow_has_every_figure_of_every_attempt(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    said = tracked("mlflow", tmp_path / "study")
    assert len(said) == 1
    assert_nothing_is_told(tmp_path)
    assert [path.name for path in files(tmp_path)] == ["runs.db"]

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/study/mlflow/runs.db")
    experiment = client.get_experiment_by_name("demo")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 7
    states = {name: (run.info.status, run.data.tags.get("state")) for name, run in runs.items()}
    assert states["search-mlkd-000-1"] == ("FINISHED", "complete")
    assert states["search-mlkd-001-1"] == ("FINISHED", "pruned")
    assert states["search-plain-001-1"] == ("FAILED", "failed")
    assert states["search-mlkd-002-1"] == ("KILLED", "preempted")
    assert states["search-mlkd-002-2"] == ("RUNNING", None)
    run = runs["search-mlkd-000-1"]
    assert set(run.data.tags) == {"mlflow.runName", "state"}
    assert run.data.params["distillation.alpha"] == "0.5"
    history = client.get_metric_history(run.info.run_id, "validation/auroc")
    steps = {one.step: one.value for one in history}
    assert steps == pytest.approx({1: 0.71, 2: 0.72, 3: 0.73, 4: 0.74})


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of a W&B file: blocks of 32 kB, in them parts with checksum, length and kind."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + 7 : at + 7 + length]
        record = part if kind in (1, 2) else record + part
        if kind in (1, 4):  # whole, or the last part
            yield record
        at += 7 + length


def test_wandb_keeps_every_figure_and_sends_nothing(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(tmp_path)
    said = tracked("wandb", tmp_path / "study")
    assert len(said) == 1
    assert "nothing is sent" in said[0]
    assert_nothing_is_told(tmp_path, "*.wandb")
    runs: dict[str, list[Any]] = {}
    for path in (tmp_path / "study" / "wandb").glob("offline-run-*/*.wandb"):
        found = [Record.FromString(record) for record in wandb_records(path)]
        begun = [one.run for one in found if one.WhichOneof("record_type") == "run"]
        if not begun:  # a run that was left running is written when the process ends
            continue
        run = begun[0]
        runs[run.display_name] = found
        assert run.project == "demo"
        assert run.host in ("", "-")
        assert not run.git.remote_url
        kinds = {one.WhichOneof("record_type") for one in found}
        assert not kinds & {"environment", "files", "output", "output_raw", "stats", "artifact"}
    assert len(runs) >= 5
    found = runs["search-mlkd-000-1"]
    history = [one.history for one in found if one.WhichOneof("record_type") == "history"]
    values = [
        {"".join(item.nested_key) or item.key: item.value_json for item in one.item}
        for one in history
    ]
    auroc = {int(one["_step"]): float(one["validation/auroc"]) for one in values}
    assert auroc == pytest.approx({1: 0.71, 2: 0.72, 3: 0.73, 4: 0.74})


def test_what_is_sent_is_settings_and_figures():
    spec = make_spec(3)
    spec = replace(spec, run=replace(spec.run, student=replace(spec.run.student, model="/tmp")))
    settings = settings_to_send(spec)
    assert settings["method"] == "mlkd"
    assert settings["optimisation.encoder_lr"] == pytest.approx(4e-4)
    assert str(settings["student.model"]).startswith("local-")
    assert str(settings["distillation.teacher"]).startswith("local-")
    assert "tmp" not in str(settings.values())
    for secret in SECRETS:
        assert secret.decode() not in str(settings)
    assert settings_to_send(make_spec(0, "plain"))["student.model"] == "tiny-ko"

    figures = figures_to_send(make_epoch(spec, 1, float("nan")))
    assert "validation/auroc" not in figures
    assert {f"validation/{name}" for name in MEASURES} - {"validation/auroc"} <= figures.keys()


class Broken:
    """A service that fails at its third call, and notes what it is asked."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def _call(self) -> None:
        self.calls += 1
        if self.calls >= 3:
            raise self.error

    def open(self, name: str, settings: dict) -> str:
        self._call()
        return name

    def log(self, run: str, epoch: int, figures: dict) -> None:
        self._call()

    def close(self, run: str, state: str) -> None:
        self._call()


@pytest.mark.parametrize("error", [RuntimeError("https://key@host"), SystemExit(1)])
def test_a_tracker_that_fails_is_switched_off_and_said_once(error):
    said: list[str] = []
    service = Broken(error)
    feed = TrackerWorker("fake", service, Console(said.append))
    play([feed])
    feed.close()
    assert service.calls == 3
    assert said == [
        f"WARNING: fake is switched off: {type(error).__name__}; the study goes on",
    ]


class Hanging(Broken):
    """A service that never answers."""

    def __init__(self) -> None:
        super().__init__(RuntimeError())
        self.released = threading.Event()

    def _call(self) -> None:
        self.released.wait(30)


def test_a_tracker_that_hangs_holds_up_nothing():
    said: list[str] = []
    service = Hanging()
    feed = TrackerWorker("fake", service, Console(said.append))
    began = time.monotonic()
    play([feed])
    feed.close(patience=0.2)
    assert time.monotonic() - began < 5
    assert said == ["WARNING: fake did not take all figures within 0.2 s"]
    service.released.set()


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(services.importlib, "import_module", missing)
    for name in services.SERVICES:
        with pytest.raises(InputError) as caught:
            trackers((name,), tmp_path, "demo", Console())
        expected = f"tracker {name}: not installed: pip install 'dsgkd[{name}]'"
        assert str(caught.value) == expected


def test_an_unknown_tracker_is_one_line(tmp_path):
    with pytest.raises(InputError, match="'comet' unknown: choose of tensorboard, mlflow, wandb"):
        trackers(("comet",), tmp_path, "demo", Console())


def test_a_service_that_cannot_be_made_is_switched_off(tmp_path, monkeypatch):
    def refuse(folder: Path, study: str) -> None:
        raise ConnectionError("https://key@host")

    monkeypatch.setitem(services.SERVICES, "mlflow", refuse)
    said: list[str] = []
    assert trackers(("mlflow",), tmp_path, "demo", Console(said.append)) == []
    assert said == ["WARNING: mlflow is switched off: ConnectionError; the study goes on"]


def test_nothing_is_imported_that_is_not_asked_for():
    code = (
        "import dsgkd.study.callbacks.trackers as t, pathlib, sys;"
        "t.trackers((), pathlib.Path(), '', t.Console());"
        "print(*{'mlflow', 'wandb'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
