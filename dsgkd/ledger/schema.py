"""What may a ledger hold? Its tables, their columns, and the rows that are refused.

The key of a row is (study_id, trial_id, attempt, epoch) and is stable over resumption. No column
can hold the text of a note, and the ids of examples and patients must be keyed hashes.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from numbers import Integral
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

Table = Literal["studies", "trials", "metrics", "predictions"]

LEDGER_SCHEMA_VERSION = 1
"""Raised when a column changes its meaning; readers refuse a version that they do not know."""

VERSION_KEY = b"dsgkd_ledger_version"
"""Key of the schema version in the metadata of every file."""

_MOMENT = pa.timestamp("us", tz="UTC")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns, metadata={VERSION_KEY: str(LEDGER_SCHEMA_VERSION).encode()})


SCHEMAS: dict[Table, pa.Schema] = {
    "studies": _schema(
        study_id=pa.string(),
        name=pa.string(),
        created_at=_MOMENT,
        dsgkd_version=pa.string(),
        git_commit=pa.string(),
        python_version=pa.string(),
        torch_version=pa.string(),
        ray_version=pa.string(),
        transformers_version=pa.string(),
        optuna_version=pa.string(),
        hardware=pa.string(),  # JSON
        data_fingerprint=pa.string(),
        row_counts=pa.string(),  # JSON: {split: rows}
        label_counts=pa.string(),  # JSON: {split: {label: rows}}
        configuration=pa.string(),  # JSON: the whole configuration
        seed=pa.int64(),
        budget=pa.string(),  # JSON
        lock_hash=pa.string(),  # SHA-256 of the installed packages and their versions
        environment=pa.string(),  # JSON: {package: version}
        models=pa.string(),  # JSON: {name: fingerprint of the weights}
        key_check=pa.string(),  # a keyed hash of nothing: tells whether ids have the same key
    ),
    "trials": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        stage=pa.string(),
        state=pa.string(),
        reason=pa.string(),  # why it was pruned, failed or pre-empted; never any note text
        method=pa.string(),
        student=pa.string(),
        teacher=pa.string(),
        layer_mapping=pa.string(),
        criterion=pa.string(),
        alpha=pa.float64(),
        beta=pa.float64(),
        cs_max_len=pa.int64(),
        encoder_lr=pa.float64(),
        classifier_lr=pa.float64(),
        batch_size=pa.int64(),
        seed=pa.int64(),
        other=pa.string(),  # JSON: every other searched value
        workers=pa.int64(),
        started_at=_MOMENT,
        ended_at=_MOMENT,
        epochs_done=pa.int64(),
        best_epoch=pa.int64(),
        objective=pa.float64(),  # the measure named in the configuration, on validation
        worker_seconds=pa.float64(),
        gpu_seconds=pa.float64(),
        peak_rss_mb=pa.float64(),
        peak_gpu_mb=pa.float64(),
        teacher_store=pa.string(),
        checkpoint=pa.string(),  # folder, relative to the study's
        objectives=pa.string(),  # JSON: {name: value}, where there are several or constraints
        parameters=pa.string(),  # JSON: {name: {value, distribution}}, what the search drew
        configuration=pa.string(),  # JSON: the whole run, from which it can be trained again
    ),
    "metrics": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        epoch=pa.int64(),
        step=pa.int64(),
        split=pa.string(),
        loss=pa.float64(),
        loss_ce=pa.float64(),
        loss_hidden=pa.float64(),
        loss_attention=pa.float64(),
        accuracy=pa.float64(),
        auroc=pa.float64(),
        auprc=pa.float64(),
        f1=pa.float64(),
        precision=pa.float64(),
        recall=pa.float64(),
        brier=pa.float64(),
        ece=pa.float64(),
        threshold=pa.float64(),
        examples_per_second=pa.float64(),
        seconds=pa.float64(),
    ),
    "predictions": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        split=pa.string(),
        example_id=pa.string(),
        group_id=pa.string(),
        label=pa.int64(),
        probability=pa.list_(pa.float32()),  # one per class
        words_transferred=pa.int64(),
        length=pa.int64(),  # tokens of the student
    ),
}

JSON_COLUMNS = frozenset(
    {"hardware", "row_counts", "label_counts", "configuration", "budget", "other"}
    | {"environment", "models", "objectives", "parameters"}
)
"""Columns that hold JSON: give any JSON value, or a string that already is JSON."""

ALLOWED: dict[str, frozenset[str]] = {
    "stage": frozenset({"search", "confirm", "control", "test"}),
    "state": frozenset({"running", "complete", "pruned", "failed", "preempted"}),
    "teacher_store": frozenset({"hit", "miss", "off"}),
    "split": frozenset({"train", "validation", "test"}),
}
"""Columns with a closed set of values."""

ORDER = ("study_id", "trial_id", "attempt", "epoch", "step", "split", "example_id")
"""Columns by which rows are sorted when they are read, as far as a table has them."""

_REQUIRED = frozenset({"study_id", "trial_id", "attempt", "example_id"})
_HASHES = frozenset({"example_id", "group_id"})


def as_table(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as an Arrow table of the right schema; a column that a row lacks becomes null.

    Raises ValueError for an unknown column or a value of the wrong type (mistakes of the program);
    the message never shows the value.
    """
    schema = SCHEMAS[table]
    given = {column for row in rows for column in row}
    if unknown := given - set(schema.names):
        raise ValueError(f"ledger table {table!r} has no column {', '.join(sorted(unknown))}")
    arrays = [
        _array(table, field, [row.get(field.name) for row in rows])
        if field.name in given or field.name in _REQUIRED
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(table: str, field: pa.Field, values: list[Any]) -> pa.Array:
    where = f"ledger column {table}.{field.name}"
    if field.name in JSON_COLUMNS:
        values = [_json(where, value) for value in values]
    if field.type == _MOMENT and any(isinstance(v, datetime) and not v.tzinfo for v in values):
        raise ValueError(f"{where}: a time without a time zone")
    if field.type == pa.int64() and not all(v is None or isinstance(v, Integral) for v in values):
        raise ValueError(f"{where}: a value that is no int64")  # Arrow would cut 1.5 to 1
    try:
        array = pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError, TypeError):
        # Arrow's own message shows the value, and a misplaced value might be a note.
        raise ValueError(f"{where}: a value that is no {field.type}") from None
    if field.name in _REQUIRED and array.null_count:
        raise ValueError(f"{where}: missing in {array.null_count} rows")
    if field.name in _HASHES and not _all(pc.match_substring_regex(array, r"^[0-9a-f]{16,128}$")):
        raise ValueError(f"{where}: a value that is no hexadecimal hash")
    if field.name in ALLOWED:
        allowed = sorted(ALLOWED[field.name])
        if not _all(pc.is_in(array, value_set=pa.array([*allowed, None], pa.string()))):
            raise ValueError(f"{where}: a value other than {', '.join(allowed)}")
    return array


def _all(flags: pa.Array) -> bool:
    return pc.all(flags, min_count=0).as_py()


def _json(where: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            json.loads(value)
            return value
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a value that is no JSON") from None
