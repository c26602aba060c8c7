"""Subgroups are declared categories, none of them small and none of them free text."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from table_files import write_table

from dsgkd.data.sources import SEALED, SPLITS, DataConfig, Notes, read_notes
from dsgkd.errors import InputError

KEY = b"secret"


def frame(rows: int = 200) -> pd.DataFrame:
    """Of 120 training rows, 105 are in one of two wards, 10 in a small one, and 5 in none."""
    data = pd.DataFrame({"text": [f"note {row}" for row in range(rows)]})
    data["label"] = [row // 5 % 2 for row in range(rows)]
    data["split"] = [
        ("train", "train", "train", "validation", "test")[row % 5] for row in data.index
    ]
    data["Ward"] = [("ICU", " paediatric  ward")[row % 2] for row in range(rows)]
    training = data.index[data["split"] == "train"]
    data.loc[training[:10], "Ward"] = "burns unit"
    data.loc[training[10:15], "Ward"] = None
    data.loc[data.index[data["split"] == "test"][:30], "Ward"] = "only in test"
    data["sex"] = [row % 3 % 2 for row in range(rows)]
    data["patient"] = [f"p{row % 50}" if row % 7 else None for row in range(rows)]
    return data


def read(path: Path, *columns: str, splits: tuple[str, ...] = SPLITS, **options: Any) -> Notes:
    return read_notes(DataConfig(str(path), subgroups=columns, **options), KEY, splits=splits)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_small_categories_are_pooled_by_the_training_rows_alone(suffix, tmp_path, caplog):
    path = write_table(tmp_path / f"notes.{suffix}", frame())
    with caplog.at_level(logging.WARNING):
        notes = read(path, "ward", "sex", split="split")
    assert "2 of 4 categories in column 'ward' have fewer than 20 training rows" in caplog.text
    ward = notes.subgroups["ward"].to_pylist()
    assert notes.subgroups.column_names == ["ward", "sex"]
    assert set(ward) == {"ICU", "paediatric ward", "other"}
    assert set(notes.subgroups["sex"].to_pylist()) == {"0", "1"}
    counts = notes.subgroup_counts()
    assert counts["ward"]["other"] == 10 + 5 + 30
    assert sum(counts["sex"].values()) == len(notes.table)
    assert notes.table.column_names[-2:] == ["subgroup.ward", "subgroup.sex"]
    least = read(path, "ward", subgroup_least=5)
    assert {"burns unit", "missing"} <= set(least.subgroups["ward"].to_pylist())


def test_the_subgroups_are_the_same_whatever_is_open(tmp_path):
    path = write_table(tmp_path / "notes.csv", frame())
    whole, sealed = (read(path, "ward", splits=splits) for splits in (SPLITS, SEALED))
    assert sealed.table.equals(whole.only(SEALED).table)
    assert sealed.fingerprint == whole.only(SEALED).fingerprint != whole.fingerprint
    assert len(sealed.subgroups) == len(sealed.table)


def test_the_fingerprint_follows_the_subgroups_where_there_are_any(tmp_path):
    data = frame()
    path = write_table(tmp_path / "notes.csv", data)
    before = read(path).fingerprint, read(path, "ward").fingerprint
    write_table(path, data.assign(Ward=data["Ward"].replace("ICU", "ward 2")))
    assert read(path).fingerprint == before[0] != before[1] != read(path, "ward").fingerprint


def test_without_subgroups_there_are_none(tmp_path):
    notes = read(write_table(tmp_path / "notes.csv", frame()))
    assert notes.subgroups.to_pylist() == [{}] * 200
    assert notes.subgroup_counts() == {}


def test_the_columns_may_stand_beside_the_texts_of_the_six_files(tmp_path):
    for suffix, split in zip(("train", "val", "test"), SPLITS, strict=True):
        part = frame()[frame()["split"] == split]
        write_table(tmp_path / f"X_{suffix}.csv", part[["text", "Ward"]])
        write_table(tmp_path / f"y_{suffix}.csv", part[["label"]])
    assert read(tmp_path, "ward").subgroup_counts()["ward"]["other"] == 45


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            [f"a very long remark that somebody made on the patient {row}" for row in range(200)],
            "values of up to 56",
        ),
        ([f"remark {row}" for row in range(200)], "has 120 categories, more than 20"),
        ([row / 7 for row in range(200)], "has 120 categories"),
        ([["a list"]] * 200, "holds list values in 200 rows"),
    ],
)
def test_what_is_no_category_is_refused_and_not_shown(cells, said, tmp_path):
    suffix = "jsonl" if isinstance(cells[0], list) else "csv"
    path = write_table(tmp_path / f"notes.{suffix}", frame().assign(x=cells))
    with pytest.raises(InputError, match=said) as caught:
        read(path, "x")
    assert "\n" not in str(caught.value)
    assert "remark" not in str(caught.value)


@pytest.mark.parametrize("categories", [20, 21])
def test_twenty_categories_are_the_most(categories, tmp_path):
    data = frame().assign(split=[SPLITS[max(0, row // 50 - 1)] for row in range(200)])
    data["x"] = [f"ward {row % categories}" for row in range(200)]
    path = write_table(tmp_path / "notes.csv", data)
    if categories == 20:
        assert len(read(path, "x", subgroup_least=5).subgroup_counts()["x"]) == 20
    else:
        with pytest.raises(InputError, match="has 21 categories, more than 20"):
            read(path, "x")


def test_a_column_of_mostly_different_values_is_refused_in_a_small_table(tmp_path):
    data = frame(30).assign(x=[f"v{row}" for row in range(30)])
    with pytest.raises(InputError, match="18 different values in 18 rows"):
        read(write_table(tmp_path / "notes.csv", data), "x")


def test_a_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="column 'clinic' not found"):
        read(write_table(tmp_path / "notes.csv", frame()), "clinic")


def test_patients_are_counted_where_they_are_known(tmp_path, caplog):
    data = frame().assign(split=[SPLITS[row % 50 % 5 % 3] for row in range(200)])
    data["patient"] = [f"p{row % 50}" for row in range(200)]
    data.loc[[0, 5], "patient"] = None
    notes = read(write_table(tmp_path / "notes.csv", data))
    expected = {s: len(set(data[data["split"] == s]["patient"].dropna())) for s in SPLITS}
    expected["train"] += 2  # two rows without a patient are two patients
    assert notes.patients() == expected
    assert notes.only(SEALED).patients() == {s: expected[s] for s in SEALED}
    unknown = read(write_table(tmp_path / "b.csv", data.drop(columns="patient")))
    assert unknown.patients() == dict.fromkeys(SPLITS)
