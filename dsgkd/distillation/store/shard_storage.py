"""Where do the shards of a teacher lie?

In a folder (a local disk, or one that all machines see), or behind a URI such as `s3://bucket/x`:
then every node keeps a copy, because only a file on a disk can be mapped into memory. Shards are
never changed, so a copy is never out of date.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType

from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.store.shard import SUFFIX
from dsgkd.errors import InputError, StorageError
from dsgkd.storage.atomic import atomic_write

CARD = "teacher.json"


class ShardStorage:
    """The shards of one teacher: a folder, and where there is a URI, the truth behind it.

    Args:
        folder: from which they are mapped.
        uri: where they are kept for all nodes; empty: in `folder` itself.
    """

    def __init__(self, folder: Path, uri: str = "") -> None:
        self.folder, self._uri = folder, uri
        self._remote: FileSystem | None = None
        self._base = ""
        if uri:
            try:
                self._remote, self._base = FileSystem.from_uri(uri)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _unreachable(uri) from error

    def shards(self) -> list[Path]:
        """Return all shards, fetching those that this node lacks.

        Raises:
            InputError: the storage cannot be reached.
        """
        if self._remote is not None:
            for name in self._names(self._remote):
                if not (self.folder / name).exists():
                    self._fetch(self._remote, name)
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def keep(self, path: Path) -> None:
        """Let the other nodes have a file that was written into `folder`.

        Raises:
            InputError: the storage cannot be reached, or is full.
        """
        if self._remote is None:
            return
        target, hidden = f"{self._base}/{path.name}", f"{self._base}/.{path.name}.tmp"
        try:
            self._remote.create_dir(self._base, recursive=True)
            with path.open("rb") as source, self._remote.open_output_stream(hidden) as sink:
                shutil.copyfileobj(source, sink, 1 << 22)
            self._remote.move(hidden, target)
        except OSError as error:
            raise _unreachable(self._uri) from error

    def discard(self, path: Path) -> None:
        """Remove a shard, here and for all nodes; processes that mapped it keep what they have."""
        path.unlink(missing_ok=True)
        if self._remote is not None:
            try:
                self._remote.delete_file(f"{self._base}/{path.name}")
            except FileNotFoundError:
                pass
            except OSError as error:
                raise _unreachable(self._uri) from error

    def remove(self) -> None:
        """Remove all of it."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            self.discard(path)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._remote is not None:
            try:
                self._remote.delete_dir(self._base)
            except OSError as error:
                raise _unreachable(self._uri) from error

    def describe(self, card: dict[str, Any]) -> None:
        """Say which teacher this is (nothing of any text), and that it is used now."""
        path, is_new = self.folder / CARD, not (self.folder / CARD).exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if is_new:
                with atomic_write(path) as temporary:
                    temporary.write_text(json.dumps(card))
            path.touch()
        except OSError as error:
            raise StorageError.of(self.folder, error, "another --store") from error
        if is_new:
            self.keep(path)

    def _names(self, remote: FileSystem) -> list[str]:
        try:
            selector = FileSelector(self._base, allow_not_found=True)
            found = remote.get_file_info(selector)
        except OSError as error:
            raise _unreachable(self._uri) from error
        names = [info.base_name for info in found if info.type == FileType.File]
        return [n for n in names if n == CARD or (n.endswith(SUFFIX) and not n.startswith("."))]

    def _fetch(self, remote: FileSystem, name: str) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (
                atomic_write(self.folder / name) as temporary,
                remote.open_input_stream(f"{self._base}/{name}") as source,
                temporary.open("wb") as sink,
            ):
                shutil.copyfileobj(source, sink, 1 << 22)
        except OSError as error:
            raise _unreachable(self._uri) from error


def folders(store: StoreConfig, cache: Path) -> Iterator[tuple[str, ShardStorage]]:
    """Yield name and storage of every stored teacher.

    Raises:
        InputError: the storage cannot be reached.
    """
    root = store.root(cache)
    if not store.is_remote:
        for folder in sorted(path for path in root.glob("*") if path.is_dir()):
            yield folder.name, ShardStorage(folder)
        return
    base = store.folder.rstrip("/")
    try:
        remote, path = FileSystem.from_uri(base)
        found = remote.get_file_info(FileSelector(path, allow_not_found=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreachable(base) from error
    for info in found:
        if info.type == FileType.Directory:
            yield info.base_name, ShardStorage(root / info.base_name, f"{base}/{info.base_name}")


def _unreachable(uri: str) -> InputError:
    return InputError(uri, "cannot be reached or written", "check --store and the credentials")
