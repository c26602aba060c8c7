"""The tables of a ledger, their columns, and the rows that are refused.

The key of a row is (study_id, trial_id, attempt, epoch) and is stable over resumption. What
differs by study (searched values, terms, measures, subgroups) lies in JSON and map columns and
needs no change here. No column can hold the text of a note, the ids of examples and patients must
be keyed hashes, and paths are cut to their last part as they are written.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from numbers import Integral
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from dsgkd.ledger.privacy import without_machines, without_paths

Table = Literal["studies", "trials", "metrics", "predictions", "test_reads", "headroom"]

LEDGER_SCHEMA_VERSION = 2
"""Raised when a column changes its meaning; readers refuse any other version. A new column, which
is null where it was not written, leaves it."""

VERSION_KEY = b"dsgkd_ledger_version"
"""Key of the schema version in the metadata of every file."""

_MOMENT = pa.timestamp("us", tz="UTC")
_NUMBERS = pa.map_(pa.string(), pa.float64())
_WORDS = pa.map_(pa.string(), pa.string())


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
        hardware=pa.string(),  # JSON: counts and kinds, no machine's name
        data_fingerprint=pa.string(),
        row_counts=pa.string(),  # JSON: {split: rows}
        label_counts=pa.string(),  # JSON: {split: {label: rows}}
        patients=pa.string(),  # JSON: {split: patients, null where they are unknown}
        subgroups=pa.string(),  # JSON: {column: {category: rows}}
        configuration=pa.string(),  # JSON: the whole configuration
        measures=pa.string(),  # JSON: {measure: "maximise" or "minimise"}
        objective=pa.string(),  # the measure that was searched for, on validation
        arms=pa.string(),  # JSON: {method: {"role": "method", "baseline" or "control"}}
        seed=pa.int64(),
        budget=pa.string(),  # JSON
        lock_hash=pa.string(),  # SHA-256 of the installed packages and their versions
        environment=pa.string(),  # JSON: {package: version}
        models=pa.string(),  # JSON: {hub id or last part of a path: fingerprint of the weights}
        key_check=pa.string(),  # a keyed hash of nothing: tells whether ids have the same key
    ),
    "trials": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        stage=pa.string(),
        method=pa.string(),  # the arm
        state=pa.string(),
        reason=pa.string(),  # why it was pruned, failed or pre-empted; never any note text
        seed=pa.int64(),
        parent=pa.string(),  # trial_id: the search trial that is confirmed, the run that is tested
        links=pa.string(),  # JSON: keys of the artefacts that it began from
        started_at=_MOMENT,
        ended_at=_MOMENT,
        epochs_done=pa.int64(),
        best_epoch=pa.int64(),
        stuck=pa.bool_(),  # no epoch was better than chance; null: not judged
        objective=pa.float64(),  # the study's objective, on validation
        worker_seconds=pa.float64(),
        gpu_seconds=pa.float64(),
        workers=pa.int64(),
        peak_rss_mb=pa.float64(),
        peak_gpu_mb=pa.float64(),
        teacher_store=pa.string(),
        checkpoint=pa.string(),  # folder, relative to the study's
        settings=pa.string(),  # JSON: {name: value}: student, teacher, alpha, encoder_lr, ...
        objectives=pa.string(),  # JSON: {name: value}, where there are several or constraints
        parameters=pa.string(),  # JSON: {name: {value, distribution}}, what the search drew
        configuration=pa.string(),  # JSON: the whole run
    ),
    "metrics": _schema(
        study_id=pa.string(),
        trial_id=pa.string(),
        attempt=pa.int64(),
        epoch=pa.int64(),
        step=pa.int64(),
        split=pa.string(),
        loss=pa.float64(),
        examples_per_second=pa.float64(),
        seconds=pa.float64(),
        measures=_NUMBERS,  # {measure: value}
        raw=_NUMBERS,  # {term: value without its weight}
        weighted=_NUMBERS,  # {term: its part of the loss}
        share=_NUMBERS,  # {term: its share of the update of the encoder}
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
        subgroups=_WORDS,  # {column: category}, of the study's declared ones
    ),
    "test_reads": _schema(
        study_id=pa.string(),
        read=pa.int64(),  # 1, 2, ...
        opened_at=_MOMENT,
        closed_at=_MOMENT,  # null while it is being read
        models=pa.int64(),
        data_fingerprint=pa.string(),
        reason=pa.string(),
    ),
    "headroom": _schema(
        study_id=pa.string(),
        features=pa.string(),  # of what is measured: words, text, said, teacher, random, ...
        model=pa.string(),  # whose states; null for words and text
        layer=pa.int64(),  # null: of several the one that each training fold has chosen
        labels=pa.int64(),  # training notes of a fold
        familiarity=pa.string(),  # which notes: all, or familiar, rare, unseen by their words
        notes=pa.int64(),  # how many are predicted
        measure=pa.string(),
        value=pa.float64(),  # of these features alone, with the interval's ends
        value_low=pa.float64(),
        value_high=pa.float64(),
        over_words=pa.float64(),  # added to the bag of words
        over_words_low=pa.float64(),
        over_words_high=pa.float64(),
        gain=pa.float64(),  # added to text and words together
        gain_low=pa.float64(),
        gain_high=pa.float64(),
        excess=pa.float64(),  # the gain less that of random weights
        excess_low=pa.float64(),
        excess_high=pa.float64(),
        confidence=pa.float64(),  # of the intervals
        finding=pa.string(),  # of a teacher, in its row of all labels and notes
        mapping=pa.string(),  # the layer mapping that is suggested
        verdict=pa.string(),  # the sentence
    ),
}

JSON_COLUMNS = frozenset(
    {"hardware", "row_counts", "label_counts", "patients", "subgroups", "configuration"}
    | {"measures", "arms", "budget", "environment", "models"}
    | {"links", "settings", "objectives", "parameters"}
)
"""Columns that hold JSON where they are of type string: give any JSON value, or JSON as text."""

FLATTENED: dict[str, str] = {
    "settings": "",
    "measures": "",
    "raw": "raw_",
    "weighted": "loss_",
    "share": "share_",
    "subgroups": "subgroup_",
}
"""Columns of `trials`, `metrics` and `predictions` that become columns in frames: their prefix."""

ALLOWED: dict[str, frozenset[str]] = {
    "stage": frozenset({"search", "confirm", "control", "test", "link"}),
    "state": frozenset({"running", "complete", "pruned", "failed", "preempted"}),
    "teacher_store": frozenset({"hit", "miss", "off"}),
    "split": frozenset({"train", "validation", "test"}),
    "familiarity": frozenset({"all", "familiar", "rare", "unseen"}),
    "finding": frozenset({"headroom", "small", "none", "unclear"}),
}
"""Columns with a closed set of values."""

ORDER = ("study_id", "trial_id", "attempt", "epoch", "step", "split", "example_id", "read")
"""Columns by which rows are sorted when they are read, as far as a table has them."""

_REQUIRED = frozenset({"study_id", "trial_id", "attempt", "example_id", "read"})
_HASHES = frozenset({"example_id", "group_id"})
_KEY = re.compile(r"\w[\w.:@+-]{0,79}")
_CATEGORY = re.compile(r"[^\n\r\t]{1,64}")


def is_json(field: pa.Field) -> bool:
    """Whether a column holds JSON."""
    return field.name in JSON_COLUMNS and field.type == pa.string()


def as_table(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the rows as an Arrow table of the right schema; what a row lacks becomes null.

    Raises:
        ValueError: an unknown column or a value of the wrong type (mistakes of the program); the
            message never shows the value.
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


def _array(table: Table, field: pa.Field, values: list[Any]) -> pa.Array:
    where = f"ledger column {table}.{field.name}"
    if is_json(field):
        values = [_json(where, value) for value in values]
    elif field.name == "reason":
        values = [without_machines(without_paths(v)) if v else None for v in values]
    elif pa.types.is_map(field.type):
        values = [_items(where, field.type, value) for value in values]
    if field.name in FLATTENED and table != "studies":
        _refuse_taken(table, field, values)
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
        value = json.loads(value) if isinstance(value, str) else value
        return json.dumps(without_paths(value), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a value that is no JSON") from None


def _items(where: str, kind: pa.MapType, value: Any) -> list[tuple[str, Any]] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: a value that is no {kind}")
    items = [(key, item) for key, item in value.items() if item is not None]
    if not all(_KEY.fullmatch(key) for key, _ in items):
        raise ValueError(f"{where}: a name that is no name")
    if kind == _WORDS and not all(
        isinstance(item, str) and _CATEGORY.fullmatch(item) for _, item in items
    ):
        raise ValueError(f"{where}: a value that is no category")
    return items


def _refuse_taken(table: Table, field: pa.Field, values: list[Any]) -> None:
    """Refuse names that could not become columns of a frame."""
    prefix, names = FLATTENED[field.name], set(SCHEMAS[table].names)
    for value in values:
        keys = json.loads(value) if isinstance(value, str) else dict(value or ())
        if taken := names & {prefix + key for key in keys}:
            columns = ", ".join(sorted(taken))
            raise ValueError(f"ledger column {table}.{field.name}: {columns} is a column itself")
