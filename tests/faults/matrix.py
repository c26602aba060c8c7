"""What does a study survive? Faults at random moments, and what became of the study.

    python tests/faults/matrix.py --points 20 --out docs/faults.json [--only driver,flush]

Every point runs the study of `drill.py`, strikes once, resumes it where it ended, and compares its
ledger with that of a study that nobody disturbed: every trial finished exactly once, with the same
decisions, the same weights' predictions and the same figures to the last bit. Faults:

    driver      SIGKILL of the driver, the cluster lives on
    head        SIGKILL of the driver and of every process of its Ray, as when the head is lost
    worker      SIGKILL of the process that trains
    train       the same, of one of two Ray Train workers
    node        the node on which a trial runs is removed, another one joins
    flush       SIGKILL of the driver in the middle of writing the ledger
    checkpoint  SIGKILL of the training process in the middle of writing a checkpoint
    full-flush, full-checkpoint   the disk is full there
    term        SIGTERM to the driver, as schedulers send before they take a machine away
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]

import rig  # noqa: E402
from drill import drive  # noqa: E402

LIMIT = 240.0
"""Seconds after which a driver is taken to hang."""


# Drivers are forked from a process that has imported everything and started nothing.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["drill"])


class Driver:
    """A process that runs a study."""

    def __init__(self, *arguments: object) -> None:
        self._process = FORKS.Process(target=drive, args=arguments)
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """Return the exit code; None: it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int | None:
        """Return the exit code; None: it runs on after so many seconds."""
        self._process.join(seconds)
        return self._process.exitcode


class Bench:
    """A folder with an undisturbed study to compare with, and drivers that are started in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw, self.address = folder, random.Random(seed), "local"
        self.references: dict[int, dict] = {}

    def start(self, name: str, workers: int = 1, fault: str = "", alone: bool = False) -> Driver:
        """Start a driver; `alone`: with a Ray of its own."""
        return Driver(self.folder, name, "local" if alone else self.address, workers, fault)

    def reference(self, workers: int) -> dict:
        """Return what an undisturbed study's ledger says."""
        if workers not in self.references:
            name = f"reference-{workers}"
            driver = self.start(name, workers)
            assert driver.wait(LIMIT * 3) == 0, (self.folder / f"{name}.log").read_text()
            self.references[workers] = rig.outcome(self.folder, name)
        return self.references[workers]

    def trials(self, name: str) -> Path:
        """Return the folder in which the ledger's rows of trials appear."""
        return self.folder / "studies" / name / "ledger" / "trials"

    def wait_for_rows(self, driver: Driver, name: str, count: int) -> bool:
        """Wait until the ledger has so many attempts; whether the driver still runs then."""
        deadline = time.monotonic() + LIMIT
        while driver.poll() is None and time.monotonic() < deadline:
            if len(list(self.trials(name).glob("[a-z]*-*.parquet"))) >= count:
                return True
            time.sleep(0.02)
        return False


OCCASIONS = {"flush": 110, "full-flush": 110, "checkpoint": 20, "full-checkpoint": 20}
"""How many occasions the study has, about; a point that comes too late does not strike."""

Strike = Callable[[Bench, Driver, str], bool]
"""Does something to a running study; whether it came to it."""


def kill_driver(bench: Bench, driver: Driver, name: str) -> bool:
    return _later(bench, driver, name) and _kill(driver.pid)


def terminate_driver(bench: Bench, driver: Driver, name: str) -> bool:
    return _later(bench, driver, name) and _kill(driver.pid, signal.SIGTERM)


def kill_head(bench: Bench, driver: Driver, name: str) -> bool:
    if not _later(bench, driver, name):
        return False
    # Ray puts its processes into groups of their own, so they are found by their ancestry.
    for pid in [driver.pid, *_descendants(driver.pid)]:
        _kill(pid)
    return True


def kill_worker(bench: Bench, driver: Driver, name: str) -> bool:
    if not _later(bench, driver, name):
        return False
    pids = [int(line) for line in (bench.folder / f"{name}.pids").read_text().split()]
    living = [pid for pid in dict.fromkeys(reversed(pids)) if Path(f"/proc/{pid}").exists()]
    return bool(living) and _kill(living[0])


def nothing(bench: Bench, driver: Driver, name: str) -> bool:
    """The driver, or a worker, strikes itself."""
    driver.wait(LIMIT)
    return (bench.folder / f"{name}.fault").exists()


