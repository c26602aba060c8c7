"""How is an example named without saying what it says?

Examples are named by a keyed hash. The key stays with the data, in the cache folder beside the
tokenised notes; whoever has the ledger alone can neither rebuild a text nor test a guess.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from dsgkd.errors import InputError

_BYTES = 32


def id_key(cache: Path) -> bytes:
    """Return the 32 secret bytes that name this cache's examples, making them once.

    Any number of processes may ask at once; all get the same.

    Raises:
        InputError: the cache folder cannot be written, or the key in it is damaged.
    """
    path = cache / "example-id.key"
    try:
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "it cannot be written"
        raise InputError(str(cache), reason, "choose another --out") from error
    if len(key) != _BYTES:
        raise InputError(str(path), "damaged", "delete it; examples will get new names")
    return key


def _make(path: Path) -> None:
    """Put a new key at `path`, whole from the first moment, unless another process was faster."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
