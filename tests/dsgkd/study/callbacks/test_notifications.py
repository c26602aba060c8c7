"""Somebody is notified of a study's end, and a notification that fails is a warning."""

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from trial_events import play

from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.storage.location import Location
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.callbacks.notifications import Ending, check_target, ending, notify
from dsgkd.study.console import Console

ENDING = Ending("/studies/one", "one", "complete", '3 trials (3 complete); it\'s "best" $HOME')


class Server(HTTPServer):
    """Answers as its path says, and keeps what it was posted."""

    received: list[tuple[str, dict]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        if self.path == "/slow":
            time.sleep(2)
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.server.received.append((self.headers["Content-Type"], body))  # type: ignore[attr-defined]
        self.send_response({"/secret-key": 500, "/elsewhere": 302}.get(self.path, 204))
        self.send_header("Location", "/ok")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def address(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_a_command_finds_the_ending_in_its_environment(tmp_path):
    said: list[str] = []
    notify(f"env | grep ^DSGKD_ | sort > {tmp_path}/out", ENDING, Console(said.append))
    assert said == []
    assert (tmp_path / "out").read_text().splitlines() == [
        *("DSGKD_NAME=one", "DSGKD_STATE=complete", "DSGKD_STUDY=/studies/one"),
        f"DSGKD_SUMMARY={ENDING.summary}",
    ]


def test_an_address_is_posted_the_same_as_json(server):
    said: list[str] = []
    notify(address(server, "/ok"), ENDING, Console(said.append))
    assert said == []
    assert server.received == [("application/json", ENDING.variables())]


@pytest.mark.parametrize("command", ["exit 3", "/no/such/command", "kill -9 $$"])
def test_a_command_that_fails_is_a_warning(command):
    said: list[str] = []
    notify(command, ENDING, Console(said.append))
    assert len(said) == 1
    assert said[0].startswith("WARNING: --on-end: the command ended with exit code")


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path):
    said: list[str] = []
    began = time.monotonic()
    command = f"sh -c 'echo $$ > {tmp_path}/pid; sleep 60; true' ; true"
    notify(command, ENDING, Console(said.append), command_seconds=0.5)
    assert time.monotonic() - began < 10
    assert said == ["WARNING: --on-end: the command took more than 0.5 s and was ended"]
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or _is_zombie(child):
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("path", "warning"),
    [
        ("/secret-key", "WARNING: --on-end: 127.0.0.1 answered 500"),
        ("/elsewhere", "WARNING: --on-end: 127.0.0.1 answered 302"),
        ("/slow", "WARNING: --on-end: 127.0.0.1 was not reached (TimeoutError)"),
    ],
)
def test_an_address_that_refuses_is_a_warning_without_the_key(server, path, warning):
    said: list[str] = []
    notify(address(server, path), ENDING, Console(said.append), url_seconds=0.5)
    assert said == [warning]
    assert len(server.received) <= 1


def test_nobody_at_the_address_is_a_warning(server):
    said: list[str] = []
    notify("http://127.0.0.1:9/x?token=abc", ENDING, Console(said.append))
    notify("http://[bad", ENDING, Console(said.append))
    assert len(said) == 2
    assert all(line.startswith("WARNING: --on-end:") for line in said)
    assert not any("abc" in line for line in said)


@pytest.mark.parametrize("target", ["ftp://host/x", "file:///etc/passwd", "", " ", "http://"])
def test_what_will_not_be_called_is_refused_at_once(target):
    with pytest.raises(InputError, match="--on-end"):
        check_target(target)


def test_what_will_be_called_is_not_refused():
    check_target("https://host/key")
    check_target('mail -s "$DSGKD_SUMMARY" me@here < /dev/null')
    check_target("curl http://host")


def test_the_summary_is_one_line_of_the_ledger(tmp_path):
    assert ending(Location(tmp_path), "one", "failed").summary == "no trial was started"
    assert os.listdir(tmp_path) == []
    ledger = Ledger(tmp_path / "ledger")
    row = {"study_id": "s", "created_at": datetime.now(UTC), "objective": "f1"}
    ledger.write("studies", [row], "study")
    play([LedgerCallback(ledger)])
    found = ending(Location(tmp_path), "one", "interrupted")
    assert found.variables()["DSGKD_STATE"] == "interrupted"
    assert found.summary == (
        "6 trials (2 complete, 2 running, 1 pruned, 1 failed); "
        "best validation f1 of search: mlkd 0.740, plain 0.640"
    )
