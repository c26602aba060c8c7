"""One small study, run as its user would, and disturbed in a chosen way.

    python tests/faults/drill.py FOLDER NAME [--resume] [--workers 2] [--fault KIND:N]

The study is sequential and seeded, so whatever happens to it, in the end its ledger has to say what
that of an undisturbed one says. KIND is what happens inside a process; `matrix.py` does the rest
(killing this process, workers and nodes) from outside:

    flush       SIGKILL of this process at the N-th step of writing the ledger
    checkpoint  SIGKILL of the worker in the middle of the N-th checkpoint
    full-flush, full-checkpoint   the disk is full there, once

Every training process writes its id into FOLDER/NAME.pids, so that it can be killed from outside.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fault", default="")
    flags = parser.parse_args()

    import ray
    from rig import study_config

    from dsgkd.cli.flags import run_command
    from dsgkd.study.study import Study

    kind, _, number = flags.fault.partition(":")
    once = flags.folder / f"{flags.name}.fault"
    if kind in ("flush", "full-flush") and not once.exists():
        disturb_ledger(kind, int(number), once)
    config = study_config(flags.folder, flags.name, flags.resume, flags.workers)
    pids = flags.folder / f"{flags.name}.pids"

    def steps(spec) -> Iterator[dict]:
        from dsgkd.study.trial import trial_steps

        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if kind in ("checkpoint", "full-checkpoint") and not once.exists():
            disturb_checkpoints(kind, int(number), once)
        yield from trial_steps(spec)

    def run() -> None:
        study = Study(config, steps=steps)
        study.check()
        address = os.environ.get("RAY_ADDRESS", "local")
        local = {"num_cpus": 2, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
        try:
            study.run()
        finally:
            ray.shutdown()

    run_command(run)


def disturb_ledger(kind: str, number: int, once: Path) -> None:
    """Count the system calls that write the ledger, and strike at the N-th."""
    calls = {"count": 0}

    def counted(name):
        original = getattr(os, name)

        def call(*arguments, **keywords):
            # Two calls in one: one can be struck before it and after it.
            for moment in ("before", "after"):
                calls["count"] += 1
                if calls["count"] == number:
                    once.touch()
                    if kind == "flush":
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(errno.ENOSPC, "No space left on device")
                if moment == "before":
                    result = original(*arguments, **keywords)
            return result

        setattr(os, name, call)

    for name in ("fsync", "replace"):
        counted(name)


def disturb_checkpoints(kind: str, number: int, once: Path) -> None:
    """Count the checkpoints of all workers in a file, and strike in the middle of the N-th."""
    import dsgkd.checkpoint as checkpoint

    save_file = checkpoint.save_file
    count = once.with_suffix(".count")

    def struck(tensors, path, metadata):
        save_file(tensors, path, metadata)
        with count.open("a") as file:
            file.write(".")
        if count.stat().st_size == number and not once.exists():
            once.touch()
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            if kind == "checkpoint":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    if checkpoint.save_file.__name__ != "struck":
        checkpoint.save_file = struck


if __name__ == "__main__":
    main()
