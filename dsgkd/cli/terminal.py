"""How a command ends: exit codes, one line of error, signals; importing it costs nothing."""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from dsgkd.errors import InputError


def run_command(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0; 2 after one line for bad input; 130 when interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
    stop_on_sigterm()
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the ledger is whole: go on with --resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)


def stop_on_sigterm() -> None:
    """Stop as for Ctrl-C at what a scheduler sends before it takes a machine away."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not cut off the tidying up
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # as in a shell's background
        raise KeyboardInterrupt
    # Whoever answers Ctrl-C now: Tune, while it runs, between two events and not within one.
    signal.raise_signal(signal.SIGINT)
