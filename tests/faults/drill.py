"""One small study, run as its user would, and disturbed in a chosen way.

The study is sequential and seeded, so whatever happens to it, in the end its ledger has to say what
that of an undisturbed one says. Some faults come from outside (`matrix.py` kills drivers, workers
and nodes); these happen inside a process, at chosen occasions of the study's life:

    flush       SIGKILL of the driver at a system call that writes the ledger
    checkpoint  SIGKILL of the worker in the middle of writing a checkpoint
    full-flush, full-checkpoint   the disk is full there
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
from ray import cloudpickle  # noqa: E402

from dsgkd.cli.terminal import run_command, stop_on_sigterm  # noqa: E402
from dsgkd.study.study import Study  # noqa: E402
from dsgkd.study.trial import trial_steps  # noqa: E402


def drive(folder: Path, name: str, address: str, workers: int, fault: str) -> None:
    """Be the driver of a study; its output goes to FOLDER/NAME.log, its workers' ids to NAME.pids.

    Args:
        folder: of the notes, models and studies.
        name: the study's; it is resumed if it was begun.
        address: of a Ray cluster; `local`: start one.
        workers: of a trial.
        fault: `KIND:N,N,...`, struck at the N-th occasions in the study's life; each strike is a
            line of NAME.struck.
    """
    os.setsid()
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    kind, _, numbers = fault.partition(":")
    occasions = Occasions(folder / name, [int(number) for number in numbers.split(",") if number])
    if kind in ("flush", "full-flush"):
        disturb_ledger(kind, occasions)
    begun = (folder / "studies" / name / "ledger").exists()
    config = rig.study_config(folder, name, resume=begun, workers=workers)
    pids = folder / f"{name}.pids"

    def steps(spec) -> Iterator[dict]:
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if kind in ("checkpoint", "full-checkpoint"):
            disturb_checkpoints(kind, occasions)
        yield from trial_steps(spec)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

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


class Occasions:
    """Counts occasions in a file, over all processes of a study, and says when to strike."""

    def __init__(self, study: Path, numbers: list[int]) -> None:
        self._count, self._struck = study.with_suffix(".count"), study.with_suffix(".struck")
        self._numbers = numbers

    def strike(self) -> bool:
        """Count one more; whether this is one to strike at."""
        with self._count.open("a") as file:
            file.write(".")
        if self._count.stat().st_size not in self._numbers:
            return False
        with self._struck.open("a") as file:
            file.write(f"{self._count.stat().st_size}\n")
        return True


def disturb_ledger(kind: str, occasions: Occasions) -> None:
    """Strike at system calls that write the ledger: before one, or after it."""

    def disturbed(name):
        original = getattr(os, name)

        def struck() -> None:
            if occasions.strike():
                if kind == "flush":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, "No space left on device")

        def call(*arguments, **keywords):
            struck()
            result = original(*arguments, **keywords)
            struck()
            return result

        setattr(os, name, call)

    for name in ("fsync", "replace"):
        disturbed(name)


def disturb_checkpoints(kind: str, occasions: Occasions) -> None:
    """Strike in the middle of writing a checkpoint."""
    import dsgkd.storage.checkpoint as checkpoint

    save_file = checkpoint.save_file

    def struck(tensors, path, metadata):
        save_file(tensors, path, metadata)
        if occasions.strike():
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            if kind == "checkpoint":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    if checkpoint.save_file.__name__ != "struck":
        checkpoint.save_file = struck
