"""Files that are whole or not there at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path, private: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there becomes `path` at the end.

    It is synced to the disk, readable by its owner only (with `private=False` as the user's umask
    says), and renamed in one step. After an error or Ctrl-C nothing is left.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    mode = 0o600 if private else 0o666
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:  # after the rename there is nothing left to remove
        with suppress(OSError):
            temporary.unlink()
    sync(path.parent)  # makes the rename itself outlive a power cut


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `folder` at the end, or vanishes on an error.

    Raises:
        OSError: the disk is full or the parent cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    replaced = draft.with_suffix(".old")
    try:
        draft.mkdir()
        yield draft
        for path in (*draft.rglob("*"), draft):
            sync(path)
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(draft, folder)
        sync(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:  # after the rename there is nothing left to remove
        shutil.rmtree(draft, ignore_errors=True)
