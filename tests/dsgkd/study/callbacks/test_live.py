"""What a person sees of a stage, in a terminal and in a log."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from trial_events import EPOCHS, charge, ended, make_epoch, make_spec, play

from dsgkd.study.callbacks import progress as module
from dsgkd.study.callbacks.progress import Progress, progress
from dsgkd.study.console import Console
from dsgkd.study.status.status import StageStatus

EMPTY = StageStatus(
    *("demo", "search", "auroc", "maximise", EPOCHS, 9, 0, (), 0.0, 0.0, 0.0),
    datetime.now(UTC),
)


def session(last: BaseException | None = None) -> None:
    """What runs in the terminal."""
    print("before")
    with progress(EMPTY, Console()) as callbacks:
        print(*(type(one).__name__ for one in callbacks))
        for one in callbacks:
            one.on_start(make_spec(8), datetime.now(UTC))
        time.sleep(1.2)  # the table is drawn twice a second
        print("said [bold]in between[/]")
        play(callbacks)
        time.sleep(1.2)
        if last is not None:
            raise last
    print("after")


class Screen:
    """What a terminal shows of bytes: as much of it as rich makes use of."""

    def __init__(self) -> None:
        self.lines, self.row, self.column, self.hidden = [""], 0, 0, False
        self.seen: set[str] = set()
        """Every line that was ever shown."""

    def feed(self, text: str) -> "Screen":
        for part in re.split(r"(\x1b\[[?0-9;]*[a-zA-Z]|[\r\n])", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part.startswith("\x1b["):
                self._control(part[2:-1], part[-1])
            elif part:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)
                self.seen.add(self.lines[self.row])
        return self

    def _control(self, argument: str, kind: str) -> None:
        if kind == "A":
            self.row = max(self.row - int(argument or 1), 0)
        elif kind == "K":
            assert argument == "2"
            self.lines[self.row] = ""
        elif kind in "lh":
            assert argument == "?25"
            self.hidden = kind == "l"
        else:
            assert kind == "m", f"a sequence that this screen does not know: {argument}{kind}"

    @property
    def text(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def in_terminal(
    do: Callable[[], None], width: int = 100, height: int = 30, **environment: str
) -> tuple[int, Screen]:
    """Do something in a terminal of its own; return its exit code and what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        code = 1
        try:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
            for name in ("COLUMNS", "LINES", "NO_COLOR", "TERM"):
                os.environ.pop(name, None)
            os.environ |= {"TERM": "xterm-256color"} | environment
            encoding = environment.get("PYTHONIOENCODING", "utf-8")
            sys.stdout = sys.stderr = open(1, "w", buffering=1, encoding=encoding)  # noqa: SIM115
            do()
            code = 0
        except BaseException as error:
            print(type(error).__name__)
        finally:
            os._exit(code)
    data = b""
    with suppress(OSError):  # Linux raises it when the last writer has gone
        while part := os.read(terminal, 65536):
            data += part
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), Screen().feed(data.decode(errors="replace"))


@pytest.mark.slow
def test_lines_stand_above_the_table_and_nothing_is_left_of_it():
    code, screen = in_terminal(session)
    assert code == 0
    assert screen.text[0] == "before"
    assert screen.text[1] == "StatusCallback Progress"
    assert screen.text[2] == "said [bold]in between[/]"
    assert screen.text[3].startswith("search     1/9   search-plain-000")
    assert "search-mlkd-002" in screen.text[-2]
    assert screen.text[-1] == "after"
    assert len(screen.text) == 3 + 5 + 1
    assert not screen.hidden
    drawn = [line for line in screen.seen if "lr 3e-4 alpha 2.5" in line and "running" in line]
    assert any("3/4  0.680" in line for line in drawn)
    assert max(map(len, drawn)) == 97  # with room for the ^C of an interruption
    assert any("4 of 9 trials done, 3 running" in line for line in screen.seen)
    assert any("best auroc so far: mlkd 0.740, plain 0.640" in line for line in screen.seen)


@pytest.mark.slow
def test_an_interrupted_stage_leaves_the_screen_clean():
    code, screen = in_terminal(lambda: session(KeyboardInterrupt()))
    assert code != 0
    assert screen.text[-1] == "KeyboardInterrupt"
    assert not screen.hidden
    assert not any("trials done" in line for line in screen.text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "environment"),
    [
        (100, {"TERM": "dumb"}),
        (100, {"PYTHONIOENCODING": "ascii"}),
        (100, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}),
        (40, {}),
        (3, {}),
    ],
)
def test_odd_terminals_do_no_harm(width, environment):
    code, screen = in_terminal(session, width, **environment)
    assert code == 0
    assert screen.text[-1] == "after"[-width:] or width == 3
    assert not screen.hidden
    if environment:
        assert screen.text[1] == "Progress"
        assert not any("trials done" in line for line in screen.seen)


def test_a_log_gets_plain_lines_as_ever():
    said: list[str] = []
    with progress(EMPTY, Console(said.append)) as callbacks:
        (lines,) = callbacks
        assert type(lines) is Progress  # pytest's standard output is no terminal
        play(callbacks)
    assert [line.removeprefix("search     ") for line in said] == [
        "1/9   search-plain-000             complete   auroc 0.640 in epoch 4  40 s",
        "2/9   search-mlkd-000              complete   auroc 0.740 in epoch 4  40 s",
        "3/9   search-mlkd-001              pruned     auroc 0.310 in epoch 1  10 s",
        "4/9   search-plain-001             failed     the loss is not finite in epoch 1",
        "4/9   search-mlkd-002              preempted  auroc 0.670 in epoch 2  40 s",
    ]


def test_a_log_gets_a_sign_of_life(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(module.time, "monotonic", iter((0.0, 5.0, 25.0, 25.0)).__next__)
    with progress(EMPTY, Console(said.append), live=False) as (lines,):
        spec = make_spec(0)
        lines.on_start(spec, datetime.now(UTC))
        lines.on_epoch(spec, make_epoch(spec, 1), charge(spec, 1))
        assert said == []
        lines.on_epoch(spec, make_epoch(spec, 2), charge(spec, 2))
    assert said == ["search     0/9   running: search-mlkd-000 epoch 2/4"]


def test_a_test_trial_says_what_it_read():
    said: list[str] = []
    spec = make_spec(0, stage="test")
    with progress(EMPTY, Console(said.append), live=False) as (lines,):
        lines.on_start(spec, datetime.now(UTC))
        lines.on_end(spec, ended(spec, "complete", test={"auroc": 0.75}))
    assert said[0].endswith("complete   test auroc 0.750")
