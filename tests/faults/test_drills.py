"""A few points of the fault matrix; `matrix.py` runs the whole of it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from matrix import LIMIT, STRIKES, Bench, cluster, drill, remove_node

# Drivers are started from a process that has started no Ray, which the other tests' has.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif("DSGKD_DRILLS" not in os.environ, reason="set DSGKD_DRILLS, run alone"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        bench = Bench(Path(folder), seed=3)
        with cluster(bench):
            bench.reference(1)
            yield bench


def assert_survived(result):
    assert result["struck"], result
    assert result["ended"], result
    assert not result["tracebacks"], result
    assert result["identical"], result


@pytest.mark.parametrize("kind", ["driver", "worker", "flush", "checkpoint", "full-checkpoint"])
def test_a_study_survives(bench, kind):
    assert_survived(drill(bench, kind, 0, STRIKES[kind], strikes=2))


def test_a_study_survives_the_loss_of_a_node(bench):
    with cluster(bench, "node") as nodes:
        nodes.add_node(num_cpus=2)
        assert_survived(drill(bench, "node", 0, remove_node(nodes), strikes=1))


def test_two_studies_on_one_cluster_do_not_touch_each_other(bench):
    drivers = {name: bench.start(name) for name in ("one", "other")}
    for name, driver in drivers.items():
        assert driver.wait(2 * LIMIT) == 0, (bench.folder / f"{name}.log").read_text()
    for name in drivers:
        assert rig.outcome(bench.folder, name) == bench.reference(1)


def test_a_study_that_runs_is_not_started_twice(bench):
    # At once, because a study of seconds can be over before a driver that comes later is there.
    drivers = [bench.start("alone") for _ in range(2)]
    codes = sorted(driver.wait(LIMIT) for driver in drivers)
    told = (bench.folder / "alone.log").read_text()
    assert codes == [0, 2], told
    assert "running already" in told
    assert rig.outcome(bench.folder, "alone") == bench.reference(1)
