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

from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute
from dsgkd.configuration import NonNegative, Text, config
from dsgkd.distillation.store.config import StoreConfig
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
    cache = Path(absolute(flags.cache))
    store = StoreConfig(absolute(flags.store), absolute(flags.store_node_folder))
    if not store.is_remote and not store.root(cache).is_dir():
        raise InputError(
            str(store.root(cache)), "no stored teachers here", "name --cache or --store"
        )
    # Deferred: `--help` and a wrong flag must not wait for PyTorch.
    from dsgkd.cli.store_actions import list_teachers, prune_teachers, verify_teachers

    if flags.action == "ls":
        list_teachers(store, cache)
    elif flags.action == "verify":
        verify_teachers(store, cache)
    else:
        prune_teachers(store, cache, flags.teacher, flags.older_than, flags.keep_gb)
