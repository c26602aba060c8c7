"""Finished trials' files are merged so that no row is ever lost, or read twice."""

import errno
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds
import pytest
from pyarrow.fs import FileSystem, LocalFileSystem, PyFileSystem
from remote import Remote

from dsgkd.errors import InputError
from dsgkd.ledger import SCHEMAS, Ledger, Table, merging
from dsgkd.ledger import ledger as module
from dsgkd.ledger.table_storage import TableStorage
from dsgkd.storage import location

ROOT = Path(__file__).parents[3]
MERGED: tuple[Table, ...] = ("trials", "metrics", "predictions")
EPOCHS = 3


def name_of(number: int, attempt: int = 1) -> str:
    return f"search-mlkd-{number:03d}-{attempt}"


def write_trial(ledger: Ledger, number: int, attempt: int = 1) -> str:
    """Write one trial's files as a study does: its row grows, then come predictions, then the end.

    Its name is sealed by the caller.
    """
    name = name_of(number, attempt)
    key = {"study_id": "s", "trial_id": f"search-mlkd-{number:03d}", "attempt": attempt}
    ledger.write("trials", [key | {"state": "running"}], name)
    ledger.write("metrics", [key | {"epoch": e, "split": "train"} for e in range(EPOCHS)], name)
    ledger.write("predictions", [key | {"example_id": f"{number:016x}"}], f"{name}-validation")
    ledger.write("trials", [key | {"state": "complete", "configuration": {"seed": number}}], name)
    return name


def write_study(ledger: Ledger) -> None:
    ledger.write("studies", [{"study_id": "s", "name": "s"}], "study")


def names(folder: Path, table: str) -> set[str]:
    return {path.name for path in (folder / table).iterdir()} - {"schema.parquet"}


def counts(tables: dict[str, Any]) -> dict[str, Counter[Any]]:
    """How often each trial's attempt has rows, by table."""
    return {
        name: Counter(zip(frame["trial_id"].tolist(), frame["attempt"].tolist()))
        for name, frame in tables.items()
    }


def ours(root: str, filesystem: FileSystem | None = None) -> dict[str, Counter[Any]]:
    """Every row exactly once at any moment, as the reader promises."""
    ledger = Ledger(root, filesystem)
    return counts({table: ledger.read(table).to_pandas() for table in MERGED})


def plain(root: str, filesystem: FileSystem | None = None) -> dict[str, Counter[Any]]:
    """Every file, read by somebody who knows nothing of merges."""
    place = filesystem or LocalFileSystem()
    tables = {
        table: ds.dataset(f"{root}/{table}", format="parquet", filesystem=place) for table in MERGED
    }
    return counts({table: found.to_table().to_pandas() for table, found in tables.items()})


def expected(numbers: Any, attempt: int = 1) -> dict[str, Counter[Any]]:
    rows = {"trials": 1, "metrics": EPOCHS, "predictions": 1}
    keys = [(f"search-mlkd-{number:03d}", attempt) for number in numbers]
    return {table: Counter(dict.fromkeys(keys, count)) for table, count in rows.items()}


