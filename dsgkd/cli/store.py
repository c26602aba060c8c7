"""Look after stored teachers: what they said of the training texts, kept for later runs.

  ls      what is there, the one that was used last first
  verify  read everything and compare checksums; damaged shards are removed (the next run
          computes them anew), and the exit code is 2
  prune   remove what is no longer wanted; leftovers go in any case

Example:
  dsgkd store ls
  dsgkd store verify --store /shared/teachers
  dsgkd store prune --older-than 30
  dsgkd store prune --keep-gb 50
  dsgkd store prune --teacher tiny-en-med
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsgkd.cli.flags import parse
from dsgkd.configuration import NonNegative, Text, config
from dsgkd.distillation.store.maintenance import entries, prune
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.teachers.source import readable
from dsgkd.errors import InputError


@config
class StoreCommand:
    """What `dsgkd store` is asked."""

    action: Annotated[Literal["ls", "verify", "prune"], tyro.conf.Positional]
    """What to do."""
    cache: Text = "runs/cache"
    """The folder of what runs share."""
    store: Text = ""
    """Folder or URI of the stored teachers; none: inside the cache."""
    store_node_folder: Text = ""
    """With a URI: the folder of this node's copy."""
    teacher: Text = ""
    """prune: only teachers with this in their name."""
    older_than: NonNegative | None = None
    """prune: only what was not used for so many days."""
    keep_gb: NonNegative | None = None
    """prune: until the rest fits into so many GB."""


def run(arguments: list[str]) -> None:
    """Run `dsgkd store`."""
    flags = parse(StoreCommand, arguments, "dsgkd store", __doc__ or "")
    cache = Path(flags.cache).expanduser().absolute()
    store = StoreConfig(flags.store, flags.store_node_folder)
    if not store.is_remote and not store.root(cache).is_dir():
        raise InputError(
            str(store.root(cache)), "no stored teachers here", "name --cache or --store"
        )
    {"ls": _list, "verify": _verify, "prune": _prune}[flags.action](store, cache, flags)


def _list(store: StoreConfig, cache: Path, flags: StoreCommand) -> None:
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


def _verify(store: StoreConfig, cache: Path, flags: StoreCommand) -> None:
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


def _prune(store: StoreConfig, cache: Path, flags: StoreCommand) -> None:
    freed = 0
    for name, size in prune(store, cache, flags.teacher, flags.older_than, flags.keep_gb):
        print(f"removed {name} ({readable(size)})")
        freed += size
    print(f"{readable(freed)} freed")
