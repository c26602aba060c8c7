"""A folder on a local disk or in object storage, whose files are whole or not there at all."""

import functools
import os
import posixpath
import random
import re
import shutil
import string
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem
from pyarrow.fs import SubTreeFileSystem as SubTree

from dsgkd.errors import InputError, StorageError
from dsgkd.storage.atomic import atomic_write, sync
from dsgkd.storage.conditional import S3Objects

T = TypeVar("T")

PAUSES: tuple[float, ...] = (0.3, 1.0, 3.0)
"""Seconds before object storage that failed is asked again, each give or take a half."""

_VERSIONS = 50  # of a file that may come while it is read, before that is given up
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# An upload to these becomes visible as a whole when it ends; a move would be copy and delete.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
# To ask again would not help.
_PERMANENT = re.compile(
    r"NO_SUCH|NOT_FOUND|ACCESS_DENIED|INVALID_|SIGNATURE|CREDENTIALS|UNRECOGNIZED|VALIDATION"
    r"|HTTP status (?!408|429)[34]\d\d"
)


@dataclass(frozen=True)
class Entry:
    """A file, as a listing has it."""

    name: str
    """Relative to the location, as `Location.read` takes it."""
    size: int
    """In bytes."""
    modified: datetime


class Location:
    """A folder, and what can be done with the files in it.

    Names are relative to the folder and may have several parts (`metrics/t-1.parquet`); folders
    come into being with their first file. Network faults are retried, then become one line.
    Instances can be pickled.

    Args:
        root: a local path, or a URI that `pyarrow.fs` knows (`file://`, `s3://`, `gs://`, ...).
            The address of an S3 server of one's own stands in the URI
            (`s3://bucket/folder?endpoint_override=http://host:9000`) or in AWS_ENDPOINT_URL.
        filesystem: where `root` is a path in it.

    Raises:
        InputError: a URI of no known kind.
    """

    def __init__(self, root: str | os.PathLike[str], filesystem: FileSystem | None = None) -> None:
        self.root = os.fspath(root)
        """What it was made of: `Location(self.root)` is the same place in any process."""
        if "://" in self.root:  # spaces and letters beyond ASCII
            self.root = quote(self.root, safe=string.punctuation)
        if filesystem is not None:
            self._fs, self._base = filesystem, self.root
        elif "://" in self.root:
            uri = self.root
            if uri.startswith("s3://"):  # then a small file is one request and not three
                uri += f"{'&' if '?' in uri else '?'}allow_delayed_open=true"
            try:
                self._fs, self._base = FileSystem.from_uri(uri)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise InputError(
                    _shown(self.root),
                    "no storage that can be used",
                    "give a local folder or a URI such as s3://bucket/folder",
                ) from error
        else:
            self._fs, self._base = LocalFileSystem(), os.path.abspath(os.path.expanduser(root))
        while isinstance(self._fs, SubTree):
            self._base = posixpath.join(self._fs.base_path, self._base.lstrip("/"))
            self._fs = self._fs.base_fs

    @property
    def is_remote(self) -> bool:
        """Whether files have to be fetched before they can be mapped into memory."""
        return not isinstance(self._fs, LocalFileSystem)

    @property
    def folder(self) -> Path:
        """The folder of a location that is not remote."""
        assert not self.is_remote
        return Path(self._base)

    def path(self, name: str = "") -> str:
        """Return a file's path or URI, for people: without credentials and query."""
        base = _shown(self.root) if "://" in self.root else self._base
        return posixpath.join(base, name) if name else base

    def child(self, name: str) -> "Location":
        """Return a folder below this one."""
        if "://" in self.root:
            parts = urlsplit(self.root)
            path = posixpath.join(parts.path, quote(name))
            return Location(parts._replace(path=path).geturl())
        given = None if isinstance(self._fs, LocalFileSystem) else self._fs
        return Location(posixpath.join(self._base, name), given)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None if there is none.

        Raises:
            StorageError: as all methods, where the storage cannot be reached or written.
        """
        try:
            return self._try(name, lambda: self._stable(name, lambda file: bytes(file.read())))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a file, or replace it, as a whole."""

        def write() -> None:
            if self.is_remote:
                self._upload(self._path(name), data)
                return
            with atomic_write(self._made(name), private=False) as temporary:
                temporary.write_bytes(data)

        self._try(name, write)

    def write_if_absent(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; of several processes at once one succeeds.

        Returns:
            Whether this call wrote it.

        Raises:
            InputError: a kind of storage that has no conditional writes.
        """

        def write() -> bool:
            path = self._made(name)
            hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            try:
                hidden.write_bytes(data)
                sync(hidden)
                os.link(hidden, path)
            except FileExistsError:
                return False
            finally:
                hidden.unlink(missing_ok=True)
            sync(path.parent)
            return True

        if self.is_remote:
            return self.conditional().put(name, data) is not None
        return self._try(name, write)

    def conditional(self) -> S3Objects:
        """Return the way to write here only if nobody else has.

        Raises:
            InputError: there is none.
        """
        if self._kind != "s3" or "://" not in self.root:
            raise InputError(
                self.path(),
                "this storage has no conditional writes, which a lease needs",
                "use a local folder or s3://",
            )
        return S3Objects(self.root, self._try)

    def list(self, folder: str = "") -> Sequence[Entry]:
        """Return the files directly in a folder, sorted by name, without unfinished ones."""
        return [entry for entry in self._files(folder) if not _is_unfinished(entry)]

    def leftovers(self, folder: str = "", age: timedelta = timedelta(hours=1)) -> Sequence[Entry]:
        """Return files so old that whoever was writing them must have been killed."""
        before = datetime.now(UTC) - age
        return [e for e in self._files(folder) if _is_unfinished(e) and e.modified < before]

    def folders(self) -> Sequence[str]:
        """Return the names of the folders directly in this one, sorted."""
        return sorted(i.base_name for i in self._infos("") if i.type == FileType.Directory)

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        info = self._try(name, lambda: self._fs.get_file_info(self._path(name)))
        return info.type != FileType.NotFound

    def delete(self, *names: str) -> None:
        """Delete files, as far as they are there."""

        def delete(name: str) -> None:
            with suppress(FileNotFoundError):
                self._try(name, lambda: self._fs.delete_file(self._path(name)))

        if names:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(delete, names))

    def delete_tree(self, name: str = "") -> None:
        """Delete a folder with all that is in it, if it is there."""
        with suppress(FileNotFoundError):
            self._try(name, lambda: self._fs.delete_dir(self._path(name)))

    def upload(self, name: str, local: Path) -> None:
        """Copy a local file here; on a local disk the copy is its owner's alone."""

        def copy() -> None:
            with atomic_write(self._made(name)) as temporary:
                shutil.copyfile(local, temporary)

        if not self.is_remote:
            self._try(name, copy)
        elif local.stat().st_size:
            # Mapped and written in one call: an upload that is cut off is then never completed.
            with pa.memory_map(str(local)) as source:
                self.write(name, source.read_buffer())
        else:
            self.write(name, b"")

    def download(self, name: str, local: Path) -> None:
        """Copy a file to a local path.

        Raises:
            FileNotFoundError: there is none.
            StorageError: the storage cannot be reached, or the local disk is full.
        """

        def fetch(source: pa.NativeFile) -> None:
            with atomic_write(local) as temporary, temporary.open("wb") as sink:
                while block := source.read(1 << 24):
                    try:
                        sink.write(block)
                    except OSError as error:
                        raise StorageError.of(local, error) from error

        local.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._try(name, lambda: self._stable(name, fetch))

    @property
    def _kind(self) -> str:
        return str(self._fs.type_name.removeprefix("py::"))

    def _path(self, name: str) -> str:
        return posixpath.join(self._base, name) if name else self._base

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _infos(self, folder: str) -> Iterable[FileInfo]:
        selector = FileSelector(self._path(folder), allow_not_found=True)

        def infos() -> Iterable[FileInfo]:
            try:
                return self._fs.get_file_info(selector)
            except NotADirectoryError:
                return ()  # a file has nothing below it

        return self._try(folder, infos)

    def _files(self, folder: str) -> Sequence[Entry]:
        now, files = datetime.now(UTC), []
        for info in self._infos(folder):
            if info.type == FileType.File:
                name = posixpath.join(folder, info.base_name)
                files.append(Entry(name, info.size or 0, info.mtime or now))
        return sorted(files, key=lambda entry: entry.name)

    def _stable(self, name: str, read: Callable[[pa.NativeFile], T]) -> T:
        """Read an open file; again, where it was replaced meanwhile.

        Arrow asks an object store for the size first and then for that many bytes, which may be
        those of the next version, cut off.
        """
        for _ in range(_VERSIONS):
            with self._fs.open_input_file(self._path(name)) as file:
                found = read(file)
                if self._kind not in _OBJECT_STORES:
                    return found
                with self._fs.open_input_file(self._path(name)) as again:
                    if file.metadata() == again.metadata():
                        return found
        raise OSError("changes faster than it can be read")

    def _upload(self, path: str, data: bytes | pa.Buffer) -> None:
        if self._kind in _OBJECT_STORES:
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        folder, base = posixpath.split(path)
        hidden = posixpath.join(folder, f".{base}.{uuid.uuid4().hex}.tmp")
        self._fs.create_dir(folder, recursive=True)
        try:
            with self._fs.open_output_stream(hidden) as stream:
                stream.write(data)
            self._fs.move(hidden, path)
        except BaseException:
            if self._fs.get_file_info(hidden).type == FileType.File:
                self._fs.delete_file(hidden)
            raise

    def _try(self, name: str, action: Callable[[], T]) -> T:
        """Do it; after a network fault wait and do it again.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it failed for good.
        """
        for pause in (*(PAUSES if self.is_remote else ()), None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                if not self.is_remote:
                    raise StorageError.of(self.path(name), error) from error
                if pause is None or _PERMANENT.search(str(error)):
                    raise StorageError.unreachable(self.path(name), error) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
        raise AssertionError


def _is_unfinished(entry: Entry) -> bool:
    return bool(_UNFINISHED.fullmatch(posixpath.basename(entry.name)))


@functools.cache
def _shown(uri: str) -> str:
    """Return a URI without what stands before the host and after the path."""
    parts = urlsplit(uri)
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query="", fragment="").geturl()
