"""The driver's waiting for work that runs elsewhere on the cluster."""

from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from dsgkd.errors import InputError


def collect(
    tasks: Sequence[Any], follow: Callable[[int], None] | None = None, every: float = 1.0
) -> list[Any]:
    """Return the results of tasks, in their order.

    Args:
        tasks: references.
        follow: called about every `every` seconds with the number of tasks that are done.
        every: in seconds.

    Raises:
        InputError: a task met it.
    """
    pending = list(tasks)
    try:
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=every)
            ray.get(done)  # an error ends the waiting at once
            if follow is not None:
                follow(len(tasks) - len(pending))
        return ray.get(list(tasks))
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
    finally:
        for task in pending:
            ray.cancel(task, force=False)
