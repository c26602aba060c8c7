"""The Ray on which a study runs, and who hears of its end."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dsgkd.cli.terminal import stop_on_sigterm
from dsgkd.errors import InputError
from dsgkd.study.callbacks.notifications import State, ending, notify
from dsgkd.study.config import StudyConfig
from dsgkd.study.study import Study


@contextmanager
def ray_session(config: StudyConfig) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (a job's own, for instance), or start a local Ray.

    A local Ray listens on loopback, takes all CPUs (and GPUs) of this machine, and stops with
    this process. Its dashboard runs only where trials have several workers: without it, Ray
    leaks the placement groups of trials that are killed.
    """
    # Deferred: `dsgkd predict --help` must not wait for Ray.
    import ray

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                include_dashboard=config.cluster.workers_per_trial > 1,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except ConnectionError as error:
        raise InputError("RAY_ADDRESS", f"no Ray at {address}", "start one or unset it") from error
    stop_on_sigterm()  # Ray has set a handler of its own
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def notify_on_exit(target: str, study: Study) -> Iterator[None]:
    """Run a command or call an address when a study ends, however it does.

    Args:
        target: a shell command or an http(s) address; empty: nobody is told.
        study: the study.
    """
    state: State = "failed"
    try:
        yield
        state = "stopped by budget" if study.outcome.limit else "complete"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        if target:
            notify(target, ending(study.config.location, study.config.name, state), study.console)
