"""The stored teachers that are there: listed, checked and removed."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dsgkd.distillation.store.shard import DamagedShard
from dsgkd.distillation.store.shard_storage import CARD, StoreConfig, folders
from dsgkd.distillation.store.states import States
from dsgkd.storage.location import Location

_ABANDONED = timedelta(days=1)
"""After so long a temporary file belongs to nobody."""


@dataclass(frozen=True)
class StoredTeacherEntry:
    """One stored teacher, summed up."""

    name: str
    """Of its folder: teacher, fingerprint and precision."""
    states: States
    size: int
    """Bytes on the disk."""
    used_at: float
    """When a run last opened it, in seconds since 1970."""

    @property
    def texts(self) -> int:
        """Number of texts of which something is stored."""
        return len({key for shard in self.states.shards for key in shard.keys.tolist()})

    def damaged(self) -> list[DamagedShard]:
        """Read everything; return the shards that are not what was written."""
        found = list(self.states.refused)
        for shard in self.states.shards:
            try:
                shard.check()
            except DamagedShard as damaged:
                found.append(damaged)
        return found


def entries(store: StoreConfig, cache: Path) -> Iterator[StoredTeacherEntry]:
    """Yield the stored teachers, the one that was used last first.

    Raises:
        InputError: the storage cannot be reached.
    """
    found = []
    for name, storage in folders(store, cache):
        storage.shards()
        card = storage.folder / CARD
        try:
            key = json.loads(card.read_text())["key"]
        except (OSError, ValueError, KeyError):
            continue  # no stored teacher
        size = sum(path.stat().st_size for path in storage.folder.iterdir())
        found.append(StoredTeacherEntry(name, States(storage, key), size, card.stat().st_mtime))
    yield from sorted(found, key=lambda entry: -entry.used_at)


def prune(
    store: StoreConfig,
    cache: Path,
    teacher: str = "",
    older_than_days: float | None = None,
    keep_gb: float | None = None,
) -> Iterator[tuple[str, int]]:
    """Remove stored teachers, and yield the name and the bytes of each.

    A teacher goes if all that is given is true of it; with `keep_gb`, those that were used
    longest ago go until the rest fits. Leftovers (damaged and superseded shards, abandoned
    temporary files) go in any case. Runs that read a removed store keep what they have mapped.
    """
    kept = 0
    for entry in entries(store, cache):
        wanted = teacher in entry.name
        if older_than_days is not None:
            wanted &= time.time() - entry.used_at > older_than_days * 86400
        if keep_gb is not None:
            wanted &= kept + entry.size > keep_gb * 1e9
        if wanted and (teacher or older_than_days is not None or keep_gb is not None):
            entry.states.storage.remove()
            yield entry.name, entry.size
            continue
        kept += entry.size
        yield from _tidy(entry)


def _tidy(entry: StoredTeacherEntry) -> Iterator[tuple[str, int]]:
    storage = entry.states.storage
    useless = [damaged.path for damaged in entry.states.refused]
    useless += [shard.path for shard in entry.states.superseded()]
    for path in useless:
        size = path.stat().st_size
        storage.discard(path)
        yield f"{entry.name}/{path.name}", size
    folder = Location(storage.folder)
    for leftover in folder.leftovers(age=_ABANDONED):
        folder.delete(leftover.name)
        yield f"{entry.name}/{leftover.name}", leftover.size
