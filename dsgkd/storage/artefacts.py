"""Folders that are made once on a cluster and found by the key of what they were made from."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dsgkd.errors import StorageError
from dsgkd.storage.atomic import atomic_folder
from dsgkd.storage.lease import Busy, Lease
from dsgkd.storage.location import Location

_POLL = 1.0
"""Seconds after which those who wait for an artefact look again."""
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_WHOLE = "artefact.json"  # names the files; written last, so what has one is whole


class Artefacts:
    """Content-addressed folders, readable from any node.

    Args:
        root: a folder that all nodes see, or a URI.
        copies: with a URI, the folder of this node's own copies.
    """

    def __init__(self, root: Path | str, copies: Path | None = None) -> None:
        self._location = Location(root)
        if self._location.is_remote:
            name = f"dsgkd-artefacts-{os.getuid()}"
            self._folder = copies or Path(tempfile.gettempdir()) / name
        else:
            self._folder = self._location.folder

    def get(self, key: str) -> Path | None:
        """Return the folder of an artefact on this node, None where it was never made.

        Raises:
            StorageError: the storage cannot be reached, or there is no room for a copy.
        """
        folder = self._of(key)
        if folder.is_dir() or not self._location.is_remote:
            return folder if folder.is_dir() else None
        remote = self._location.child(key)
        whole = remote.read(_WHOLE)
        if whole is None:
            return None
        with self._alone_here(key):
            if not folder.is_dir():
                with self._draft(key) as fetched:
                    for name in json.loads(whole):
                        remote.download(name, fetched / name)
        return folder

    def ensure(self, key: str, build: Callable[[Path], None]) -> Path:
        """Return the folder of an artefact; where it was never made, make it.

        Of any number of processes that want the same at once one builds it and the others wait;
        when that one dies or fails, another takes its turn.

        Args:
            key: a hash of all that it is made from.
            build: writes its files into the empty folder that it is given.

        Raises:
            StorageError: it cannot be written.
        """
        while (folder := self.get(key)) is None:
            try:
                with Lease(self._location, f".{key}.lease", wait=_POLL):
                    if (folder := self.get(key)) is None:
                        with self._alone_here(key):
                            return self._build(key, build)
            except Busy:
                continue
        return folder

    def _build(self, key: str, build: Callable[[Path], None]) -> Path:
        with self._draft(key) as made:
            build(made)
            if self._location.is_remote:
                remote = self._location.child(key)
                names = [str(p.relative_to(made)) for p in sorted(made.rglob("*")) if p.is_file()]
                for name in names:
                    remote.upload(name, made / name)
                remote.write(_WHOLE, json.dumps(names).encode())
        return self._of(key)

    def _alone_here(self, key: str) -> Lease:
        """Return what one process of a node holds while it makes or fetches an artefact."""
        return Lease(Location(self._folder), f".{key}.lock", wait=float("inf"))

    def _of(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"artefacts: not a key: {key!r}")
        return self._folder / key

    @contextmanager
    def _draft(self, key: str) -> Iterator[Path]:
        """Yield a folder that becomes the artefact's; delete those that were left unfinished."""
        folder = self._of(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._folder.glob(f".{key}.*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
            with atomic_folder(folder) as draft:
                yield draft
        except OSError as error:
            raise StorageError.of(folder, error) from error
