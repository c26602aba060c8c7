"""The ledger is whole at every moment, typed, free of text, and clear about what went wrong."""

import errno
import json
import os
import pickle
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import (
    LocalFileSystem,
    PyFileSystem,
    SubTreeFileSystem,
    _MockFileSystem,
)
from remote import Remote
from s3_server import new_bucket

from dsgkd.errors import InputError
from dsgkd.ledger import (
    LEDGER_SCHEMA_VERSION,
    SCHEMAS,
    VERSION_KEY,
    Ledger,
    NotALedger,
    find_ledgers,
    frames,
)
from dsgkd.storage import location
from dsgkd.storage.location import Location

ROOT = Path(__file__).parents[3]
KEY = {"study_id": "s", "trial_id": "t", "attempt": 0}
NOTE = "환아 fever 39 and vomiting"


def epochs(count: int) -> list[dict[str, Any]]:
    return [{**KEY, "epoch": i, "step": count, "split": "train"} for i in range(count)]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_read_back_sorted_by_its_key(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.write("metrics", [{**KEY, "attempt": 1, "epoch": 0, "loss": np.float32(0.5)}], "a")
    rows = [
        {**KEY, "epoch": np.int64(e), "measures": {"auroc": np.float64(0.1 * e), "f1": None}}
        for e in (2, 0)
    ]
    ledger.write("metrics", rows, "b")
    assert ledger.read("metrics").schema.equals(SCHEMAS["metrics"])
    assert ledger.rows("metrics", "attempt", "epoch", "loss", "measures") == [
        {"attempt": 0, "epoch": 0, "loss": None, "measures": {"auroc": 0.0}},
        {"attempt": 0, "epoch": 2, "loss": None, "measures": {"auroc": 0.2}},
        {"attempt": 1, "epoch": 0, "loss": 0.5, "measures": None},
    ]


def test_a_second_write_under_the_same_name_replaces_the_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("metrics", epochs(5), "t-0")
    ledger.write("metrics", epochs(2), "t-0")
    assert ledger.read("metrics").num_rows == 2
    assert files(tmp_path / "metrics") == {"schema.parquet", "t-0.parquet"}


def test_a_ledger_knows_when_it_last_changed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.changed_at() is None
    ledger.write("metrics", epochs(1), "t-0")
    for path in tmp_path.rglob("*.parquet"):
        os.utime(path, (1000.0, 1000.0))
    assert ledger.changed_at() == datetime.fromtimestamp(1000, UTC)
    ledger.write("trials", [KEY], "t-0")
    assert abs(ledger.changed_at().timestamp() - time.time()) < 60


def test_every_file_carries_the_schema_version_and_every_table_reads_from_the_first_write(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    assert not ledger.exists()
    ledger.write("studies", [{"study_id": "s"}], "s")
    assert ledger.exists()
    for table, schema in SCHEMAS.items():
        assert list(pd.read_parquet(tmp_path / table).columns) == schema.names
    for path in tmp_path.rglob("*.parquet"):
        assert pq.read_schema(path).metadata[VERSION_KEY] == str(LEDGER_SCHEMA_VERSION).encode()


def test_values_keep_their_types(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    ledger.write(
        "studies",
        [
            {
                "study_id": "s",
                "created_at": moment,
                "configuration": {"a": [1]},
                "budget": '{"b": 2}',
            }
        ],
        "s",
    )
    ledger.write(
        "predictions",
        [{**KEY, "example_id": "0" * 32, "probability": np.array([0.25, 0.75])}],
        "t-0",
    )
    (study,) = ledger.rows("studies")
    assert study["created_at"] == moment
    assert study["configuration"] == {"a": [1]}
    assert study["budget"] == {"b": 2}
    assert json.loads(ledger.read("studies")["budget"][0].as_py()) == {"b": 2}
    ledger.write("studies", [study], "s")  # what is read can be written again as it is
    assert ledger.rows("studies") == [study]
    probability = ledger.read("predictions").column("probability")
    assert probability.type == pa.list_(pa.float32())
    assert probability.to_pylist() == [[0.25, 0.75]]


@pytest.mark.slow
def test_readers_see_only_whole_files_while_a_file_is_being_replaced(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("metrics", epochs(3), "t-0")
    folder = tmp_path / "metrics"
    readers: list[Callable[[], pd.DataFrame]] = [
        lambda: pd.read_parquet(folder),
        lambda: ds.dataset(folder).to_table(filter=ds.field("epoch") >= 0).to_pandas(),
        lambda: ledger.read("metrics").to_pandas(),
    ]
    done, writes = threading.Event(), 0

    def write() -> None:
        nonlocal writes
        while not done.is_set():
            writes += 1
            ledger.write("metrics", epochs(1 + 701 * writes % 997), "t-0")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while writes < 100:
            for read in readers:
                frame = read().sort_values("epoch")
                assert frame.epoch.tolist() == list(range(frame.step.iloc[0]))
    finally:
        done.set()
        thread.join()


MEASURED = {**KEY, "measures": {"auroc": 0.5, "f1": 0.25}, "raw": {"ce": 1.0}}


def test_duckdb_reads_the_ledger_and_its_maps(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    Ledger(tmp_path).write("metrics", [MEASURED] * 4, "t-0")
    (tmp_path / "metrics" / ".t-0.abc.tmp").write_bytes(b"half a file")
    query = f"select count(*), sum(measures['auroc']) from '{tmp_path}/metrics/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(4, 2.0)]


def test_polars_reads_the_ledger_and_its_maps(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    Ledger(tmp_path).write("metrics", [MEASURED] * 4, "t-0")
    found = polars.read_parquet(f"{tmp_path}/metrics/*.parquet")["measures"].to_list()[0]
    pairs = found if isinstance(found, dict) else {one["key"]: one["value"] for one in found}
    assert pairs == MEASURED["measures"]


def test_pandas_reads_the_maps_as_pairs(tmp_path: Path) -> None:
    Ledger(tmp_path).write("metrics", [MEASURED], "t-0")
    (pairs,) = pd.read_parquet(tmp_path / "metrics").measures
    assert dict(pairs) == MEASURED["measures"]


def test_frames_have_a_column_for_every_setting_measure_term_and_subgroup(tmp_path: Path) -> None:
    one, two = Ledger(tmp_path / "one"), Ledger(tmp_path / "two")
    one.write("metrics", [MEASURED], "t-0")
    two.write("metrics", [{**KEY, "attempt": 1, "weighted": {"ce": 2.0}, "loss": 2.0}], "t-1")
    metrics = frames([one, two], "metrics")
    assert metrics.attempt.tolist() == [0, 1]
    assert metrics.auroc.tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert metrics.loss_ce.tolist() == pytest.approx([np.nan, 2.0], nan_ok=True)
    assert metrics.raw_ce.tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert not {"measures", "raw", "weighted"} & set(metrics)
    settings = [
        {"alpha": 1, "teacher": "a", "layers": [1, 2], "mixed": 1, "freeze": True},
        {"alpha": 2.5, "mixed": "all", "batch_size": 32},
        {"alpha": None, "batch_size": 64},
    ]
    one.write("trials", [{**KEY, "attempt": i, "settings": s} for i, s in enumerate(settings)], "t")
    trials = frames([one], "trials")
    assert trials.alpha.tolist() == pytest.approx([1.0, 2.5, np.nan], nan_ok=True)
    assert trials.batch_size.dropna().tolist() == [32, 64]
    assert str(trials.batch_size.dtype) == "Int64"
    assert trials.layers[0] == "[1, 2]"
    assert trials.mixed.tolist()[:2] == ["1", "all"]
    row = {**KEY, "example_id": "0" * 32, "subgroups": {"ward": "응급실"}}
    one.write("predictions", [row], "t-0-test")
    assert frames([one], "predictions").subgroup_ward.tolist() == ["응급실"]


def test_a_frame_of_no_rows_has_the_columns_of_the_schema(tmp_path: Path) -> None:
    for table, schema in SCHEMAS.items():
        assert set(frames([Ledger(tmp_path)], table)) <= set(schema.names)


def test_temporary_and_foreign_hidden_files_are_not_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("metrics", epochs(2), "t-0")
    for name in (".t-0.abc.tmp", ".hidden.parquet", "_x.parquet", "README.txt"):
        (tmp_path / "metrics" / name).write_bytes(b"half a file")
    assert ledger.read("metrics").num_rows == 2


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("metrics", {"note": NOTE}, "has no column note"),
        ("metrics", {"loss": NOTE}, "metrics.loss: a value that is no double"),
        ("metrics", {"epoch": 1.5}, "metrics.epoch: a value that is no int64"),
        ("metrics", {"trial_id": None}, "metrics.trial_id: missing in 1 rows"),
        ("metrics", {"split": NOTE}, "metrics.split: a value other than"),
        ("trials", {"state": "done"}, "trials.state: a value other than complete"),
        ("trials", {"settings": {1, 2}}, "trials.settings: a value that is no JSON"),
        ("trials", {"settings": NOTE}, "trials.settings: a value that is no JSON"),
        ("trials", {"settings": {"x": float("nan")}}, "trials.settings: a value that is no JSON"),
        ("trials", {"settings": {"seed": 1}}, "trials.settings: seed is a column itself"),
        ("metrics", {"measures": {"loss": 1.0}}, "metrics.measures: loss is a column itself"),
        ("metrics", {"measures": {NOTE: 1.0}}, "metrics.measures: a name that is no name"),
        ("metrics", {"raw": {"ce": NOTE}}, "metrics.raw: a value that is no map"),
        ("metrics", {"weighted": [1.0]}, "metrics.weighted: a value that is no map"),
        ("predictions", {"subgroups": {"ward": 7}}, "subgroups: a value that is no category"),
        ("predictions", {"subgroups": {"ward": NOTE * 4}}, "subgroups: a value that is no cat"),
        ("test_reads", {"models": 3}, "test_reads.read: missing in 1 rows"),
        ("trials", {"started_at": datetime(2026, 1, 1)}, "without a time zone"),
        ("predictions", {"example_id": NOTE}, "predictions.example_id: a value that is no hex"),
        ("predictions", {"group_id": "1234567"}, "predictions.group_id: a value that is no hex"),
        ("predictions", {"probability": [NOTE]}, "predictions.probability: a value that is no"),
    ],
)
def test_a_mistake_of_the_program_is_refused_without_showing_the_value(
    tmp_path: Path, table: Any, change: dict[str, Any], problem: str
) -> None:
    row = {**KEY, **({"example_id": "0" * 32} if table == "predictions" else {}), **change}
    row = {"study_id": "s", **change} if table == "test_reads" else row
    with pytest.raises(ValueError, match=problem) as caught:
        Ledger(tmp_path).write(table, [row], "x")
    assert "fever" not in str(caught.value)
    assert files(tmp_path) == set()


def test_no_column_can_hold_a_text() -> None:
    names = {name for schema in SCHEMAS.values() for name in schema.names}
    assert not names & {"text", "note", "words", "tokens", "input_ids"}


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "_a", "a b", "é", "a" * 201])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        Ledger(tmp_path).write("metrics", epochs(1), name)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "no permission"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failing_disk_is_one_line_and_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("metrics", epochs(1), "t-0")
    before = files(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(InputError, match=words) as caught:
        ledger.write("metrics", epochs(9), "t-0")
    assert "\n" not in str(caught.value)
    assert "t-0.parquet" in str(caught.value)
    assert files(tmp_path) == before
    assert ledger.read("metrics").num_rows == 1


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Ledger(tmp_path / "ledger").write("metrics", epochs(1), "t-0")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        Ledger(tmp_path / "ledger").write("metrics", epochs(1), "t-0")


@pytest.mark.slow
def test_a_really_full_disk_is_one_line_and_leaves_no_half_file(on_a_small_disk) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from dsgkd.errors import InputError
        from dsgkd.ledger import Ledger
        ledger, key = Ledger(sys.argv[1]), {"study_id": "s", "trial_id": "t", "attempt": 0}
        ledger.write("metrics", [{**key, "epoch": 1}], "t-0")
        rows = [{**key, "example_id": os.urandom(16).hex()} for _ in range(20_000)]
        try:
            ledger.write("predictions", rows, "t-0")
        except InputError as error:
            print(error, ledger.read("metrics").num_rows, os.listdir(sys.argv[1] + "/predictions"))
        """
    )
    run = on_a_small_disk(script, 256)
    assert run.returncode == 0, run.stderr
    assert "predictions/t-0.parquet: no space left on the disk" in run.stdout
    assert run.stdout.strip().endswith("1 ['schema.parquet']")


def test_a_file_system_without_local_paths_is_written_and_read() -> None:
    ledger = Ledger("bucket/ledger", _MockFileSystem())
    ledger.write("metrics", epochs(4), "t-0")
    ledger.write("metrics", epochs(2), "t-0")
    assert ledger.read("metrics").num_rows == 2
    assert ledger.exists()


def test_uris_sub_trees_and_paths_lead_to_the_same_ledger(tmp_path: Path) -> None:
    sub_tree = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    Ledger("a/ledger", sub_tree).write("metrics", epochs(3), "t-0")
    assert Ledger((tmp_path / "a" / "ledger").as_uri()).read("metrics").num_rows == 3
    assert Ledger(str(tmp_path / "a" / "ledger")).read("metrics").num_rows == 3


def test_an_object_store_is_written_in_one_upload_and_anything_else_by_a_move() -> None:
    store, other = Remote("s3"), Remote("hdfs")
    for handler in (store, other):
        ledger = Ledger("bucket/ledger", PyFileSystem(handler))
        ledger.write("metrics", epochs(4), "t-0")
        ledger.write("metrics", epochs(2), "t-0")
        assert ledger.read("metrics").num_rows == 2
    assert store.moves == 0
    assert other.moves == len(SCHEMAS) + 2


def test_a_lost_connection_is_one_line_and_leaves_no_temporary_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(location, "PAUSES", ())
    remote = Remote("hdfs")
    ledger = Ledger("bucket/ledger", PyFileSystem(remote))
    ledger.write("metrics", epochs(1), "t-0")
    before = set(remote.fs.store)
    remote.lose_moves = True
    with pytest.raises(InputError, match="connection lost"):
        ledger.write("metrics", epochs(4), "t-0")
    assert set(remote.fs.store) == before
    assert ledger.read("metrics").num_rows == 1


def test_a_place_of_no_known_kind_is_one_line() -> None:
    with pytest.raises(InputError, match=r"no storage that can be used"):
        Ledger("nowhere://bucket/x")


def test_ledgers_are_found_from_themselves_their_study_and_the_folder_of_studies(
    tmp_path: Path,
) -> None:
    for study in ("a", "b"):
        Ledger(tmp_path / study / "ledger").write("studies", [{"study_id": study}], "study")
    (tmp_path / "no study").mkdir()
    for place, count in ((tmp_path / "a" / "ledger", 1), (tmp_path / "a", 1), (tmp_path, 2)):
        for root in (place, place.as_uri()):
            found = find_ledgers(root)
            assert [one.rows("studies")[0]["study_id"] for one in found] == ["a", "b"][:count]
    for place in (tmp_path / "no study", tmp_path / "none"):
        with pytest.raises(NotALedger, match=place.name):
            find_ledgers(place)


def test_a_ledger_in_object_storage_is_written_merged_found_and_read(endpoint: str) -> None:
    study = Location(new_bucket(endpoint))
    ledger = Ledger(study.child("ledger"))
    ledger.write("studies", [{"study_id": "s"}], "study")
    for attempt in range(3):
        ledger.write("metrics", [{**MEASURED, "attempt": attempt}], f"t-{attempt}")
    ledger.seal("t-0", "t-1")
    ledger.merge()
    (found,) = find_ledgers(study.root)
    assert frames([found], "metrics").auroc.tolist() == [0.5] * 3
    assert len(study.list("ledger/metrics")) == 3  # the schema, one merged file and t-2
    assert found.changed_at() is not None
    pickle.loads(pickle.dumps(found)).write("trials", [KEY], "t-2")
    assert found.rows("trials", "trial_id") == [{"trial_id": "t"}]


def test_a_ledger_travels_to_another_process(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Ledger(tmp_path))).write("metrics", epochs(1), "t-0")
    assert Ledger(tmp_path).read("metrics").num_rows == 1


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (b"99", r"ledger version 99.*install a newer dsgkd"),
        (b"1", r"ledger version 1, but this dsgkd reads version 2: read it with the dsgkd that"),
    ],
)
def test_a_file_of_another_version_is_refused_and_says_what_to_do(
    tmp_path: Path, version: bytes, problem: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("metrics", epochs(1), "t-0")
    other = SCHEMAS["metrics"].with_metadata({VERSION_KEY: version})
    pq.write_table(other.empty_table(), tmp_path / "metrics" / "other.parquet")
    with pytest.raises(NotALedger, match=problem) as caught:
        ledger.read("metrics")
    assert "\n" not in str(caught.value)


def test_files_from_before_a_column_was_added_are_read_beside_newer_ones(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for table, column in (("metrics", "share"), ("trials", "stuck")):
        ledger.write(table, [{**KEY, "attempt": 1}], "old")
        file = tmp_path / table / "old.parquet"
        pq.write_table(pq.read_table(file).drop_columns([column]), file)
    ledger.write("metrics", [{**KEY, "attempt": 2, "share": {"ce": 0.25, "hidden": 0.75}}], "new")
    ledger.write("trials", [{**KEY, "attempt": 2, "stuck": True}], "new")

    metrics, trials = frames([ledger], "metrics"), frames([ledger], "trials")

    assert metrics.share_hidden.tolist() == pytest.approx([np.nan, 0.75], nan_ok=True)
    assert trials.stuck.isna().tolist() == [True, False]
    assert trials.stuck[1]


@pytest.mark.parametrize("content", [b"", b"PAR1 this is no Parquet file PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("metrics", epochs(1), "t-0")
    (tmp_path / "metrics" / "x.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.parquet: not a file of a ledger"):
        ledger.read("metrics")
