"""Where does a ledger lie, and how is a file there replaced as a whole, or not at all?"""

import os
import posixpath
import re
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem
from pyarrow.fs import SubTreeFileSystem as SubTree

from dsgkd.errors import InputError, StorageError

T = TypeVar("T")

STALE = timedelta(hours=1)
"""After this time without a change, an unfinished file was left by a writer that was killed."""

# Hidden files and files with a leading underscore are skipped by readers of Parquet folders.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_UNFINISHED = re.compile(rf"\.{_NAME.pattern}\.[0-9a-f]{{32}}\.tmp")
# An upload to these becomes visible as a whole when it ends; a move would be copy and delete.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})


def is_name(name: str) -> bool:
    """Whether a file may have this name."""
    return bool(_NAME.fullmatch(name))


class TableStorage:
    """A folder of tables, each a folder of Parquet files that are named without their suffix.

    `root` is a local path or any URI that `pyarrow.fs` knows; with `filesystem` it is a path in
    that file system.
    """

    def __init__(self, root: str, filesystem: FileSystem | None) -> None:
        if filesystem is not None:
            self._fs, self._path = filesystem, root
        elif "://" in root:
            try:
                self._fs, self._path = FileSystem.from_uri(root)
            except (ValueError, OSError) as error:
                raise InputError(
                    root,
                    "not a storage where a ledger can be kept",
                    "give a local folder or a URI such as s3://bucket/folder",
                ) from error
        else:
            self._fs, self._path = LocalFileSystem(), os.path.abspath(root)
        while isinstance(self._fs, SubTree):
            self._path = posixpath.join(self._fs.base_path, self._path.lstrip("/"))
            self._fs = self._fs.base_fs

    def path(self, table: str, name: str) -> str:
        """The path of a file."""
        return posixpath.join(self._path, table, f"{name}.parquet")

    def names(self, table: str) -> list[str]:
        """The names of a table's files, sorted."""
        stems = (
            info.base_name.removesuffix(".parquet")
            for info in self._infos(table)
            if info.extension == "parquet"
        )
        return sorted(stem for stem in stems if is_name(stem))

    def changed_at(self, table: str) -> datetime | None:
        """When a file of a table last changed; None where there is none."""
        return max((info.mtime for info in self._infos(table) if info.mtime), default=None)

    def read(self, table: str, name: str) -> pa.Buffer | None:
        """The bytes of a file; None if there is none."""
        # One request for the whole file: several could fall on both sides of a replacement.
        try:
            with self._fs.open_input_stream(self.path(table, name)) as stream:
                return stream.read_buffer()
        except FileNotFoundError:
            return None

    def open(self, table: str, name: str) -> pa.NativeFile:
        """A file that is never replaced, for reading parts of it."""
        return self._fs.open_input_file(self.path(table, name))

    def write(self, table: str, name: str, data: pa.Buffer) -> None:
        """Write a file, or replace it, as a whole.

        Raises:
            StorageError: the disk is full, or the storage cannot be written; nothing was changed.
        """
        target = self.path(table, name)
        folder = posixpath.dirname(target)
        hidden = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            if isinstance(self._fs, LocalFileSystem):
                _write_local(folder, target, hidden, data)
            elif self._fs.type_name.removeprefix("py::") in _OBJECT_STORES:
                self._upload(target, data)
            else:
                self._fs.create_dir(folder, recursive=True)
                try:
                    self._upload(hidden, data)
                    self._fs.move(hidden, target)
                except BaseException:
                    if self._fs.get_file_info(hidden).type == FileType.File:
                        self._fs.delete_file(hidden)
                    raise
        except OSError as error:
            raise StorageError.of(target, error) from error

    def delete(self, table: str, names: Iterable[str]) -> None:
        """Delete files, as far as they are there.

        Raises:
            StorageError: the storage cannot be written.
        """
        self._delete([self.path(table, name) for name in names])

    def delete_stale(self, table: str) -> None:
        """Delete what writers that were killed left unfinished."""
        before = datetime.now(UTC) - STALE
        self._delete(
            [
                info.path
                for info in self._infos(table)
                if _UNFINISHED.fullmatch(info.base_name) and info.mtime and info.mtime < before
            ]
        )

    def _infos(self, table: str) -> list[FileInfo]:
        selector = FileSelector(posixpath.join(self._path, table), allow_not_found=True)
        return [info for info in self._fs.get_file_info(selector) if info.type == FileType.File]

    def _delete(self, paths: list[str]) -> None:
        def delete(path: str) -> None:
            try:
                self._fs.delete_file(path)
            except FileNotFoundError:
                return
            except OSError as error:
                raise StorageError.of(path, error) from error

        if paths:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(delete, paths))

    def _upload(self, path: str, data: pa.Buffer) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)


def _write_local(folder: str, target: str, hidden: str, data: pa.Buffer) -> None:
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
