"""Lines for people, on standard output and in a job's log."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Console:
    """Takes the lines of a study.

    Args:
        write: where they go; while a live table is shown, lines appear above it.
    """

    write: Callable[[str], None] = print

    def print(self, line: str = "") -> None:
        """Print a line."""
        self.write(line)

    def warn(self, line: str) -> None:
        """Print a line that says that something is not as it should be."""
        self.write(f"WARNING: {line}")


class Throttle:
    """Prints a line at most every so many seconds, so that a job's log stays readable."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console, self._seconds, self._last = console, seconds, time.monotonic()

    def print(self, line: str) -> None:
        """Print the line, or drop it."""
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            self._console.print(line)
