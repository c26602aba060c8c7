"""What local disk and object storage both promise."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from dsgkd.errors import InputError
from dsgkd.storage.artefacts import Artefacts
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.storage.lease import Busy, Lease
from dsgkd.storage.location import Location

ROOT = Path(__file__).parents[3]


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_what_is_written_is_read_overwritten_and_deleted(location: Location) -> None:
    assert location.read("a/b.json") is None
    assert not location.exists("a/b.json")
    assert location.list() == location.list("a") == []
    location.write("a/b.json", b"one")
    assert location.read("a/b.json") == b"one"
    location.write("a/b.json", b"another")
    assert location.read("a/b.json") == b"another"
    assert location.exists("a/b.json")
    assert location.exists("a")
    assert location.exists()
    location.delete("a/b.json", "a/never-there")
    assert location.read("a/b.json") is None


def test_a_listing_has_the_files_of_a_folder_and_not_those_below(location: Location) -> None:
    for name in ("b", "a", "below/c", "further/down/d"):
        location.write(name, name.encode())
    before = datetime.now(UTC) - timedelta(minutes=1)
    assert [(entry.name, entry.size) for entry in location.list()] == [("a", 1), ("b", 1)]
    assert [entry.name for entry in location.list("further/down")] == ["further/down/d"]
    assert all(entry.modified > before for entry in location.list())
    assert location.folders() == ["below", "further"]
    assert location.child("further").read("down/d") == b"further/down/d"
    location.delete_tree("further")
    assert location.folders() == ["below"]
    location.delete_tree("further")
    location.delete_tree()
    assert location.list() == []
    assert location.folders() == []


def test_the_same_place_is_found_by_its_root_in_another_process(location: Location) -> None:
    location.child("a").write("b", b"c")
    for same in (Location(location.root), pickle.loads(pickle.dumps(location))):
        assert same.read("a/b") == b"c"
    assert Location(location.child("a").root).read("b") == b"c"
    odd = location.child("a folder/병원 100%")
    assert odd.write_if_absent("f", b"1")
    assert odd.read("f") == Location(odd.root).read("f") == b"1"
    assert location.folders() == ["a", "a folder"]
    assert location.child("a folder").folders() == ["병원 100%"]


def test_a_file_is_copied_there_and_back(location: Location, tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    (tmp_path / "given").write_bytes(content)
    location.upload("x/copy", tmp_path / "given")
    assert location.read("x/copy") == content
    (tmp_path / "empty").touch()
    location.upload("empty", tmp_path / "empty")
    assert location.read("empty") == b""
    location.download("x/copy", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == content
    with pytest.raises(FileNotFoundError):
        location.download("x/none", tmp_path / "new" / "none")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


def test_a_reader_sees_whole_files_only(location: Location) -> None:
    location.write("f", b"a" * 10)
    over = threading.Event()

    def write() -> None:
        for number in range(40):
            location.write("f", bytes([97 + number % 7]) * (10 + 50_000 * (number % 7)))
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while not over.is_set():
            found = location.read("f")
            assert found is not None
            assert found == found[:1] * (10 + 50_000 * (found[0] - 97))
    finally:
        thread.join()


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new(location: Location) -> None:
    script = (
        "import sys\nfrom dsgkd.storage.location import Location\n"
        "location = Location(sys.argv[1])\n"
        "location.write('f', b'0' * 12_000_000)\nprint('go', flush=True)\n"
        "while True:\n"
        "    for digit in b'123456789': location.write('f', bytes([digit]) * 12_000_000)"
    )
    for wait in (0.0, 0.07, 0.16):
        process = started(script, location.root)
        time.sleep(wait)
        process.kill()
        process.wait()
        found = location.read("f")
        assert found == found[:1] * 12_000_000
        assert [entry.name for entry in location.list()] == ["f"]


def test_of_several_that_write_what_is_absent_one_succeeds(location: Location) -> None:
    def write(number: int) -> bool:
        return Location(location.root).write_if_absent("x/f", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(write, range(8)))
    assert sum(wrote) == 1
    assert location.read("x/f") == str(wrote.index(True)).encode()
    assert [entry.name for entry in location.list("x")] == ["x/f"]


def test_a_lease_is_one_holders_until_it_is_given_back(location: Location) -> None:
    with Lease(location, "x.lease", seconds=5):
        with pytest.raises(Busy, match=r"x\.lease: another process is at work here") as caught:
            Lease(location, "x.lease").__enter__()
        assert "\n" not in str(caught.value)
        with Lease(location, "y.lease"):
            pass
    for _ in range(2):
        with Lease(location, "x.lease"):
            pass


def test_who_waits_for_a_lease_gets_it_when_it_is_given_back(location: Location) -> None:
    order: list[str] = []

    def work(name: str) -> None:
        with Lease(location, "x.lease", seconds=2, wait=30):
            order.extend((name, name))

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(3)]
    with Lease(location, "x.lease", seconds=2):
        for thread in threads:
            thread.start()
        assert not order
    for thread in threads:
        thread.join()
    assert [order[0], order[2], order[4]] == [order[1], order[3], order[5]]
    assert sorted(order) == ["0", "0", "1", "1", "2", "2"]


HOLDER = (
    "import sys, time\nfrom dsgkd.storage.lease import Lease\n"
    "from dsgkd.storage.location import Location\n"
    "with Lease(Location(sys.argv[1]), 'x.lease', seconds=1):\n"
    "    print('held', flush=True)\n    time.sleep(float(sys.argv[2]))"
)


@pytest.mark.slow
def test_a_lease_that_is_renewed_outlives_its_seconds(location: Location) -> None:
    process = started(HOLDER, location.root, "4")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        with pytest.raises(Busy):
            Lease(location, "x.lease").__enter__()
        time.sleep(0.3)
    with Lease(location, "x.lease", wait=20):
        assert process.wait() == 0


@pytest.mark.slow
def test_the_lease_of_a_dead_holder_ends(location: Location) -> None:
    process = started(HOLDER, location.root, "600")
    with pytest.raises(Busy):
        Lease(location, "x.lease").__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Lease(location, "x.lease", wait=20) as lease:
        assert not lease.lost
        with pytest.raises(Busy):
            Lease(location, "x.lease").__enter__()


def test_checkpoints_come_back_are_replaced_and_deleted(root: str) -> None:
    checkpoints = Checkpoints(root)
    assert not checkpoints.exists("last.safetensors")
    for step in (1, 2):
        checkpoints.save("last.safetensors", {"step": step, "weight": torch.full((3,), step)})
    assert Checkpoints(root).exists("last.safetensors")
    state = Checkpoints(root).load("last.safetensors")
    assert state["step"] == 2
    assert state["weight"].tolist() == [2, 2, 2]
    checkpoints.delete("last.safetensors")
    with pytest.raises(InputError, match=r"folder/last\.safetensors: no such checkpoint"):
        checkpoints.load("last.safetensors")
    Location(root).write("last.safetensors", b"half a checkpoint")
    with pytest.raises(InputError, match=r"folder/last\.safetensors: not a whole checkpoint"):
        checkpoints.load("last.safetensors")


def build(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


@pytest.mark.slow
def test_an_artefact_is_built_once_by_several_processes_at_the_same_time(
    root: str, tmp_path: Path
) -> None:
    script = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from dsgkd.storage.artefacts import Artefacts\n"
        "def build(folder):\n"
        "    with open(sys.argv[3], 'a') as log: log.write(f'{os.getpid()}\\n')\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'below').mkdir()\n"
        "    (folder / 'below' / 'weights').write_bytes(b'1234')\n"
        "    (folder / 'config.json').write_text('{}')\n"
        "print('go', flush=True)\n"
        "folder = Artefacts(sys.argv[1], Path(sys.argv[2])).ensure('k1', build)\n"
        "assert (folder / 'below' / 'weights').read_bytes() == b'1234'"
    )
    log = tmp_path / "log"
    # The first two share a node, the third has one of its own.
    nodes = [tmp_path / node for node in ("node-1", "node-1", "node-2")]
    processes = [started(script, root, str(node), str(log)) for node in nodes]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 1
    again = Artefacts(root, tmp_path / "node-3")
    assert again.get("k2") is None
    folder = again.get("k1")
    assert folder is not None
    assert sorted(p.name for p in folder.rglob("*")) == ["below", "config.json", "weights"]
    assert again.ensure("k1", pytest.fail) == folder


def test_an_artefact_that_could_not_be_built_leaves_nothing_and_is_built_by_the_next(
    root: str, tmp_path: Path
) -> None:
    artefacts = Artefacts(root, tmp_path / "node")

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise InputError("a note", "is bad", "mend it")

    with pytest.raises(InputError, match="mend it"):
        artefacts.ensure("k1", fail)
    assert artefacts.get("k1") is None
    folder = artefacts.ensure("k1", build)
    assert not (folder / "half").exists()
    with pytest.raises(ValueError, match="not a key"):
        artefacts.get("../k1")


@pytest.mark.slow
def test_an_artefact_whose_builder_was_killed_is_built_by_another(
    root: str, tmp_path: Path
) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from dsgkd.storage import artefacts, lease\n"
        "inner = lease.Lease\n"
        "artefacts.Lease = lambda *a, **k: inner(*a, seconds=1, **k)\n"
        "def build(folder):\n"
        "    (folder / 'half').write_text('')\n"
        "    print('building', flush=True)\n"
        "    time.sleep(600)\n"
        "artefacts.Artefacts(sys.argv[1], Path(sys.argv[2])).ensure('k1', build)"
    )
    process = started(script, root, str(tmp_path / "node"))
    process.kill()
    process.wait()
    folder = Artefacts(root, tmp_path / "node").ensure("k1", build)
    assert not (folder / "half").exists()
    assert not list(folder.parent.glob(".*.tmp"))
    assert json.loads((folder / "config.json").read_text()) == {}