def _later(bench: Bench, driver: Driver, name: str) -> bool:
    """Wait for a random row of the ledger, and then a random moment."""
    if not bench.wait_for_rows(driver, name, bench.draw.randint(1, 8)):
        return False
    time.sleep(bench.draw.uniform(0, 1.0))
    return driver.poll() is None


def _kill(pid: int, number: int = signal.SIGKILL) -> bool:
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in children.get(parent, [])]
        found += front
    return found


def drill(bench: Bench, kind: str, point: int, strike: Strike) -> dict:
    """Run one point, and return what became of it."""
    workers = 2 if kind == "train" else 1
    expected = bench.reference(workers)
    name = f"{kind}-{point:02d}"
    fault = ""
    if strike is nothing:
        fault = f"{kind}:{bench.draw.randint(1, OCCASIONS[kind])}"
    alone = kind == "head"
    began = time.monotonic()
    driver = bench.start(name, workers, fault, alone)
    struck = strike(bench, driver, name)
    codes, hung = [], False
    for start in range(6):
        code = driver.wait(LIMIT)
        if code is None:
            hung = True
            _kill(driver.pid)
            code = driver.wait(LIMIT)
        codes.append(code)
        if code == 0 or start == 5:
            break
        driver = bench.start(name, workers, fault, alone)
    result = {
        "fault": kind,
        "point": point,
        "struck": struck,
        "starts": len(codes),
        "codes": codes,
        "hung": hung,
        "ended": codes[-1] == 0,
        "seconds": round(time.monotonic() - began, 1),
    }
    try:
        result["identical"] = rig.outcome(bench.folder, name) == expected
        result["cut_off"] = rig.attempts(bench.folder, name)
    except Exception as error:
        result |= {"identical": False, "error": f"{type(error).__name__}: {error}"[:300]}
    if result["identical"] and result["ended"]:
        shutil.rmtree(bench.folder / "studies" / name)
    return result


@contextmanager
def cluster(bench: Bench, nodes: bool) -> Iterator[object]:
    """A Ray cluster that outlives drivers; with `nodes`, trials run beside the head only."""
    from ray.cluster_utils import Cluster

    temporary = tempfile.mkdtemp(prefix="r")
    head = {"num_cpus": 0 if nodes else 3, "include_dashboard": not nodes, "temp_dir": temporary}
    if not nodes:
        head |= {"dashboard_host": "127.0.0.1", "dashboard_port": 0}
    ray_cluster = Cluster(initialize_head=True, head_node_args=head)
    before, bench.address = bench.address, ray_cluster.address
    try:
        yield ray_cluster
    finally:
        bench.address = before
        ray_cluster.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


def remove_node(ray_cluster) -> Strike:
    def strike(bench: Bench, driver: Driver, name: str) -> bool:
        if not _later(bench, driver, name):
            return False
        (node,) = ray_cluster.worker_nodes
        ray_cluster.remove_node(node, allow_graceful=False)
        ray_cluster.add_node(num_cpus=2)
        return True

    return strike


STRIKES: dict[str, Strike] = {
    "driver": kill_driver,
    "head": kill_head,
    "worker": kill_worker,
    "train": kill_worker,
    "node": nothing,  # replaced where there is a cluster with nodes
    "flush": nothing,
    "checkpoint": nothing,
    "full-flush": nothing,
    "full-checkpoint": nothing,
    "term": terminate_driver,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--only", default=",".join(STRIKES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    kinds = flags.only.split(",")
    results: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        bench = Bench(Path(folder), flags.seed)
        for kind in kinds:
            with cluster(bench, nodes=kind == "node") as ray_cluster:
                strike = STRIKES[kind]
                if kind == "node":
                    ray_cluster.add_node(num_cpus=2)
                    strike = remove_node(ray_cluster)
                for point in range(flags.points):
                    results.append(drill(bench, kind, point, strike))
                    print(json.dumps(results[-1]), flush=True)
                    if flags.out:
                        flags.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def table(results: list[dict]) -> str:
    """Return the outcomes by fault, as Markdown."""
    lines = [
        "| fault | points | struck | ended | ledger identical | trials cut off | hung |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(result["fault"] for result in results):
        rows = [result for result in results if result["fault"] == kind]
        counts = Counter()
        for row in rows:
            counts.update(
                {key: int(bool(row.get(key))) for key in ("struck", "ended", "identical", "hung")}
            )
        cut = sum(row.get("cut_off", 0) for row in rows)
        lines.append(
            f"| {kind} | {len(rows)} | {counts['struck']} | {counts['ended']} | "
            f"{counts['identical']} | {cut} | {counts['hung']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
