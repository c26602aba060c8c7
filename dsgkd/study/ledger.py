"""What does a study write down, and how can it be read at any moment?

A ledger is a folder with one sub-folder per table and many small Parquet files in each, one per
writer. A file is only ever replaced as a whole, so pandas, DuckDB or polars can read the folders
while a study runs; every file carries the schema version in its metadata. The key of a row is
(study_id, trial_id, attempt, epoch) and is stable over resumption.

No column can hold the text of a note, and the ids of examples and patients must be keyed hashes.
"""

import errno
import json
import os
import posixpath
import re
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from numbers import Integral
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, SubTreeFileSystem

from dsgkd.errors import InputError

Table = Literal["studies", "trials", "metrics", "predictions"]

LEDGER_SCHEMA_VERSION = 1
"""Raised when a column changes its meaning; readers refuse a version that they do not know."""

VERSION_KEY = b"dsgkd_ledger_version"
"""Key of the schema version in the metadata of every file."""

_MOMENT = pa.timestamp("us", tz="UTC")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns, metadata={VERSION_KEY: str(LEDGER_SCHEMA_VERSION).encode()})


SCHEMAS: dict[Table, pa.Schema] = {
    "studies": _schema(
        study_id=pa.string(),
        name=pa.string(),
        created_at=_MOMENT,
        dsgkd_version=pa.string(),
        git_commit=pa.string(),
        python_version=pa.string(),
        torch_version=pa.string(),
        ray_version=pa.string(),
        transformers_version=pa.string(),
        optuna_version=pa.string(),
        hardware=pa.string(),  # JSON
        data_fingerprint=pa.string(),
        row_counts=pa.string(),  # JSON: {split: rows}
        label_counts=pa.string(),  # JSON: {split: {label: rows}}
        configuration=pa.string(),  # JSON: the whole configuration
        seed=pa.int64(),
        budget=pa.string(),  # JSON
        lock_hash=pa.string(),  # SHA-256 of the installed packages and their versions
        environment=pa.string(),  # JSON: {package: version}
    ),
    "trials": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        stage=pa.string(),
        state=pa.string(),
        reason=pa.string(),  # why it was pruned, failed or pre-empted; never any note text
        method=pa.string(),
        student=pa.string(),
        teacher=pa.string(),
        layer_mapping=pa.string(),
        criterion=pa.string(),
        alpha=pa.float64(),
        beta=pa.float64(),
        cs_max_len=pa.int64(),
        encoder_lr=pa.float64(),
        classifier_lr=pa.float64(),
        batch_size=pa.int64(),
        seed=pa.int64(),
        other=pa.string(),  # JSON: every other searched value
        workers=pa.int64(),
        started_at=_MOMENT,
        ended_at=_MOMENT,
        epochs_done=pa.int64(),
        best_epoch=pa.int64(),
        objective=pa.float64(),  # the measure named in the configuration, on validation
        worker_seconds=pa.float64(),
        gpu_seconds=pa.float64(),
        peak_rss_mb=pa.float64(),
        peak_gpu_mb=pa.float64(),
        teacher_store=pa.string(),
        checkpoint=pa.string(),  # folder, relative to the study's
        objectives=pa.string(),  # JSON: {name: value}, where there are several or constraints
        parameters=pa.string(),  # JSON: {name: {value, distribution}}, what the search drew
        configuration=pa.string(),  # JSON: the whole run, from which it can be trained again
    ),
    "metrics": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        epoch=pa.int64(),
        step=pa.int64(),
        split=pa.string(),
        loss=pa.float64(),
        loss_ce=pa.float64(),
        loss_hidden=pa.float64(),
        loss_attention=pa.float64(),
        accuracy=pa.float64(),
        auroc=pa.float64(),
        auprc=pa.float64(),
        f1=pa.float64(),
        precision=pa.float64(),
        recall=pa.float64(),
        brier=pa.float64(),
        ece=pa.float64(),
        threshold=pa.float64(),
        examples_per_second=pa.float64(),
        seconds=pa.float64(),
    ),
    "predictions": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        split=pa.string(),
        example_id=pa.string(),
        group_id=pa.string(),
        label=pa.int64(),
        probability=pa.list_(pa.float32()),  # one per class
        words_transferred=pa.int64(),
        length=pa.int64(),  # tokens of the student
    ),
}

