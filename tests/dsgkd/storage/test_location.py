"""Faults of networks and disks, and what is particular to one kind of storage."""

import errno
import os
import socket
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from pyarrow.fs import PyFileSystem
from remote import Remote
from s3_server import new_bucket

from dsgkd.errors import InputError, StorageError
from dsgkd.storage import location as module
from dsgkd.storage.conditional import S3Objects
from dsgkd.storage.lease import Busy, Lease
from dsgkd.storage.location import Location


@pytest.mark.usefixtures("_impatient")
def test_a_network_fault_is_survived_twice_and_then_is_one_line() -> None:
    remote = Remote("s3")
    location = Location("bucket/x", PyFileSystem(remote))
    location.write("f", b"one")
    for call in (
        lambda: location.write("f", b"two"),
        lambda: location.read("f"),
        lambda: location.list(),
        lambda: location.exists("f"),
        lambda: location.delete("f"),
    ):
        remote.faults = 2
        call()
        remote.faults = 3
        with pytest.raises(StorageError, match=r"bucket/x.*connection lost") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert location.read("f") is None


def test_the_pauses_between_attempts_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    remote = Remote("s3")
    remote.faults = 99
    with pytest.raises(StorageError, match="check the address, the credentials and the network"):
        Location("bucket/x", PyFileSystem(remote)).read("f")
    assert len(slept) == 3
    assert slept == sorted(slept)


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", ())  # Arrow tries three times by itself
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        location = Location(f"s3://bucket/x?endpoint_override={endpoint}")
        for call in (lambda: location.read("f"), lambda: location.write_if_absent("f", b"")):
            with pytest.raises(StorageError, match=r"^s3://bucket/x/f: cannot be reached"):
                call()


def test_a_bucket_that_is_not_there_is_one_line_at_once(endpoint: str) -> None:
    location = Location(f"s3://no-such/x?endpoint_override={endpoint}")
    for call in (lambda: location.write("f", b""), lambda: location.write_if_absent("f", b"")):
        with pytest.raises(StorageError, match=r"(?i)x/f: cannot be reached .*no.?such.?bucket"):
            call()


def test_credentials_in_a_uri_are_never_shown(endpoint: str) -> None:
    uri = new_bucket(endpoint).replace("s3://", "s3://someone:secret@")
    location = Location(uri)
    assert location.write_if_absent("f", b"1")
    assert location.child("a").path("f").endswith("/folder/a/f")
    assert "secret" not in location.path("f")
    assert "?" not in location.path()
    with pytest.raises(InputError) as caught:
        Location("nowhere://someone:secret@x")
    assert "secret" not in str(caught.value)


def test_the_address_of_a_server_may_stand_in_the_environment(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_bucket(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    location = Location(uri.partition("?")[0])
    location.write("f", b"1")
    assert Location(uri).read("f") == b"1"


@pytest.mark.usefixtures("_impatient")
def test_a_conditional_write_whose_answer_was_lost_counts_as_written(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(new_bucket(endpoint))
    ask, asked = S3Objects._ask, []

    def lossy(self: S3Objects, call: str, name: str, **arguments: object) -> dict[str, object]:
        answer = ask(self, call, name, **arguments)
        asked.append(call)
        if len(asked) == 1:
            raise OSError("connection lost")
        return answer

    monkeypatch.setattr(S3Objects, "_ask", lossy)
    assert location.write_if_absent("f", b"mine")
    assert not location.write_if_absent("f", b"mine")


def test_a_lease_that_another_has_taken_is_lost(endpoint: str) -> None:
    location = Location(new_bucket(endpoint))
    with Lease(location, "x", seconds=0.3) as lease:
        assert not lease.lost
        location.write("x", b'{"holder": "another", "seconds": 60}')
        until = time.monotonic() + 10
        while not lease.lost:
            assert time.monotonic() < until
            time.sleep(0.05)
    with pytest.raises(Busy):  # and it is not given back in the other's name
        Lease(location, "x").__enter__()


@pytest.mark.slow
def test_a_lease_that_cannot_be_renewed_in_time_is_lost(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise StorageError("x", "cannot be reached", "wait")

    with Lease(Location(new_bucket(endpoint)), "x", seconds=0.6) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(S3Objects, "put", fail)
            time.sleep(0.3)
            assert not lease.lost
            time.sleep(1.0)
        assert lease.lost


def test_storage_without_conditional_writes_has_no_leases() -> None:
    location = Location("bucket/x", PyFileSystem(Remote("gcs")))
    for call in (lambda: location.write_if_absent("f", b""), Lease(location, "f").__enter__):
        with pytest.raises(InputError, match=r"use a local folder or s3://"):
            call()


def test_without_boto3_a_lease_in_object_storage_says_what_to_install(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsgkd.storage import conditional

    conditional._client.cache_clear()
    monkeypatch.setitem(sys.modules, "boto3", None)
    location = Location(f"s3://b/x?endpoint_override={endpoint}")
    with pytest.raises(InputError, match=r'need boto3: pip install "dsgkd\[s3\]"'):
        Lease(location, "f").__enter__()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    location = Location(tmp_path)
    location.write("f", b"old")
    (tmp_path / "given").write_bytes(b"new")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        for write in (
            lambda: location.write("f", b"new"),
            lambda: location.upload("f", tmp_path / "given"),
        ):
            with pytest.raises(StorageError, match=words) as caught:
                write()
            assert str(tmp_path / "f") in str(caught.value)
    assert location.read("f") == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"f", "given"}


def test_unfinished_files_are_not_listed_and_old_ones_are_left_over(tmp_path: Path) -> None:
    location = Location(tmp_path)
    old, young = f".f.{'ab' * 16}.tmp", f".g.{'ab' * 16}.tmp"
    for name in (old, young, "f"):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / old, (time.time() - 3700,) * 2)
    assert [entry.name for entry in location.list()] == ["f"]
    assert [entry.name for entry in location.leftovers()] == [old]


def test_a_written_file_has_the_rights_of_the_users_umask_and_a_copy_is_private(
    tmp_path: Path,
) -> None:
    location = Location(tmp_path)
    location.write("f", b"")
    location.upload("g", tmp_path / "f")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o600


def test_a_lease_on_a_disk_is_not_taken_twice_by_threads_of_one_process(tmp_path: Path) -> None:
    held, inside, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        with Lease(Location(tmp_path), "x", wait=30):
            with held:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with held:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
