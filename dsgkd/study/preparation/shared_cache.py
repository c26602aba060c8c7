"""What the machines of a study in object storage have to share: the ids' key, and small models.

Where the study lies in a folder that all machines see, they share the cache itself.
"""

import shutil
import tempfile
from pathlib import Path

from dsgkd.data.identity import KEY, id_key
from dsgkd.errors import StorageError
from dsgkd.storage.atomic import atomic_write
from dsgkd.storage.location import Location

MODELS = "models"
WHOLE = ".files"
"""Names the files of a model's folder; written last."""


def share_key(shared: Location, cache: Path) -> None:
    """Give the cache the key of the ids that is shared, making it where there is none."""
    if (there := shared.read(KEY)) is None:
        shared.write_if_absent(KEY, id_key(cache))
        there = shared.read(KEY)
    if there is not None and (not (cache / KEY).exists() or id_key(cache) != there):
        _put(cache / KEY, there)


def push(shared: Location, cache: Path) -> None:
    """Share the models that were pre-trained here and are not shared yet."""
    folders = (cache / MODELS).iterdir() if (cache / MODELS).is_dir() else ()
    for folder in folders:
        remote = shared.child(f"{MODELS}/{folder.name}")
        if folder.name.startswith(".") or not folder.is_dir() or remote.exists(WHOLE):
            continue
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        for name in names:
            remote.upload(name, folder / name)
        remote.write(WHOLE, "\n".join(names).encode())


def pull(shared: Location, cache: Path) -> None:
    """Fetch the key, and the shared models that are not here yet.

    Raises:
        StorageError: the storage cannot be reached, or the cache cannot be written.
    """
    share_key(shared, cache)
    for name in shared.child(MODELS).folders():
        remote, folder = shared.child(f"{MODELS}/{name}"), cache / MODELS / name
        files = None if folder.exists() else remote.read(WHOLE)
        if files is None:
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        fetched = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            for file in files.decode().split("\n"):
                remote.download(file, fetched / file)
            fetched.rename(folder)
        except OSError as error:
            if not folder.exists():  # or another process was faster
                raise StorageError.of(folder, error) from error
        finally:
            shutil.rmtree(fetched, ignore_errors=True)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
