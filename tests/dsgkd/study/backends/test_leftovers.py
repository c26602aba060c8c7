"""Nothing is left of trials that failed or were stopped."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from matrix import descendants
from ray.util import placement_group_table
from trial_events import one_stage

from dsgkd.study.backends.ray_train import RayTrainBackend
from dsgkd.study.backends.tune import TuneBackend
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.config import ClusterConfig
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.messages import TrialFailed
from dsgkd.study.spec import PlannedTrial
from dsgkd.study.stages import spec_of
from dsgkd.study.trial import trial_steps
from dsgkd.training.workers import Workers

pytestmark = pytest.mark.ray


def left():
    """Placement groups that hold something, CPUs in use, and processes of trials."""
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    in_use = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0.0)
    # Ray keeps a few processes for the next task; they are called IDLE.
    names = [process_name(pid) for pid in descendants(os.getpid())]
    ours = ("TrialActor", "RayTrainWorker", "DistributedTrial", "TrainController", "EpochBarrier")
    trials = [name for name in names if name.startswith("ray::") and any(o in name for o in ours)]
    return len(groups), in_use, len(trials)


def process_name(pid):
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return command.replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("workers", [1, 2])
def test_failed_and_stopped_trials_leave_no_processes_groups_or_folders(
    local_ray, make_study, make_config, workers
):
    config = make_study("stopped", cluster=ClusterConfig(workers_per_trial=workers))
    manifest, run = StudyManifest(config), make_config(teacher="teacher")
    before = left()
    counts, states = [], []
    planned = [PlannedTrial("search", "mlkd", name, run) for name in ("fails", "slow")]
    specs = iter([replace(spec_of(config, manifest, one), study_id="s") for one in planned])

    def steps(spec):
        if spec.trial_id == "fails" and Workers.current().rank == workers - 1:
            # Where there are two, the other one waits for this one and would wait for ever.
            yield TrialFailed(reason="out of luck")
        else:
            yield from trial_steps(spec)

    class Watch(TrialCallback):
        def on_epoch(self, spec, epoch, charge):
            counts.append(left())

        def on_end(self, spec, end):
            states.append((spec.trial_id, end.last.epoch if end.last else 0, end.state))

    stage = Stage("search", specs, callbacks=[Watch()], should_stop=lambda spec: True)
    kind = TuneBackend if workers == 1 else RayTrainBackend
    kind({"cpu": 1}, 1, config.scratch / "tune", steps).run(Dispatcher(one_stage(stage)))
    assert states == [("fails", 0, "failed"), ("slow", 1, "pruned")]
    # The count can fail: while the second trial runs, something is there.
    _, cpus, processes = counts[-1]
    assert cpus >= workers
    assert processes >= 1
    deadline = time.monotonic() + 60
    while left() != before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left() == before
    folder = config.location.folder
    assert not (folder / "tune").exists()
    # It trained no further than it was asked to: there are no predictions, no ledger.
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        "best.safetensors",
        "last.safetensors",
    }
