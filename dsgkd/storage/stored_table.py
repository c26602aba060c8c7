"""Tables that are computed once, stored whole, and found again by any process."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsgkd.errors import InputError, StorageError
from dsgkd.storage.atomic import atomic_write

_CHECKSUM = b"crc32"


def stored_table(path: Path, build: Callable[[], pa.Table]) -> pa.Table:
    """Read the table at `path` memory-mapped; build and store it where it is absent or damaged.

    Raises:
        InputError: the file cannot be written.
    """
    table = _read(path)
    if table is None:
        _write(path, build())
        table = _read(path)
    if table is None:
        raise InputError(
            str(path), "cannot be read back", "check the disk, or choose another --out"
        )
    return table


def _read(path: Path) -> pa.Table | None:
    """Return the stored table, or None where it is absent or not what was written."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate()
        whole = (table.schema.metadata or {}).get(_CHECKSUM) == _checksum(table)
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        return None
    return table if whole else None


def _write(path: Path, table: pa.Table) -> None:
    table = table.replace_schema_metadata({_CHECKSUM: _checksum(table)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Readable by the owner only: token ids are the notes in another spelling.
        with (
            atomic_write(path) as temporary,
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    except OSError as error:
        raise StorageError.of(path, error) from error


def _checksum(table: pa.Table) -> bytes:
    """Sum up the names, types, values and offsets of the list columns."""
    checksum = zlib.crc32(repr([(field.name, str(field.type)) for field in table.schema]).encode())
    for column in table.columns:
        for chunk in column.chunks:
            for part in (chunk.offsets, chunk.values):
                checksum = zlib.crc32(np.ascontiguousarray(part.to_numpy()).data, checksum)
    return f"{checksum:08x}".encode()