@pytest.mark.slow
def test_the_files_of_finished_trials_become_one_as_soon_as_they_are_many(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write_study(ledger)
    running = write_trial(ledger, 999)
    for number in range(module.MERGE_AT - 1):
        ledger.seal(write_trial(ledger, number))
    before = {table: ledger.read(table) for table in MERGED}
    assert len(names(tmp_path, "trials")) == module.MERGE_AT
    ledger.seal(write_trial(ledger, module.MERGE_AT - 1))
    for table in MERGED:
        left = names(tmp_path, table)
        suffix = "-validation" if table == "predictions" else ""
        assert len(left) == 2
        assert f"{running}{suffix}.parquet" in left
        now = ledger.read(table)
        assert now.schema.equals(SCHEMAS[table])
        numbers = range(module.MERGE_AT - 1)
        assert now.filter(
            ds.field("trial_id").isin([f"search-mlkd-{n:03d}" for n in numbers])
        ).equals(before[table].filter(ds.field("trial_id") != "search-mlkd-999"))
        assert list(pd.read_parquet(tmp_path / table).columns) == SCHEMAS[table].names
    for read in (ours, plain):
        assert read(str(tmp_path)) == expected([*range(module.MERGE_AT), 999])


def test_what_is_not_sealed_is_left_alone_and_a_merged_trial_can_get_attempts(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    for number in range(3):
        ledger.seal(write_trial(ledger, number))
    write_trial(ledger, 10)  # its name begins as that of trial 1 does, but for the rest
    ledger.merge()
    running = {f"{name_of(10)}.parquet"}
    assert {n for n in names(tmp_path, "trials") if not n.startswith("merged-")} == running
    write_trial(ledger, 1, attempt=2)
    found, wanted = ours(str(tmp_path)), expected([0, 1, 2, 10])
    for table, again in expected([1], attempt=2).items():
        assert found[table] == wanted[table] + again
    ledger.seal(name_of(1, attempt=2))
    ledger.merge()
    assert len(names(tmp_path, "trials")) == 2
    assert ledger.read("trials").num_rows == 5


def test_nothing_sealed_is_no_merge(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write_trial(ledger, 0)
    before = names(tmp_path, "trials")
    ledger.merge()
    ledger.seal("of-another-life-1")
    ledger.merge()
    assert names(tmp_path, "trials") == before


@pytest.mark.slow
def test_a_merged_file_grows_until_it_is_full_and_is_then_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "PAUSE", 0.0)
    monkeypatch.setattr(module, "MERGE_AT", 4)
    ledger = Ledger(tmp_path)
    ledger.seal(write_trial(ledger, 0))
    monkeypatch.setattr(merging, "FULL", 10 * ledger.read("trials").nbytes)
    written: dict[str, int] = {}
    write = TableStorage.write

    def note(place: TableStorage, table: str, name: str, data: Any) -> None:
        if name.startswith("merged-") and table == "trials":
            written[name] = data.size
        write(place, table, name, data)

    monkeypatch.setattr(TableStorage, "write", note)
    full: dict[str, int] = {}
    for number in range(1, 64):
        ledger.seal(write_trial(ledger, number))
        for path in (tmp_path / "trials").glob("merged-full-*"):
            assert full.setdefault(path.name, path.stat().st_ino) == path.stat().st_ino
        assert set(full) <= names(tmp_path, "trials")
        assert len(names(tmp_path, "trials")) <= len(full) + 1 + 4
    assert 3 <= len(full) <= 10
    assert len(written) <= 16 + len(full)  # a merge writes a part, and a full one where it fills
    for read in (ours, plain):
        assert read(str(tmp_path)) == expected(range(64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "hdfs"])
def test_a_merge_that_is_killed_at_any_call_loses_nothing_and_is_taken_up_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "PAUSE", 0.0)
    monkeypatch.setattr(location, "PAUSES", ())
    call, killed = 1, True
    while killed:
        remote = Remote(kind)
        place, root = PyFileSystem(remote), "/bucket/ledger"
        ledger = Ledger(root, place)
        # A first merge, and what it would look like had it been killed before it deleted.
        for number in range(3):
            ledger.seal(write_trial(ledger, number))
        left = {path: file for path, file in remote.fs.store.items() if name_of(1) in path}
        ledger.merge()
        remote.fs.store.update(left)
        for number in range(3, 6):
            ledger.seal(write_trial(ledger, number))
        write_trial(ledger, 6)

        remote.calls, remote.dies_at = 0, call
        try:
            ledger.merge()
            killed = False
        except (InputError, OSError):
            assert remote.dead
        remote.dies_at = 0
        assert ours(root, place) == expected(range(7)), f"killed at call {call}"
        for table, found in plain(root, place).items():
            assert found >= expected(range(7))[table], f"killed at call {call}"

        if call % 2:  # the same driver tries again, or another takes up its work
            ledger = Ledger(root, place)
            ledger.seal(*(name_of(number) for number in range(6)))
        ledger.merge()
        write_trial(ledger, 7)
        ledger.seal(name_of(7))
        ledger.merge()
        for read in (ours, plain):
            assert read(root, place) == expected(range(8)), f"killed at call {call}"
        call += 1
    assert call > 30  # a merge of three tables is many calls: the loop did not end at once


@pytest.mark.slow
@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_full_disk_leaves_all_readable_and_the_merge_is_done_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    root, times = tmp_path / "0", 0
    full = True
    while full:
        root, times = tmp_path / str(times), times + 1
        ledger = Ledger(root)
        for number in range(4):
            ledger.seal(write_trial(ledger, number))
        left = times  # so many succeed before the disk is full

        def fill(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return inner(*args)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(merging, "PAUSE", 0.0)
            if step == "write":
                patch.setattr("io.open", fill(open))
            else:
                patch.setattr(os, step, fill(getattr(os, step)))
            problem = ""
            try:
                ledger.merge()
            except InputError as error:
                problem = str(error)
        full = bool(problem)
        assert not full or "no space left" in problem
        assert ours(str(root)) == expected(range(4))
        for table, found in plain(str(root)).items():
            assert found >= expected(range(4))[table]
        ledger.merge()
        assert plain(str(root)) == expected(range(4))
        assert not list(root.rglob(".*"))
    assert times > 2


def test_a_small_disk_that_is_really_full_is_one_line_and_all_is_readable(on_a_small_disk) -> None:
    script = (
        "import os, sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, 'tests']\n"
        "from pathlib import Path\n"
        "from test_ledger_merging import *\n"
        "root = Path(sys.argv[1])\n"
        "ledger = Ledger(root)\n"
        "for number in range(4):\n"
        "    ledger.seal(write_trial(ledger, number))\n"
        "with open(root / 'filler', 'wb', buffering=0) as filler:\n"
        "    try:\n"
        "        while True: filler.write(bytes(4096))\n"
        "    except OSError: pass\n"
        "try:\n"
        "    ledger.merge()\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "assert ours(str(root)) == expected(range(4))\n"
        "assert not [path for path in root.rglob('*') if 'merged-' in path.name]\n"
        "os.unlink(root / 'filler')\n"
        "ledger.merge()\n"
        "assert ours(str(root)) == expected(range(4))\n"
        "print(len(names(root, 'trials')))\n"
    )
    run = on_a_small_disk(script, 512)
    assert run.returncode == 0, run.stderr
    assert "no space left on the disk" in run.stdout
    assert run.stdout.splitlines()[-1] == "1"


def write_until_killed(root: str, first: int, done: int, told: Connection) -> None:
    """Be a driver that goes on with a study: seal what was finished, write and seal more."""
    merging.PAUSE, module.MERGE_AT = 0.03, 4
    ledger = Ledger(root)
    ledger.seal(*(name_of(number) for number in range(done)))
    for number in range(first, first + 10_000):
        name = write_trial(ledger, number)
        told.send(number)
        ledger.seal(name)


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_loses_no_finished_trial(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dsgkd.ledger"])
    chance = random.Random(5)
    finished: set[int] = set()
    first, root, doubles = 0, str(tmp_path), 0
    for _ in range(25):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=write_until_killed, args=(root, first, first, sender))
        process.start()
        sender.close()
        finished.add(receiver.recv())
        time.sleep(chance.uniform(0.0, 0.15))
        process.kill()
        process.join()
        try:
            while True:
                finished.add(receiver.recv())
        except EOFError:
            pass
        first = max(finished) + 2  # the one that was cut off keeps its number
        complete = [f"search-mlkd-{number:03d}" for number in finished]
        found = ours(root)
        for table, count in (("trials", 1), ("metrics", EPOCHS), ("predictions", 1)):
            rows = found[table]
            assert {rows[(trial, 1)] for trial in complete} == {count}
            assert max(rows.values()) == count
        seen = plain(root)["trials"]
        assert all(seen[(trial, 1)] for trial in complete)
        doubles += max(seen.values()) > 1
    states = Ledger(root).read("trials").to_pandas().set_index("trial_id").state
    assert (states[complete] == "complete").all()
    last = Ledger(root)
    last.seal(*(name_of(number) for number in range(first)))
    last.merge()
    assert max(plain(root)["trials"].values()) == 1
    assert len(finished) >= 25
    assert doubles  # some were killed between writing and deleting


@pytest.mark.slow
def test_readers_see_every_finished_trial_once_while_files_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MERGE_AT", 8)
    ledger, root = Ledger(tmp_path), str(tmp_path)
    write_study(ledger)
    finished, problems = [0], []
    ledger.seal(write_trial(ledger, 0))
    over = threading.Event()

    def follow() -> None:
        reads = 0
        while not over.is_set() or reads < 3:
            until = finished[0]
            try:
                found = ours(root)
                for table, wanted in expected(range(until)).items():
                    if not wanted <= found[table] or any(
                        count != wanted[key] for key, count in found[table].items() if key in wanted
                    ):
                        problems.append(("ours", table, until, wanted - found[table]))
                try:
                    seen = plain(root)
                except FileNotFoundError:
                    continue  # as the ledger's documentation says: read again
                for table, wanted in expected(range(until)).items():
                    if not wanted <= seen[table]:
                        problems.append(("plain", table, until, wanted - seen[table]))
            except Exception as error:
                problems.append(error)
                return
            reads += 1

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        for number in range(1, 160):
            ledger.seal(write_trial(ledger, number))
            finished[0] = number
    finally:
        over.set()
        thread.join()
    assert not problems, problems[:3]


@pytest.mark.parametrize("seen", [slice(None), slice(2, None), slice(0)])
def test_a_listing_that_was_taken_in_the_middle_of_a_merge_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: slice
) -> None:
    # A folder is listed piece by piece: of the small files, some may already be gone while the
    # merged one had not come yet.
    ledger = Ledger(tmp_path)
    for number in range(4):
        ledger.seal(write_trial(ledger, number))
    stale = {table: sorted(names(tmp_path, table))[seen] for table in MERGED}
    ledger.merge()

    def torn(list_names: Callable[[Any, str], list[str]]) -> Callable[[Any, str], list[str]]:
        """Answer once a table with the stale listing."""
        todo = set(MERGED)

        def listing(self: Any, folder: str) -> list[str]:
            table = Path(folder).name
            if table not in todo:
                return list_names(self, folder)
            todo.remove(table)
            return [name.removesuffix(".parquet") for name in stale[table]]

        return listing

    monkeypatch.setattr(TableStorage, "names", torn(TableStorage.names))
    assert ours(str(tmp_path)) == expected(range(4))


def test_a_folder_that_never_holds_still_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trial(Ledger(tmp_path), 0)
    monkeypatch.setattr(TableStorage, "read", lambda *_: None)
    with pytest.raises(InputError, match="read it again"):
        Ledger(tmp_path).read("trials")


def test_two_that_merge_at_once_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.seal(write_trial(ledger, 0))
    monkeypatch.setattr(TableStorage, "read", lambda *_: None)
    with pytest.raises(InputError, match="let one study at a time write here"):
        ledger.merge()


def test_only_old_unfinished_files_of_our_own_are_deleted_and_only_by_a_writer(
    tmp_path: Path,
) -> None:
    write_trial(Ledger(tmp_path), 0)
    folder = tmp_path / "metrics"
    ours_, young = f".t-1.{'ab' * 16}.tmp", f".t-2.{'ab' * 16}.tmp"
    kept = {young, ".t-1.abc.tmp", ".hidden.parquet", f"t-1.{'ab' * 16}.tmp", ".DS_Store"}
    for name in (ours_, *kept):
        (folder / name).write_bytes(b"half a file")
        if name != young:
            os.utime(folder / name, (time.time() - 3700,) * 2)
    reader = Ledger(tmp_path)
    assert reader.exists()
    assert reader.read("metrics").num_rows == EPOCHS
    assert (folder / ours_).exists()
    write_trial(reader, 1)
    assert not (folder / ours_).exists()
    assert kept <= names(tmp_path, "metrics")


def test_the_name_of_a_merged_file_is_not_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        Ledger(tmp_path).write("trials", [], "merged-part-1")


def test_what_was_sealed_is_not_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    name = write_trial(ledger, 0)
    ledger.seal(name)
    for _ in range(2):  # before and after it is merged
        for written in (name, f"{name}-test"):
            with pytest.raises(ValueError, match="was sealed"):
                ledger.write("trials", [], written)
        ledger.merge()
    write_trial(ledger, 0, attempt=2)


def test_a_ledger_is_imported_without_torch_and_ray() -> None:
    script = (
        "import sys, dsgkd.ledger\n"
        "print({'torch', 'ray', 'pandas', 'transformers'} & {n.split('.')[0] for n in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "set()", run.stderr
