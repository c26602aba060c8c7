"""What is left of trials that were stopped? Nothing."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from matrix import descendants
from ray.util import placement_group_table

from dsgkd.study.config import ClusterConfig
from dsgkd.study.study import Study
from dsgkd.study.trials.events import Stage
from dsgkd.study.trials.runner import run_trials

pytestmark = pytest.mark.ray


def left():
    """Placement groups that hold something, CPUs in use, and processes of trials."""
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    in_use = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0.0)
    # Ray keeps a few processes for the next task; they are called IDLE.
    names = [process_name(pid) for pid in descendants(os.getpid())]
    ours = ("TrialActor", "RayTrainWorker", "ImplicitFunc", "distributed_trial", "TrainController")
    trials = [name for name in names if name.startswith("ray::") and any(o in name for o in ours)]
    return len(groups), in_use, len(trials)


def process_name(pid):
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return command.replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("workers", [1])
def test_stopped_trials_leave_no_processes_groups_or_folders(
    local_ray, make_study, make_config, workers
):
    config = make_study("stopped", cluster=ClusterConfig(workers_per_trial=workers))
    study = Study(config)
    run = make_config(teacher="teacher")
    before = left()
    during = []
    specs = iter(
        [
            replace(study._spec("search", "mlkd", f"search-mlkd-00{i}", run), study_id="s")
            for i in range(3)
        ]
    )

    class Listener:
        def started(self, spec):
            pass

        def reported(self, spec, report):
            during.append(left())

        def ended(self, spec, report, state, reason):
            during.append(state)

    def stages():
        yield Stage(
            "search",
            lambda: next(specs, None),
            listeners=[Listener()],
            should_stop=lambda spec: True,
        )

    run_trials(stages(), workers, {"cpu": 1}, 1, config.folder / "tune")
    assert during.count("pruned") == 3
    # The count can fail: while a trial runs, something is there.
    assert all(counts[1] >= workers and counts[2] >= 1 for counts in during if counts != "pruned")
    deadline = time.monotonic() + 60
    while left() != before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left() == before
    assert not (config.folder / "tune").exists()
    assert {path.name for path in config.folder.rglob("*") if path.is_file()} == {
        "best.safetensors",
        "last.safetensors",
    }
