"""One small study, run as its user would, and disturbed in a chosen way.

The study is sequential and seeded, so whatever happens to it, in the end its ledger has to say what
that of an undisturbed one says. Some faults come from outside (`matrix.py` kills drivers, workers
and nodes); these happen inside a process, at the N-th occasion:

    flush       SIGKILL of the driver at a system call that writes the ledger
    checkpoint  SIGKILL of the worker in the middle of writing a checkpoint
    full-flush, full-checkpoint   the disk is full there, once
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]

import ray  # noqa: E402
import rig  # noqa: E402

from dsgkd.cli.terminal import run_command, stop_on_sigterm  # noqa: E402
from dsgkd.study.study import Study  # noqa: E402
from dsgkd.study.trials.trial import trial_steps  # noqa: E402


def drive(folder: Path, name: str, address: str, workers: int, fault: str) -> None:
    """Be the driver of a study; its output goes to FOLDER/NAME.log, its workers' ids to NAME.pids.

    Args:
        folder: of the notes, models and studies.
        name: the study's; it is resumed if it was begun.
        address: of a Ray cluster; `local`: start one.
        workers: of a trial.
        fault: `KIND:N`, struck once in the study's life.
    """
    os.setsid()
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    kind, _, number = fault.partition(":")
    once = folder / f"{name}.fault"
    if kind in ("flush", "full-flush") and not once.exists():
        disturb_ledger(kind, int(number), once)
    begun = (folder / "studies" / name / "ledger").exists()
    config = rig.study_config(folder, name, resume=begun, workers=workers)
    pids = folder / f"{name}.pids"

    def steps(spec) -> Iterator[dict]:
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if kind in ("checkpoint", "full-checkpoint") and not once.exists():
            disturb_checkpoints(kind, int(number), once)
        yield from trial_steps(spec)

    def run() -> None:
        study = Study(config, steps=steps)
        study.check()
        local = {"num_cpus": 2, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
        stop_on_sigterm()  # as `ray_session` does
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
            # Two occasions in one call: before it and after it.
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
