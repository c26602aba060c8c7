"""What `dsgkd store` does with stored teachers."""

from datetime import datetime
from pathlib import Path

from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.store.maintenance import entries, prune
from dsgkd.distillation.teachers.source import readable
from dsgkd.errors import InputError


def list_teachers(store: StoreConfig, cache: Path) -> None:
    """Print what is there, the one that was used last first."""
    total = 0
    for entry in entries(store, cache):
        parts = ", ".join(map(str, entry.states.parts)) or "nothing"
        used = datetime.fromtimestamp(entry.used_at)
        print(
            f"{entry.name}\n  {entry.texts:,} texts, {readable(entry.size)}, used {used:%Y-%m-%d}"
        )
        print(f"  layers: {parts}")
        if entry.states.refused:
            print(f"  {len(entry.states.refused)} damaged files: see dsgkd store verify")
        total += entry.size
    print(f"{readable(total)} in all")


def verify_teachers(store: StoreConfig, cache: Path) -> None:
    """Read everything, and remove damaged shards.

    Raises:
        InputError: there were some.
    """
    bad = 0
    for entry in entries(store, cache):
        damaged = entry.damaged()
        whole = len(entry.states.shards) + len(entry.states.refused) - len(damaged)
        print(f"{entry.name}: {whole} shards are whole, {len(damaged)} damaged")
        for one in damaged:
            print(f"  {one}")
            entry.states.storage.discard(one.path)
        bad += len(damaged)
    if bad:
        raise InputError(
            str(store.folder or store.root(cache)),
            f"{bad} damaged shards were removed",
            "nothing to do: the next run computes them anew; but look at the disk",
        )


def prune_teachers(
    store: StoreConfig,
    cache: Path,
    teacher: str,
    older_than: float | None,
    keep_gb: float | None,
) -> None:
    """Remove what `dsgkd.distillation.store.maintenance.prune` removes, and print it."""
    freed = 0
    for name, size in prune(store, cache, teacher, older_than, keep_gb):
        print(f"removed {name} ({readable(size)})")
        freed += size
    print(f"{readable(freed)} freed")
