"""How is a table read whole while its files are being written, merged and deleted?"""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from dsgkd.errors import InputError
from dsgkd.ledger.content import Content, decode
from dsgkd.ledger.merging import is_merged
from dsgkd.ledger.schema import ORDER, SCHEMAS, Table
from dsgkd.ledger.table_storage import TableStorage

ATTEMPTS = 20
"""How often a table is read again because files were merged meanwhile."""


def read_table(storage: TableStorage, table: Table) -> pa.Table:
    """All rows of a table, each once, sorted by their key.

    What a merge takes away it has first put into a merged file. So a listing that was complete
    has no merged file missing that is there afterwards, and every file in it that is gone is
    replaced by one that was read.

    Raises:
        InputError: something in the folder is no file of a ledger, or it does not hold still.
    """
    merged: dict[str, Content] = {}  # these never change, and are read once
    for _ in range(ATTEMPTS):
        names = storage.names(table)
        new = [name for name in names if name not in merged]
        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(new, pool.map(lambda name: _load(storage, table, name), new)))
        contents = {name: content for name, content in found.items() if content is not None}
        merged |= {name: content for name, content in contents.items() if is_merged(name)}
        contents |= {name: merged[name] for name in names if name in merged}
        replaced = {name for content in contents.values() for name in content.replaces}
        gone = set(names) - contents.keys() - replaced
        if not gone and all(name in merged for name in storage.names(table) if is_merged(name)):
            rows = [contents[name].rows for name in names if name in contents.keys() - replaced]
            return _sorted(table, rows)
    raise InputError(
        storage.path(table, "*"), "changes faster than it can be read", "read it again"
    )


def _load(storage: TableStorage, table: Table, name: str) -> Content | None:
    data = storage.read(table, name)
    return None if data is None else decode(storage.path(table, name), data)


def _sorted(table: Table, parts: list[pa.Table]) -> pa.Table:
    schema = SCHEMAS[table]
    known = [part.select([c for c in part.column_names if c in schema.names]) for part in parts]
    whole = pa.concat_tables([schema.empty_table(), *known], promote_options="default")
    return whole.sort_by([(key, "ascending") for key in ORDER if key in schema.names])
