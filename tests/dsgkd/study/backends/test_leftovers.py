"""What is left of trials that failed or were stopped? Nothing."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from matrix import descendants
from ray.util import placement_group_table

from dsgkd.study.backends.tune import run_trials
from dsgkd.study.config import ClusterConfig
from dsgkd.study.dispatcher import Stage
from dsgkd.study.manifest import StudyManifest
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
    ours = ("TrialActor", "RayTrainWorker", "DistributedTrial", "TrainController", "Exchange")
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
    record = StudyManifest(config)
    run = make_config(teacher="teacher")
    before = left()
    counts, states = [], []
    specs = iter(
        replace(spec_of(config, record, "search", "mlkd", name, run), study_id="s")
        for name in ("fails", "slow")
    )

    def steps(spec):
        if spec.trial_id == "fails" and Workers.current().rank == workers - 1:
            # Where there are two, the other one waits for this one and would wait for ever.
            yield {"epoch": 0, "score": None, "failure": "out of luck", "done": True}
        else:
            yield from trial_steps(spec)

    class TrialCallback:
        def started(self, spec):
            pass

        def reported(self, spec, report):
            counts.append(left())

        def ended(self, spec, report, state, reason):
            states.append((spec.trial_id, report["epoch"], state))

    def stages():
        yield Stage(
            "search",
            lambda: next(specs, None),
            callbacks=[TrialCallback()],
            should_stop=lambda spec: True,
        )

    run_trials(stages(), workers, {"cpu": 1}, 1, config.folder / "tune", steps)
    assert states == [("fails", 0, "failed"), ("slow", 1, "pruned")]
    # The count can fail: while the second trial runs, something is there.
    _, cpus, processes = counts[-1]
    assert cpus >= workers
    assert processes >= 1
    deadline = time.monotonic() + 60
    while left() != before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left() == before
    assert not (config.folder / "tune").exists()
    # It trained no further than it was asked to: there are no predictions, no ledger.
    assert {path.name for path in config.folder.rglob("*") if path.is_file()} == {
        "best.safetensors",
        "last.safetensors",
    }
