"""What a student is trained for and judged by: a file a task."""

from collections.abc import Mapping
from typing import Any

from dsgkd.errors import InputError
from dsgkd.plugins import find
from dsgkd.tasks.classification import Classification
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.tasks.task import Task

TASKS = {"classification": Classification, "masked_lm": MaskedLanguageModel, "none": NoTask}

__all__ = ["TASKS", "Task", "task_of"]


def task_of(value: Any) -> Task:
    """Return the task that a configuration holds or that was written down of one.

    Args:
        value: a task; or a mapping of its fields, `kind` among them.

    Raises:
        InputError: there is no such task, or it has no such field.
    """
    if isinstance(value, Task):
        return value
    if not isinstance(value, Mapping):
        what, remedy = f"a {type(value).__name__} is no task", "give one of dsgkd.tasks"
        raise InputError("task", what, remedy)
    options = dict(value)
    kind = str(options.get("kind", "classification"))
    make = find("task", kind, TASKS)
    try:
        made: Task = make(**options)
    except TypeError as error:
        raise InputError("task", f"{kind} has no such field", "see its class") from error
    return made
