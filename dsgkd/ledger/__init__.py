"""The record of a study, which can be read at any moment.

A ledger is a folder with one sub-folder per table and small Parquet files in each, one per writer;
the files of finished trials are merged into larger ones as they become many. A file is only ever
replaced as a whole, so pandas, DuckDB or polars can read the folders while a study runs; every
file carries the schema version in its metadata.

A merge first writes what it is about to take away. `Ledger.read` and `analysis.load` see every row
exactly once at any moment. Other tools do so whenever no merge is under way. For the moment that
it takes (a tenth of a second and some deletions) they may see rows of finished trials twice; only
one that lets more than that tenth pass between listing the names and looking at the files could
pass over rows. A tool may also fail, because a file that it has listed is gone, or was replaced
after it asked for its size; it should then read again.

A merge that was killed leaves its doubles until the study goes on: the metadata of files named
`merged-*` say which others they replace (`dsgkd_ledger_replaces`).
"""

from dsgkd.ledger.content import REPLACES_KEY, NotALedger
from dsgkd.ledger.ledger import Ledger, find_ledgers, frames
from dsgkd.ledger.privacy import without_machines, without_paths
from dsgkd.ledger.schema import (
    ALLOWED,
    JSON_COLUMNS,
    LEDGER_SCHEMA_VERSION,
    SCHEMAS,
    VERSION_KEY,
    Table,
)

__all__ = [
    "ALLOWED",
    "JSON_COLUMNS",
    "LEDGER_SCHEMA_VERSION",
    "REPLACES_KEY",
    "SCHEMAS",
    "VERSION_KEY",
    "Ledger",
    "NotALedger",
    "Table",
    "find_ledgers",
    "frames",
    "without_machines",
    "without_paths",
]
