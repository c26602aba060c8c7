"""The shards of a teacher: in a folder, or behind a URI with a copy on each node.

The folder is on a local disk, or on one that all machines see. Only a file on a disk can be mapped
into memory, so every node keeps a copy of what lies in object storage. Shards are never changed, so
a copy is never out of date.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.store.shard import SUFFIX
from dsgkd.errors import StorageError
from dsgkd.storage.atomic import atomic_write
from dsgkd.storage.location import Location

CARD = "teacher.json"


class ShardStorage:
    """The shards of one teacher: a folder, and where there is a URI, the truth behind it.

    Args:
        folder: from which they are mapped.
        remote: where they are kept for all nodes; None or empty: in `folder` itself.
    """

    def __init__(self, folder: Path, remote: Location | str | None = None) -> None:
        self.folder = folder
        self._remote = Location(remote) if isinstance(remote, str) and remote else remote or None

    def shards(self) -> list[Path]:
        """Return all shards, fetching those that this node lacks.

        Raises:
            StorageError: the storage cannot be reached.
        """
        for entry in self._remote.list() if self._remote else ():
            wanted = entry.name == CARD or entry.name.endswith(SUFFIX)
            if self._remote and wanted and not (self.folder / entry.name).exists():
                with suppress(FileNotFoundError):  # discarded since it was listed
                    self._remote.download(entry.name, self.folder / entry.name)
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def keep(self, path: Path) -> None:
        """Let the other nodes have a file that was written into `folder`.

        Raises:
            StorageError: the storage cannot be reached, or is full.
        """
        if self._remote:
            self._remote.upload(path.name, path)

    def discard(self, path: Path) -> None:
        """Remove a shard, here and for all nodes; processes that mapped it keep what they have."""
        path.unlink(missing_ok=True)
        if self._remote:
            self._remote.delete(path.name)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._remote:
            self._remote.delete_tree()

    def describe(self, card: dict[str, Any]) -> None:
        """Note which teacher this is (nothing of any text), and that it is used now."""
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


def shard_storage(store: StoreConfig, cache: Path, name: str) -> ShardStorage:
    """Return the shards of the teacher whose folder has this name."""
    remote = Location(store.folder).child(name) if store.is_remote else None
    return ShardStorage(store.root(cache) / name, remote)


def folders(store: StoreConfig, cache: Path) -> Iterator[tuple[str, ShardStorage]]:
    """Yield name and storage of every stored teacher.

    Raises:
        StorageError: the storage cannot be reached.
    """
    for name in Location(store.folder if store.is_remote else store.root(cache)).folders():
        yield name, shard_storage(store, cache, name)
