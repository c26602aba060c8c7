"""Names of examples that do not tell what the examples say.

Examples are named by a keyed hash. The key stays with the data, in the cache folder beside the
tokenised notes; whoever has the ledger alone can neither rebuild a text nor test a guess.
"""

import hashlib
import json
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from dsgkd.errors import InputError

KEY = "example-id.key"
"""Its file in the cache."""
_BYTES = 32


def id_key(cache: Path) -> bytes:
    """Return the 32 secret bytes that name this cache's examples, making them once.

    Any number of processes may ask at once; all get the same.

    Raises:
        InputError: the cache folder cannot be written, or the key in it is damaged.
    """
    path = cache / KEY
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


def check_kept(cache: Path) -> None:
    """Refuse to go on where the key is not in the cache any more: examples would get other names.

    Raises:
        InputError: it is missing.
    """
    if not (cache / KEY).exists():
        raise InputError(
            str(cache / KEY),
            "not there, but examples were named with it",
            f"copy {cache.name}/ as well, from the folder in which the study began",
        )


def keyed(key: bytes, content: str) -> str:
    """Return the keyed hash of some content, as 32 hexadecimal digits."""
    return hashlib.blake2b(content.encode(), key=key, digest_size=16).hexdigest()


def example_ids(
    key: bytes, texts: Sequence[str], labels: Sequence[int | str], ranks: Iterable[int]
) -> list[str]:
    """Name each row after its text and label; a running number tells equal rows apart.

    It runs over the rows of the lowest rank first: rows of a higher one may come and go, and the
    names of the others stay.

    Args:
        key: the secret.
        texts: the text of each row.
        labels: the label of each row, as the user wrote it.
        ranks: the rank of each row.
    """
    by_rank = [row for _, row in sorted((rank, row) for row, rank in enumerate(ranks))]
    seen: Counter[tuple[str, int | str]] = Counter()
    ids = [""] * len(texts)
    for row in by_rank:
        content = (texts[row], labels[row])
        seen[content] += 1
        ids[row] = keyed(key, json.dumps([*content, seen[content]]))
    return ids


def normalised(text: str) -> str:
    """Return a text in Unicode's NFKC, with one space for any white space."""
    return " ".join(unicodedata.normalize("NFKC", well_formed(text)).split())


def well_formed(text: str) -> str:
    """Return a text without halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def text_hash(key: bytes, text: str) -> str:
    """Return the keyed hash of a text's normalised form, apart from all other keyed hashes."""
    return keyed(key, json.dumps(["text", normalised(text)]))


def group_numbers(groups: Sequence[str | None]) -> list[int]:
    """Number the groups in the order of appearance; a row without one is a group of its own."""
    numbers: dict[object, int] = {}
    keys: list[object] = [row if group is None else group for row, group in enumerate(groups)]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def content_hash(rows: Iterable[object]) -> str:
    """Return the SHA-256 of rows of JSON values, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


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
