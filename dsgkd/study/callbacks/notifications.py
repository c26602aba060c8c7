"""The notification at a study's end: a command that is run, or an address that is posted to.

One that fails is a warning, never an error: the study is done and its ledger is whole.
"""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.storage.location import Location
from dsgkd.study.console import Console
from dsgkd.study.status.status import read_status

State = Literal["complete", "interrupted", "stopped by budget", "failed"]

COMMAND_SECONDS = 60.0
"""A command that takes longer is ended."""
URL_SECONDS = 10.0


@dataclass(frozen=True)
class Ending:
    """How a study ended; its fields are what is told."""

    study: str
    """Folder."""
    name: str
    state: State
    summary: str
    """One line: trials by state, the best value of each method."""

    def variables(self) -> dict[str, str]:
        """As environment variables, and as the names in the JSON that is posted."""
        return {
            "DSGKD_STUDY": self.study,
            "DSGKD_NAME": self.name,
            "DSGKD_STATE": self.state,
            "DSGKD_SUMMARY": self.summary,
        }


def ending(location: Location, name: str, state: State) -> Ending:
    """Return how a study ended, its summary read from the ledger in its folder."""
    try:
        status = read_status(Ledger(location.child("ledger")))
    except (InputError, OSError):
        return Ending(location.path(), name, state, "no trial was started")
    stage, last = status.stage, {line.trial_id: line.state for line in status.lines}
    counts = ", ".join(f"{n} {state}" for state, n in Counter(last.values()).most_common())
    summary = f"{len(last)} trials ({counts})" if last else "no trial was started"
    if stage.best:
        best = ", ".join(f"{method} {value:.3f}" for method, value in stage.best.items())
        summary += f"; best validation {stage.measure} of {stage.stage}: {best}"
    return Ending(location.path(), name, state, summary)


def check_target(target: str) -> None:
    """Refuse an address that will not be called, before a study begins.

    Raises:
        InputError: it is neither a command nor an http or https address.
    """
    scheme = re.match(r"(\w[\w+.-]*)://", target)
    if not target.strip():
        raise InputError("--on-end", "empty", "give a command or an address")
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise InputError("--on-end", f"'{scheme[1]}://' is not called", "give http:// or https://")
    if scheme and not _host(target):
        raise InputError("--on-end", "an address without a host", "give http://HOST/...")


def notify(
    target: str,
    ending: Ending,
    console: Console,
    command_seconds: float = COMMAND_SECONDS,
    url_seconds: float = URL_SECONDS,
) -> None:
    """Run the command or post to the address; say so in one line if that fails.

    Args:
        target: a shell command, which finds `DSGKD_STUDY`, `DSGKD_NAME`, `DSGKD_STATE` and
            `DSGKD_SUMMARY` in its environment; or an http(s) address, which is posted the same
            names as JSON.
        ending: how the study ended.
        console: takes the warning.
        command_seconds: a command that takes longer is ended, with all that it started.
        url_seconds: how long to wait for an answer.
    """
    try:
        if re.match(r"https?://", target, re.IGNORECASE):
            _post(target, ending, url_seconds)
        else:
            _run(target, ending, command_seconds)
    except _NotNotifiedError as error:
        console.warn(f"--on-end: {error}")


class _NotNotifiedError(Exception):
    """What to say of a notification that failed. Never the address: it may hold a key."""


def _run(command: str, ending: Ending, seconds: float) -> None:
    environment = os.environ | ending.variables()
    try:
        process = subprocess.Popen(
            command,
            shell=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that what it started can be ended with it
        )
    except (OSError, ValueError) as error:
        raise _NotNotifiedError(f"the command could not be run ({type(error).__name__})") from error
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise _NotNotifiedError(f"the command took more than {seconds:g} s and was ended") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise _NotNotifiedError(f"the command ended with exit code {code}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Posts are not repeated elsewhere."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


def _post(url: str, ending: Ending, seconds: float) -> None:
    try:
        request = urllib.request.Request(
            url,
            data=json.dumps(ending.variables()).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "dsgkd"},
            method="POST",
        )
        urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        raise _NotNotifiedError(f"{_host(url)} answered {error.code}") from error
    except Exception as error:  # anything that a proxy or a resolver can think of
        reason = getattr(error, "reason", error)
        raise _NotNotifiedError(
            f"{_host(url)} was not reached ({type(reason).__name__})"
        ) from error


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