JSON_COLUMNS = frozenset(
    {"hardware", "row_counts", "label_counts", "configuration", "budget", "other"}
    | {"environment", "objectives", "parameters"}
)
"""Columns that hold JSON: give any JSON value, or a string that already is JSON."""

ALLOWED: dict[str, frozenset[str]] = {
    "stage": frozenset({"search", "confirm", "control", "test"}),
    "state": frozenset({"running", "complete", "pruned", "failed", "preempted"}),
    "teacher_store": frozenset({"hit", "miss", "off"}),
    "split": frozenset({"train", "validation", "test"}),
}
"""Columns with a closed set of values."""

_REQUIRED = frozenset({"study_id", "trial_id", "attempt", "example_id"})
_HASHES = frozenset({"example_id", "group_id"})
_ORDER = ("study_id", "trial_id", "attempt", "epoch", "step", "split", "example_id")
# Hidden files and files with a leading underscore are skipped by readers of Parquet folders.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# A file of no rows, so that every table can be read with its columns from the first moment on.
_EMPTY = "schema"
# An upload to these becomes visible as a whole when it ends; a move would be copy and delete.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})


class Ledger:
    """The four tables of a study below one folder.

    `root` is a local path or any URI that `pyarrow.fs` knows (`file://`, `s3://`, ...); with
    `filesystem` it is a path in that file system. Nothing is created before the first write.
    Instances can be pickled and several processes may write, each under names of its own.
    """

    def __init__(self, root: str | os.PathLike[str], filesystem: FileSystem | None = None) -> None:
        self.root = os.fspath(root)
        if filesystem is not None:
            self._fs, self._path = filesystem, self.root
        elif "://" in self.root:
            try:
                self._fs, self._path = FileSystem.from_uri(self.root)
            except (ValueError, OSError) as error:
                raise InputError(
                    self.root,
                    "not a place where a ledger can be kept",
                    "give a local folder or a URI such as s3://bucket/folder",
                ) from error
        else:
            self._fs, self._path = LocalFileSystem(), os.path.abspath(self.root)
        while isinstance(self._fs, SubTreeFileSystem):
            self._path = posixpath.join(self._fs.base_path, self._path.lstrip("/"))
            self._fs = self._fs.base_fs
        self._prepared = False

    def exists(self) -> bool:
        """Whether anything was ever written here."""
        return any(self._files(table) for table in SCHEMAS)

    def changed_at(self) -> datetime | None:
        """When a file of the ledger last changed; None where there is none."""
        files = [path for table in SCHEMAS for path in self._files(table)]
        moments = [info.mtime for info in self._fs.get_file_info(files) if info.mtime is not None]
        return max(moments, default=None)

    def write(self, table: Table, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Replace `<table>/<name>.parquet` by these rows, as a whole or not at all.

        A column that a row lacks becomes null. Raises ValueError for an unknown column, a value
        of the wrong type or a bad name (mistakes of the program; the message never shows the
        value), and InputError where the disk is full or the place cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"ledger: not a file name: {name!r}")
        data = _serialised(_columns(table, rows))
        if not self._prepared:
            self._prepare()
        self._replace(table, name, data)

    def read(self, table: Table) -> pa.Table:
        """All rows of a table, sorted by their key; an empty table where there are none."""
        schema = SCHEMAS[table]
        with ThreadPoolExecutor(8) as pool:
            parts = [schema.empty_table(), *pool.map(self._read_file, self._files(table))]
        known = [part.select([c for c in part.column_names if c in schema.names]) for part in parts]
        whole = pa.concat_tables(known, promote_options="default")
        return whole.sort_by([(key, "ascending") for key in _ORDER if key in schema.names])

    def _files(self, table: str) -> list[str]:
        selector = FileSelector(posixpath.join(self._path, table), allow_not_found=True)
        return sorted(
            info.path
            for info in self._fs.get_file_info(selector)
            if info.type == FileType.File
            and info.extension == "parquet"
            and _NAME.fullmatch(info.base_name)
        )

    def _read_file(self, path: str) -> pa.Table:
        # One request for the whole file: several could fall on both sides of a replacement.
        with self._fs.open_input_stream(path) as stream:
            content = stream.read()
        try:
            part = pq.read_table(pa.BufferReader(content))
            version = int((part.schema.metadata or {})[VERSION_KEY])
        except (pa.ArrowException, KeyError, OSError) as error:
            raise InputError(
                path, "not a file of a ledger", "move it out of the ledger's folder"
            ) from error
        if version > LEDGER_SCHEMA_VERSION:
            raise InputError(
                path,
                f"ledger version {version}, but this dsgkd knows up to {LEDGER_SCHEMA_VERSION}",
                "install a newer dsgkd",
            )
        return part

    def _prepare(self) -> None:
        # `studies` comes last: where it is, all four are.
        for table in reversed(SCHEMAS):
            if not self._files(table):
                self._replace(table, _EMPTY, _serialised(SCHEMAS[table].empty_table()))
        self._prepared = True

    def _replace(self, table: str, name: str, data: pa.Buffer) -> None:
        folder = posixpath.join(self._path, table)
        target = posixpath.join(folder, f"{name}.parquet")
        hidden = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            if isinstance(self._fs, LocalFileSystem):
                _replace_local(folder, target, hidden, data)
            elif self._fs.type_name.removeprefix("py::") in _OBJECT_STORES:
                _upload(self._fs, target, data)
            else:
                self._fs.create_dir(folder, recursive=True)
                try:
                    _upload(self._fs, hidden, data)
                    self._fs.move(hidden, target)
                except BaseException:
                    if self._fs.get_file_info(hidden).type == FileType.File:
                        self._fs.delete_file(hidden)
                    raise
        except OSError as error:
            raise _unwritable(target, error) from error


