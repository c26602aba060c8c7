"""The fault matrix: studies that are struck at random moments, and what becomes of them.

    python tests/faults/matrix.py --studies 4 --strikes 5 --out faults.json [--only driver,flush]

Each study of `drill.py` is struck at several random moments, goes on after each, and in the end its
ledger is compared with that of a study that nobody disturbed: every trial finished exactly once,
with the same decisions, the same predictions and the same figures to the last bit. Faults:

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
"""How many occasions an undisturbed study has, about."""

Strike = Callable[[Bench, Driver, str], bool]
"""Does something to a running study; whether it came to it."""


def kill_driver(bench: Bench, driver: Driver, name: str) -> bool:
    return _kill(driver.pid)


def terminate_driver(bench: Bench, driver: Driver, name: str) -> bool:
    return _kill(driver.pid, signal.SIGTERM)


def kill_head(bench: Bench, driver: Driver, name: str) -> bool:
    # Ray puts its processes into groups of their own, so they are found by their ancestry.
    for pid in [driver.pid, *descendants(driver.pid)]:
        _kill(pid)
    return True


def kill_worker(bench: Bench, driver: Driver, name: str) -> bool:
    """Kill a process that trains, at a random moment after one was there."""
    noted, deadline = bench.folder / f"{name}.pids", time.monotonic() + LIMIT

    def living() -> list[int]:
        pids = noted.read_text().split() if noted.exists() else []
        return [pid for pid in dict.fromkeys(map(int, reversed(pids))) if _lives(pid)][:2]

    while driver.poll() is None and time.monotonic() < deadline:
        if living():
            time.sleep(bench.draw.uniform(0, 3.0))
            if (there := living()) and _kill(bench.draw.choice(there)):
                return True
        time.sleep(0.05)
    return False


def _later(bench: Bench, driver: Driver, name: str) -> bool:
    """Wait for some more rows of the ledger, and then a random moment; whether it still runs."""
    rows = len(list(bench.trials(name).glob("[a-z]*-*.parquet")))
    if not bench.wait_for_rows(driver, name, rows + bench.draw.randint(1, 2)):
        return False
    time.sleep(bench.draw.uniform(0, 1.0))
    return driver.poll() is None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid: int, number: int = signal.SIGKILL) -> bool:
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
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


def drill(bench: Bench, kind: str, number: int, strike: Strike | None, strikes: int) -> dict:
    """Strike one study several times, and return what became of it.

    Args:
        bench: where.
        kind: of fault.
        number: of the study.
        strike: what is done from outside; None: a process of the study strikes itself.
        strikes: how often.
    """
    workers = 2 if kind == "train" else 1
    expected = bench.reference(workers)
    name, alone, fault = f"{kind}-{number:02d}", kind == "head", ""
    if strike is None:
        chosen = bench.draw.sample(range(1, OCCASIONS[kind]), strikes)
        fault = f"{kind}:{','.join(map(str, chosen))}"
    began, struck, codes, hung = time.monotonic(), 0, [], False
    while len(codes) < 2 * strikes + 2 and (not codes or codes[-1] != 0):
        driver = bench.start(name, workers, fault, alone)
        while strike and struck < strikes and _later(bench, driver, name):
            struck += strike(bench, driver, name)
            if kind in ("driver", "head", "term"):
                break
        code = driver.wait(LIMIT)
        if code is None:
            hung = True
            _kill(driver.pid)
            code = driver.wait(LIMIT)
        codes.append(code)
    if strike is None:
        noted = bench.folder / f"{name}.struck"
        struck = len(noted.read_text().split()) if noted.exists() else 0
    result = {
        "fault": kind,
        "study": number,
        "struck": struck,
        "codes": codes,
        "hung": hung,
        "ended": codes[-1] == 0,
        "tracebacks": codes.count(1),
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
def cluster(bench: Bench, kind: str = "") -> Iterator[object]:
    """A Ray cluster that outlives drivers; for `node`, trials run beside the head only."""
    from ray.cluster_utils import Cluster

    temporary = tempfile.mkdtemp(prefix="r")
    head = {"num_cpus": 0 if kind == "node" else 3, "temp_dir": temporary}
    # Without a dashboard Ray leaks the placement groups of killed trials of several workers.
    head["include_dashboard"] = kind == "train"
    if kind == "train":
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
        (node,) = ray_cluster.worker_nodes
        ray_cluster.remove_node(node, allow_graceful=False)
        ray_cluster.add_node(num_cpus=2)
        return True

    return strike


STRIKES: dict[str, Strike | None] = {
    "driver": kill_driver,
    "head": kill_head,
    "worker": kill_worker,
    "train": kill_worker,
    "node": None,  # replaced where there is a cluster with nodes
    "flush": None,
    "checkpoint": None,
    "full-flush": None,
    "full-checkpoint": None,
    "term": terminate_driver,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4, help="for each fault")
    parser.add_argument("--strikes", type=int, default=5, help="in each study")
    parser.add_argument("--only", default=",".join(STRIKES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    kinds = flags.only.split(",")
    results: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        bench = Bench(Path(folder), flags.seed)
        for kind in kinds:
            with cluster(bench, kind) as ray_cluster:
                strike = STRIKES[kind]
                if kind == "node":
                    ray_cluster.add_node(num_cpus=2)
                    strike = remove_node(ray_cluster)
                for number in range(flags.studies):
                    results.append(drill(bench, kind, number, strike, flags.strikes))
                    print(json.dumps(results[-1]), flush=True)
                    if flags.out:
                        flags.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def table(results: list[dict]) -> str:
    """Return the outcomes by fault, as Markdown."""
    lines = [
        "| fault | strikes | studies | ended | ledger identical | attempts cut off | tracebacks | "
        "hung |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(result["fault"] for result in results):
        rows = [result for result in results if result["fault"] == kind]
        sums = {
            key: sum(int(row.get(key) or 0) for row in rows)
            for key in ("struck", "ended", "identical", "cut_off", "tracebacks", "hung")
        }
        lines.append(
            f"| {kind} | {sums['struck']} | {len(rows)} | {sums['ended']} | {sums['identical']} | "
            f"{sums['cut_off']} | {sums['tracebacks']} | {sums['hung']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
