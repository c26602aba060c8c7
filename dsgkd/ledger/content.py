"""One file of a ledger: rows, the schema version, and the names of the files it replaces."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from dsgkd.errors import InputError
from dsgkd.ledger.schema import LEDGER_SCHEMA_VERSION, VERSION_KEY

REPLACES_KEY = b"dsgkd_ledger_replaces"
"""Key of the names (JSON, without `.parquet`) that a merged file replaces, in its metadata."""
MANY = 500
"""With fewer rows, to compress each column takes longer than to write it."""


class NotALedger(InputError):
    """There is no ledger that can be read: none at all, a foreign file, or another version."""


@dataclass(frozen=True)
class Content:
    """One file, read."""

    rows: pa.Table
    """In the columns that it was written with."""
    replaces: frozenset[str] = frozenset()
    """Names of files whose rows are all in this one."""


def encode(rows: pa.Table, replaces: Sequence[str] = ()) -> pa.Buffer:
    """Return the bytes of a Parquet file."""
    metadata = {VERSION_KEY: str(LEDGER_SCHEMA_VERSION).encode()}
    if replaces:
        metadata[REPLACES_KEY] = json.dumps(list(replaces)).encode()
    sink = pa.BufferOutputStream()
    many = rows.num_rows >= MANY
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        sink,
        compression="zstd" if many else "none",
        use_dictionary=many,
        write_statistics=many,
    )
    return sink.getvalue()


def decode(path: str, data: bytes) -> Content:
    """Read the bytes of a file; `path` is for the message.

    Raises:
        NotALedger: it is no file of a ledger, or one of another version than this.
    """
    try:
        # Whole files are read side by side; threads for the columns of one only cost.
        rows = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        metadata = rows.schema.metadata or {}
        version = int(metadata[VERSION_KEY])
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise NotALedger(
            path, "not a file of a ledger", "move it out of the ledger's folder"
        ) from error
    if version != LEDGER_SCHEMA_VERSION:
        raise NotALedger(
            path,
            f"ledger version {version}, but this dsgkd reads version {LEDGER_SCHEMA_VERSION}",
            "install a newer dsgkd"
            if version > LEDGER_SCHEMA_VERSION
            else "read it with the dsgkd that wrote it, or begin a study in another --out",
        )
    return Content(rows, frozenset(json.loads(metadata.get(REPLACES_KEY, b"[]"))))