def _columns(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as an Arrow table of the right schema, checked column by column."""
    schema = SCHEMAS[table]
    if unknown := {column for row in rows for column in row} - set(schema.names):
        raise ValueError(f"ledger table {table!r} has no column {', '.join(sorted(unknown))}")
    arrays = [_array(table, field, [row.get(field.name) for row in rows]) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(table: str, field: pa.Field, values: list[Any]) -> pa.Array:
    where = f"ledger column {table}.{field.name}"
    if field.name in JSON_COLUMNS:
        values = [_json(where, value) for value in values]
    if field.type == _MOMENT and any(isinstance(v, datetime) and not v.tzinfo for v in values):
        raise ValueError(f"{where}: a time without a time zone")
    if field.type == pa.int64() and not all(v is None or isinstance(v, Integral) for v in values):
        raise ValueError(f"{where}: a value that is no int64")  # Arrow would cut 1.5 to 1
    try:
        array = pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError, TypeError):
        # Arrow's own message shows the value, and a misplaced value might be a note.
        raise ValueError(f"{where}: a value that is no {field.type}") from None
    if field.name in _REQUIRED and array.null_count:
        raise ValueError(f"{where}: missing in {array.null_count} rows")
    if field.name in _HASHES and not _all(pc.match_substring_regex(array, r"^[0-9a-f]{16,128}$")):
        raise ValueError(f"{where}: a value that is no hexadecimal hash")
    if field.name in ALLOWED:
        allowed = sorted(ALLOWED[field.name])
        if not _all(pc.is_in(array, value_set=pa.array([*allowed, None], pa.string()))):
            raise ValueError(f"{where}: a value other than {', '.join(allowed)}")
    return array


def _all(flags: pa.Array) -> bool:
    return pc.all(flags, min_count=0).as_py()


def _json(where: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            json.loads(value)
            return value
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a value that is no JSON") from None


def _serialised(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _replace_local(folder: str, target: str, hidden: str, data: pa.Buffer) -> None:
    os.makedirs(folder, exist_ok=True)
    try:
        with open(hidden, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, target)
    except BaseException:
        if os.path.exists(hidden):
            os.unlink(hidden)
        raise
    descriptor = os.open(folder, os.O_RDONLY)  # makes the rename itself outlive a power cut
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _upload(filesystem: FileSystem, path: str, data: pa.Buffer) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def _unwritable(path: str, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, remedy = "no space left on the disk", "free some, or choose another place with --out"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what, remedy = "no permission to write here", "grant it, or choose another place with --out"
    else:
        what = f"cannot be written ({error.strerror or str(error)[:200]})"
        remedy = "choose another place with --out"
    return InputError(path, what, remedy)
