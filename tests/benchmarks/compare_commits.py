"""Step times of this tree against those of another checkout of the project.

    git worktree add /tmp/before <commit>
    python tests/benchmarks/compare_commits.py --other /tmp/before           about ten minutes
    python tests/benchmarks/compare_commits.py --other /tmp/before --quick   to see that it works

Each tree trains in a process of its own, with one thread, on the same texts and models from the
same seeds, by its own `workload.arms_of` and `step_seconds`. The two take steps in turns, arm by
arm, so that what else the machine does meets both; a ratio is that of a round. Ends with 1 if one
is above the aim. `--cpu-time` counts the processor's time instead of the clock's, for a machine
that is shared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
AIM = 1.03
KINDS = ("plain", "hidden only stored", "stored", "live")
STEPS = 2
"""Steps of each arm in a round, after one that warms the caches up again; their mean counts."""


class Tree:
    """One checkout, and the process that trains in it."""

    def __init__(self, path: Path, request: dict[str, Any]) -> None:
        command = [sys.executable, __file__, "--worker", str(path), json.dumps(request)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its input is the end of the worker

    def ready(self) -> None:
        """Wait until its arms are made and warmed up."""
        self._answer()

    def seconds(self, kind: str) -> float:
        """Let one arm take steps; return the mean of their times."""
        assert self._process.stdin is not None
        print(kind, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended with {self._process.wait()}")
        return json.loads(line)


def work(path: Path, request: dict[str, Any]) -> None:
    """Take steps in one tree, with the arm that each line of the input names."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may be printed among the answers
    sys.path[:0] = [str(path), str(path / "tests" / "benchmarks"), str(path / "tests")]
    import torch
    import workload
    from workload import Setting, Shape, arms_of, step_seconds

    import dsgkd

    if request["cpu_time"]:
        workload.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]
    assert path.resolve() in Path(dsgkd.__file__).resolve().parents, dsgkd.__file__
    torch.set_num_threads(1)
    setting = Setting(Shape(*request["shape"]), request["batch"], request["bf16"])
    with arms_of(setting, request["arms"], request["batch"] * (STEPS + 1)) as arms:
        print("true", file=answers, flush=True)
        for line in sys.stdin:
            kind = line.strip()
            seconds = step_seconds({kind: arms[kind]}, STEPS + 1)[kind]
            print(statistics.mean(seconds[1:]), file=answers, flush=True)


def compare(other: Path, request: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each arm of one setting."""
    from harness import ratio

    arms = request["arms"]
    with ExitStack() as stack:
        paths = {"new": HERE.parents[1], "old": other}
        trees = {name: stack.enter_context(Tree(path, request)) for name, path in paths.items()}
        for tree in trees.values():
            tree.ready()
        found: dict[tuple[str, str], list[float]] = {(k, t): [] for k in arms for t in trees}
        order = list(trees)
        for _ in range(rounds):
            for kind in arms:
                for name in order:
                    found[kind, name].append(trees[name].seconds(kind))
            order.reverse()
    rows = []
    for kind in arms:
        new, old = found[kind, "new"], found[kind, "old"]
        rows.append(
            {
                "model": request["shape"][0],
                "batch": request["batch"],
                "precision": "bf16" if request["bf16"] else "fp32",
                "arm": kind,
                "new ms": statistics.median(new) * 1e3,
                "old ms": statistics.median(old) * 1e3,
                "new / old": ratio(new, old),
                "aim": f"<= {AIM}",
            }
        )
    return rows


def main(arguments: Sequence[str]) -> int:
    """Compare the two trees; return 1 where the new one is slower than the aim."""
    if arguments[:1] == ["--worker"]:
        work(Path(arguments[1]), json.loads(arguments[2]))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--other", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--batches", default="8,32", help="texts of a step, by comma")
    parser.add_argument("--arms", default=",".join(KINDS), help="kinds of training, by comma")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few rounds of a tiny model")
    parser.add_argument("--cpu-time", action="store_true", help="of the processor, not the clock")
    flags = parser.parse_args(arguments)
    sys.path[:0] = [str(HERE.parents[1]), str(HERE)]
    from harness import Section
    from run import show

    shape = ("tiny", 2, 64, 1) if flags.quick else ("mini", 4, 256, 4)
    rounds = 3 if flags.quick else flags.rounds
    common = {"shape": shape, "arms": flags.arms.split(","), "cpu_time": flags.cpu_time}
    rows = []
    for bf16 in (False, True):
        for batch in map(int, flags.batches.split(",")):
            request = common | {"batch": batch, "bf16": bf16}
            rows += compare(flags.other, request, rounds)
    slower = [row for row in rows if row["new / old"].median > AIM]
    notes = [
        f"aim <= {AIM}: {f'MISSED in {len(slower)} of {len(rows)}' if slower else 'all met'}",
        f"median and quartiles of {rounds} rounds of {STEPS} steps of each tree; "
        f"{'processor time' if flags.cpu_time else 'wall time'}; one thread each",
    ]
    show(Section(f"Steps of this tree over those of {flags.other}", rows, notes))
    return int(bool(slower))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
