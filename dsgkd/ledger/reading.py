"""The one reader: a table whole while its files are written, merged and deleted; and frames."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dsgkd.ledger.content import Content, NotALedger, decode
from dsgkd.ledger.merging import is_merged
from dsgkd.ledger.schema import FLATTENED, ORDER, SCHEMAS, Table, is_json
from dsgkd.ledger.table_storage import TableStorage

if TYPE_CHECKING:
    import pandas as pd

ATTEMPTS = 20
"""How often a table is read again because files were merged meanwhile."""


def read_table(storage: TableStorage, table: Table) -> pa.Table:
    """Return all rows of a table, each once, sorted by their key.

    What a merge takes away it has first put into a merged file. So a listing that was complete
    has no merged file missing that is there afterwards, and every file in it that is gone is
    replaced by one that was read.

    Raises:
        NotALedger: something in the folder is no file of a ledger, or it does not hold still.
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
            return joined(table, rows)
    raise NotALedger(
        storage.path(table, "*"), "changes faster than it can be read", "read it again"
    )


def joined(table: Table, parts: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of several tables in the columns of this version, sorted by their key."""
    schema = SCHEMAS[table]
    known = [part.select([c for c in part.column_names if c in schema.names]) for part in parts]
    whole = pa.concat_tables([schema.empty_table(), *known], promote_options="default")
    return whole.sort_by([(key, "ascending") for key in ORDER if key in schema.names])


def as_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries, as they were given: JSON parsed, maps as dictionaries."""
    parsed = {field.name: json.loads for field in rows.schema if is_json(field)}
    parsed |= {field.name: dict for field in rows.schema if pa.types.is_map(field.type)}
    columns = [
        [None if value is None else parsed[name](value) for value in column.to_pylist()]
        if name in parsed
        else column.to_pylist()
        for name, column in zip(rows.column_names, rows.columns)
    ]
    return [dict(zip(rows.column_names, values)) for values in zip(*columns)]


def flat(table: Table, rows: pa.Table) -> pa.Table:
    """Return rows with a column for every setting, measure, term and subgroup that occurs.

    `settings` and `measures` become columns of their own names, `raw` and `weighted` become
    `raw_<term>` and `loss_<term>`, `share` becomes `share_<term>`, `subgroups` become
    `subgroup_<column>`.
    """
    if table == "studies":
        return rows
    for name, prefix in FLATTENED.items():
        if name not in rows.column_names:
            continue
        column = rows[name].combine_chunks()
        rows = rows.drop_columns([name])
        split = _split_map if pa.types.is_map(column.type) else _split_json
        for key, values in split(column):
            rows = rows.append_column(prefix + key, values)
    return rows


def frame(table: Table, rows: pa.Table) -> "pd.DataFrame":
    """Return rows, flattened, as a pandas frame: counts Int64, measures float64, times UTC."""
    import pandas as pd

    return flat(table, rows).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def _load(storage: TableStorage, table: Table, name: str) -> Content | None:
    data = storage.read(table, name)
    return None if data is None else decode(storage.path(table, name), data)


def _split_map(column: pa.MapArray) -> Iterable[tuple[str, pa.Array]]:
    # By hand, because Arrow's map_lookup takes several times as long.
    offsets = column.offsets.to_numpy()
    names, items = (
        part.slice(offsets[0], offsets[-1] - offsets[0]) for part in (column.keys, column.items)
    )
    rows, names = np.repeat(np.arange(len(column)), np.diff(offsets)), names.dictionary_encode()
    for number, key in enumerate(names.dictionary.to_pylist()):
        mine = np.flatnonzero(names.indices.to_numpy() == number)
        places = np.full(len(column), -1)
        places[rows[mine]] = mine
        yield key, items.take(pa.array(places, mask=places < 0))


def _split_json(column: pa.Array) -> Iterable[tuple[str, pa.Array]]:
    rows = [json.loads(text) if text else {} for text in column.to_pylist()]
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        try:
            array = pa.array(values)
            if pa.types.is_nested(array.type):
                raise TypeError
        except (pa.ArrowException, TypeError):  # of several types, or nested: as text
            array = pa.array([_text(value) for value in values], pa.string())
        yield key, array


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
