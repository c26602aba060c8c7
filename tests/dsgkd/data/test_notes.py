"""Notes are read as they are, and whatever cannot be used is said in one line."""

import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from table_files import write_table

from dsgkd.data.sources import SPLITS, DataConfig, Notes, read_notes
from dsgkd.data.world import WorldConfig
from dsgkd.errors import InputError

SECRET = "비밀 note of a patient"
KEY = b"secret"


def frame(rows: int = 40) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": [f"{SECRET} {row}" for row in range(rows)],
            "label": [row % 2 for row in range(rows)],
            "split": [SPLITS[max(0, row % 5 - 2)] for row in range(rows)],
        }
    )


def read(path: Path | str, **options) -> Notes:
    return read_notes(DataConfig(path=str(path), **options), KEY)


def error(path: Path | str, **options) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "비밀" not in message
    assert "patient 1" not in message
    # Nor may a chained error bring it back.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


# ------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_every_kind_of_file_gives_the_same_notes(suffix, tmp_path):
    notes = read(write_table(tmp_path / f"notes.{suffix}", frame()))
    assert notes.table.schema.names == ["example_id", "group_id", "split", "label", "text"]
    assert notes.table["text"].to_pylist() == frame()["text"].tolist()
    assert notes.table["label"].to_pylist() == frame()["label"].tolist()
    assert notes.table["split"].to_pylist() == frame()["split"].tolist()
    assert notes.label_names == ("0", "1")
    assert notes.name == f"notes.{suffix}"
    assert "비밀" not in repr(notes)
    assert notes.fingerprint == read(write_table(tmp_path / "same.csv", frame())).fingerprint


def test_the_six_files_of_the_reference_are_joined_row_by_row(tmp_path, caplog):
    for suffix, rows in (("train", 6), ("val", 4), ("test", 2)):
        texts = [f"{suffix} {row}" for row in range(rows)]
        texts[0] = ""
        write_table(tmp_path / f"X_{suffix}.csv", pd.DataFrame({"n": range(rows), "ER_DHX": texts}))
        labels = pd.DataFrame({"LABEL": [row % 2 for row in range(rows)]})
        write_table(tmp_path / f"y_{suffix}.csv", labels)
    with caplog.at_level(logging.WARNING):
        notes = read(tmp_path)
    assert Counter(notes.table["split"].to_pylist()) == {"train": 5, "validation": 3, "test": 1}
    assert notes.table["text"].to_pylist()[:2] == ["train 1", "train 2"]
    assert notes.table["label"].to_pylist()[:2] == [1, 0]
    assert "dropped 1 of 6 rows" in caplog.text


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    content = frame().to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")
    assert len(read(write_table(tmp_path / "notes.csv", content)).table) == 40


def test_columns_are_found_by_name_in_any_case_or_given(tmp_path):
    renamed = frame().rename(columns={"text": "Note", "label": "CLASS", "split": "Subset"})
    assert len(read(write_table(tmp_path / "found.csv", renamed)).table) == 40
    renamed = frame().rename(columns={"text": "A", "label": "B", "split": "C"})
    path = write_table(tmp_path / "given.csv", renamed)
    assert read(path, text="A", label="b", split="C").table["split"][4].as_py() == "test"


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "dev", "TEST"), ("train", "valid", "testing")]
)
def test_splits_have_several_names(names, tmp_path):
    data = frame()
    data["split"] = [dict(zip(SPLITS, names))[split] for split in data["split"]]
    found = read(write_table(tmp_path / "notes.csv", data)).table["split"].to_pylist()
    assert found == frame()["split"].tolist()


def test_the_word_na_is_a_text_and_only_empty_cells_are_missing(tmp_path, caplog):
    data = frame()
    data.loc[:5, "text"] = ["NA", "null", "", "nan", "   ", "None"]
    with caplog.at_level(logging.WARNING):
        texts = read(write_table(tmp_path / "notes.csv", data)).table["text"].to_pylist()
    assert texts[:4] == ["NA", "null", "nan", "None"]
    assert len(texts) == 38
    assert "dropped 2 of 40 rows" in caplog.text
    assert "비밀" not in caplog.text


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 2], ("2", "10")),
        (["10", "2"], ("2", "10")),
        ([1.0, 0.0], ("0", "1")),
        (["yes", "no"], ("no", "yes")),
        (["01", "1"], ("01", "1")),
        ([True, False], ("False", "True")),
        (["응급", "비응급"], ("비응급", "응급")),
    ],
)
def test_classes_are_in_sorted_order_integers_by_value(labels, names, tmp_path):
    data = frame()
    data["label"] = [labels[row % 2] for row in range(len(data))]
    for suffix in ("jsonl", "csv"):
        notes = read(write_table(tmp_path / f"notes.{suffix}", data))
        assert notes.label_names == names
        expected = names.index(str(labels[0]).removesuffix(".0"))
        assert notes.table["label"][0].as_py() == expected


def test_a_label_name_column_names_the_classes_only_where_it_is_one_to_one(tmp_path):
    data = frame()
    data["label_name"] = ["calm" if label == 0 else "emergency" for label in data["label"]]
    assert read(write_table(tmp_path / "a.csv", data)).label_names == ("calm", "emergency")
    data.loc[0, "label_name"] = "emergency"
    assert read(write_table(tmp_path / "b.csv", data)).label_names == ("0", "1")
    data["label_name"] = "same"
    assert read(write_table(tmp_path / "c.csv", data)).label_names == ("0", "1")


def test_a_very_long_text_and_half_a_surrogate_pair_are_texts(tmp_path):
    data = frame()
    data.loc[0, "text"] = "가" * 100_000
    assert len(read(write_table(tmp_path / "notes.csv", data)).table["text"][0].as_py()) == 100_000
    rows = [json.dumps(row) for row in frame().to_dict("records")]
    rows[0] = '{"text": "half \\ud800 a pair", "label": 0, "split": "train"}'
    texts = read(write_table(tmp_path / "notes.jsonl", "\n".join(rows))).table["text"]
    assert texts[0].as_py() == "half ? a pair"


def test_without_a_path_the_synthetic_world_is_read():
    world = WorldConfig(train_notes=60, validation_notes=40, test_notes=40)
    notes = read_notes(DataConfig(), KEY, world)
    counts = Counter(notes.table["split"].to_pylist())
    assert counts == {"train": 60, "validation": 40, "test": 40}
    assert notes.label_names == ("not emergency", "emergency")
    assert notes.name == "synthetic world"
    assert None not in notes.table["group_id"].to_pylist()


@pytest.mark.parametrize("kind", ["one table", "a dictionary"])
def test_a_folder_saved_by_datasets_is_read(kind, tmp_path):
    datasets = pytest.importorskip("datasets")
    classes = datasets.ClassLabel(names=["calm", "emergency"])
    data = datasets.Dataset.from_pandas(frame()).cast_column("label", classes)
    if kind == "a dictionary":
        parts = {name: data.filter(lambda row, s=split: row["split"] == s)
                 for name, split in zip(("train", "valid", "test"), SPLITS)}  # fmt: skip
        data = datasets.DatasetDict(parts).remove_columns("split")
    data.save_to_disk(tmp_path / "saved")
    notes = read(tmp_path / "saved")
    assert notes.label_names == ("calm", "emergency")
    assert Counter(notes.table["split"].to_pylist()) == Counter(frame()["split"])
    assert sorted(notes.table["text"].to_pylist()) == sorted(frame()["text"])


# ------------------------------------------------------------------------------------ identifiers


def test_example_ids_are_unique_keyed_and_independent_of_the_other_rows(tmp_path):
    data = frame()
    data.loc[:3, "text"] = "same"
    first = read(write_table(tmp_path / "a.csv", data))
    ids = first.table["example_id"].to_pylist()
    assert len(set(ids)) == 40
    assert all(len(identifier) == 32 for identifier in ids)
    backwards = read(write_table(tmp_path / "b.csv", data[::-1]))
    assert set(backwards.table["example_id"].to_pylist()) == set(ids)
    assert backwards.table["example_id"].to_pylist()[::-1][4:] == ids[4:]
    other = read_notes(DataConfig(path=str(tmp_path / "a.csv")), b"another key")
    assert not set(other.table["example_id"].to_pylist()) & set(ids)
    assert other.fingerprint == first.fingerprint != backwards.fingerprint


@pytest.mark.parametrize(
    ("column", "value"), [("text", "changed"), ("label", 0), ("split", "test"), ("patient", "p0")]
)
def test_the_fingerprint_follows_every_column(column, value, tmp_path):
    data = frame()
    data["patient"] = [f"p{row}" for row in range(len(data))]
    before = read(write_table(tmp_path / "a.csv", data)).fingerprint
    data.loc[1, column] = value
    assert read(write_table(tmp_path / "a.csv", data)).fingerprint != before


# ------------------------------------------------------------------------------- splits by chance


def labelled(rows: int) -> pd.DataFrame:
    data = pd.DataFrame({"text": [f"note {row}" for row in range(rows)]})
    data["label"] = [int(row % 4 == 0) for row in range(rows)]
    return data


def test_without_a_split_column_the_split_is_stratified_and_seeded(tmp_path):
    path = write_table(tmp_path / "notes.csv", labelled(400))
    table = read(path).table.to_pandas()
    assert table["split"].value_counts().to_dict() == {"train": 280, "validation": 60, "test": 60}
    assert (table.groupby("split")["label"].mean() - 0.25).abs().max() < 0.01
    assert read(path).table == read(path).table
    assert read(path, split_seed=1).table != read(path).table
    assert len(read(path, test_share=0.5).table.filter(pa.compute.field("split") == "test")) == 200


def test_an_empty_name_ignores_the_split_column(tmp_path):
    path = write_table(tmp_path / "notes.csv", frame(100))
    counts = Counter(read(path, split="").table["split"].to_pylist())
    assert counts == {"train": 70, "validation": 15, "test": 15}


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=30, max_size=80), seed=st.integers(0, 5))
def test_no_group_is_in_two_splits_and_label_shares_are_about_equal(sizes, seed, tmp_path_factory):
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    data = labelled(len(groups))
    data["patient"] = groups
    path = write_table(tmp_path_factory.mktemp("grouped") / "notes.csv", data)
    table = read(path, split_seed=seed).table.to_pandas()
    assert table.groupby("group_id")["split"].nunique().max() == 1
    assert table["group_id"].nunique() == len(sizes)
    shares = table["split"].value_counts(normalize=True)
    assert abs(shares["test"] - 0.15) < 0.1
    assert (table.groupby("split")["label"].mean() - table["label"].mean()).abs().max() < 0.16


def test_rows_without_a_patient_are_patients_of_their_own(tmp_path):
    data = labelled(100)
    data["patient"] = ["p1"] * 10 + [None] * 90
    table = read(write_table(tmp_path / "notes.csv", data)).table
    assert table["group_id"].null_count == 90
    assert set(Counter(table["split"].to_pylist())) == set(SPLITS)


def test_a_patient_in_two_given_splits_is_an_error_where_patients_are_named(tmp_path, caplog):
    data = frame()
    data["patient"] = ["p1", "p2"] * 20
    path = write_table(tmp_path / "notes.csv", data)
    assert "2 groups are in more than one split" in error(path, group="patient")
    with caplog.at_level(logging.WARNING):
        read(path)
    assert "2 patients or groups are in more than one split" in caplog.text


# -------------------------------------------------------------------------------- what is refused


def test_a_path_that_is_not_there_is_refused(tmp_path):
    assert "no such file or folder" in error(tmp_path / "nothing.csv")


def test_a_file_of_another_kind_is_refused(tmp_path):
    assert "'.xlsx' files of notes are not known" in error(
        write_table(tmp_path / "notes.xlsx", b"PK")
    )


def test_a_folder_without_notes_is_refused(tmp_path):
    assert "neither X_train.csv nor" in error(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_an_empty_file_is_refused(suffix, tmp_path):
    assert "the file is empty" in error(write_table(tmp_path / f"notes.{suffix}", b""))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("notes.csv", "text,label,split\n", "a header but no rows"),
        ("notes.csv", "\n\n", "the file is empty"),
        ("notes.jsonl", "\n\n", "no rows"),
        ("notes.parquet", frame(0), "no rows"),
    ],
)
def test_a_file_without_rows_is_refused(name, data, said, tmp_path):
    assert said in error(write_table(tmp_path / name, data))


@pytest.mark.parametrize("role", ["text", "label", "split", "group", "id"])
def test_a_column_that_is_not_there_is_refused(role, tmp_path):
    message = error(write_table(tmp_path / "notes.csv", frame()), **{role: "nowhere"})
    assert "column 'nowhere' not found (columns: text, label, split)" in message


@pytest.mark.parametrize("role", ["text", "label"])
def test_a_file_without_a_known_column_is_refused_and_its_columns_listed(role, tmp_path):
    message = error(write_table(tmp_path / "notes.csv", frame().rename(columns={role: "zzz"})))
    assert f"no {role} column found (columns: " in message
    assert "zzz" in message
    assert f"--{role}" in message


def test_a_file_without_a_header_does_not_show_its_first_note(tmp_path):
    content = f"{SECRET} with many more words in it,1\n{SECRET},0\n"
    assert "<long name>" in error(write_table(tmp_path / "notes.csv", content))


def test_many_columns_are_not_all_listed(tmp_path):
    data = pd.DataFrame({f"c{number}": ["x"] for number in range(30)})
    assert "and 10 more" in error(write_table(tmp_path / "notes.csv", data))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_missing_labels_are_counted(suffix, tmp_path):
    data = frame().astype({"label": object})
    data.loc[[3, 7], "label"] = None
    message = error(write_table(tmp_path / f"notes.{suffix}", data))
    assert "column 'label' is empty in 2 rows, the first is row 4" in message


@pytest.mark.parametrize(
    ("cell", "said"),
    [(0.5, "holds decimals"), ([1], "holds list values"), ({"a": 1}, "holds dict values")],
)
def test_labels_that_are_no_labels_are_refused(cell, said, tmp_path):
    rows = frame().to_dict("records")
    rows[4]["label"] = cell
    path = write_table(tmp_path / "notes.jsonl", "\n".join(map(json.dumps, rows)))
    assert f"column 'label' {said} in 1 rows, the first is row 5" in error(path)


def test_one_class_only_is_refused(tmp_path):
    assert "all rows to train on have the same label" in error(
        write_table(tmp_path / "a.csv", frame().assign(label=1))
    )


def test_notes_taken_for_labels_are_refused_and_not_shown(tmp_path):
    data = frame().assign(copy=frame()["text"])
    message = error(write_table(tmp_path / "notes.csv", data), label="copy")
    assert "24 different labels in 24 rows are no classes" in message


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_never_saw_is_refused(split, tmp_path):
    data = frame()
    place = data.index[data["split"] == split][1]
    data.loc[place, "label"] = 7
    message = error(write_table(tmp_path / "notes.csv", data))
    assert f"1 rows of '{split}' have a label that is not in 'train'" in message
    assert f"row {place + 1} of" in message


@pytest.mark.parametrize("cell", [5, {"a": SECRET}, [SECRET], 1.5, True])
def test_cells_that_are_not_text_are_counted(cell, tmp_path):
    rows = frame().to_dict("records")
    rows[2]["text"] = rows[9]["text"] = cell
    path = write_table(tmp_path / "notes.jsonl", "\n".join(map(json.dumps, rows)))
    message = error(path)
    assert "column 'text' has 2 cells that are not text" in message
    assert "the first in row 3" in message


def test_a_column_of_bytes_or_numbers_is_no_text(tmp_path):
    for values in ([SECRET.encode()] * 40, list(range(40))):
        path = write_table(tmp_path / "notes.parquet", frame().assign(text=values))
        assert "has 40 cells that are not text" in error(path)


def test_rows_that_all_lack_a_text_are_refused(tmp_path):
    data = frame().astype({"text": object}).assign(text=None)
    assert "no row has a text" in error(write_table(tmp_path / "notes.csv", data))


def test_duplicate_ids_are_counted(tmp_path):
    data = frame()
    data["id"] = [f"note {row}" for row in range(40)]
    data.loc[[5, 8], "id"] = "note 2"
    message = error(write_table(tmp_path / "notes.csv", data))
    assert "2 ids repeat earlier ones, the first in row 6 of" in message
    assert read(tmp_path / "notes.csv", group="id", split="").table["group_id"][5].is_valid


def test_files_of_unequal_length_are_refused(tmp_path):
    for suffix in ("train", "val", "test"):
        write_table(tmp_path / f"X_{suffix}.csv", pd.DataFrame({"ER_DHX": [SECRET] * 4}))
        write_table(tmp_path / f"y_{suffix}.csv", pd.DataFrame({"LABEL": [0, 1, 0]}))
    message = error(tmp_path)
    assert "y_train.csv: 3 rows, but X_train.csv has 4" in message


def test_a_missing_one_of_the_six_files_is_named(tmp_path):
    write_table(tmp_path / "X_train.csv", pd.DataFrame({"ER_DHX": [SECRET] * 4}))
    assert "y_train.csv: no such file" in error(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("encoding", "said"), [("cp949", "CP949"), ("utf-16", "UTF-16"), ("latin-1", "not UTF-8")]
)
def test_another_encoding_is_named(suffix, encoding, said, tmp_path):
    text = "text,label\ncafé au lait é,1\n" if encoding == "latin-1" else frame().to_csv()
    message = error(write_table(tmp_path / f"notes.{suffix}", text.encode(encoding)))
    assert said in message
    assert "save the file as UTF-8" in message


def test_an_empty_split_is_refused(tmp_path):
    data = frame().replace({"split": {"validation": "train"}})
    assert "no rows in the split 'validation'" in error(write_table(tmp_path / "notes.csv", data))


def test_an_unknown_split_is_counted_and_not_shown(tmp_path):
    data = frame()
    data.loc[[6, 7], "split"] = SECRET
    message = error(write_table(tmp_path / "notes.csv", data))
    assert "column 'split' holds an unknown split in 2 rows, the first is row 7" in message


@pytest.mark.parametrize(
    "line", ["{'text': '비밀'}", "[1]", '"비밀"', '{"text": "비밀', "[" * 9000]
)
def test_a_malformed_line_of_json_is_named(line, tmp_path):
    rows = [json.dumps(row) for row in frame().to_dict("records")]
    path = write_table(tmp_path / "notes.jsonl", "\n".join([*rows[:3], "", line, *rows[3:]]))
    assert "line 5 is not a JSON object" in error(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"text,label\n{SECRET},1\n{SECRET}, with a comma,0\n", "not valid CSV at line 3"),
        (
            f"text,label\n{SECRET}, with a comma,0\n{SECRET}, again,1\n",
            "more cells than the header",
        ),
        (f'text,label\n{SECRET},1\n"{SECRET},0\n', "not valid CSV"),
    ],
)
def test_malformed_csv_is_refused(content, said, tmp_path):
    assert said in error(write_table(tmp_path / "notes.csv", content))


def test_malformed_parquet_is_refused(tmp_path):
    whole = write_table(tmp_path / "whole.parquet", frame()).read_bytes()
    for broken in (whole[:-20], SECRET.encode() * 9, whole[:4] + b"\0" * 50 + whole[54:]):
        path = write_table(tmp_path / "notes.parquet", broken)
        assert "not a valid Parquet file" in error(path)


def test_a_damaged_datasets_folder_is_refused(tmp_path):
    pytest.importorskip("datasets")
    write_table(tmp_path / "state.json", "{}")
    assert "not a folder that `datasets` can load" in error(tmp_path)


def test_a_datasets_folder_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    write_table(tmp_path / "state.json", "{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in error(tmp_path)


def test_too_few_rows_or_groups_to_split_are_refused(tmp_path):
    path = write_table(tmp_path / "notes.csv", labelled(5))
    assert "5 rows in 2 classes, the rarest with 2, are too few to split" in error(path)
    data = labelled(40).assign(patient=["a", "b"] * 20)
    assert "2 groups cannot be in 3 splits" in error(write_table(tmp_path / "notes.csv", data))


def test_shares_that_leave_no_rows_are_refused():
    with pytest.raises(InputError, match="leave no rows to train on"):
        DataConfig(validation_share=0.5, test_share=0.5)


@pytest.mark.parametrize(
    "given",
    [{"label": "text"}, {"text": "split"}, {"group": "label"}, {"subgroups": ("ward", "WARD")}]
    + [{"subgroups": (column,)} for column in ("text", "label", "split", "patient", "id")],
)
def test_one_column_in_two_roles_is_refused(given, tmp_path):
    data = frame().assign(ward="a", patient=range(40), id=range(40))
    message = error(write_table(tmp_path / "notes.csv", data), **given)
    assert "is given as" in message


def test_a_label_called_group_is_not_taken_for_the_patients(tmp_path):
    path = write_table(tmp_path / "notes.csv", frame().rename(columns={"label": "group"}))
    assert read(path, label="group").table["group_id"].null_count == 40


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
@pytest.mark.parametrize("column", ["text", "remark"])
def test_two_columns_of_one_name_are_refused(suffix, column, tmp_path):
    path = tmp_path / f"notes.{suffix}"
    whole = pa.Table.from_pandas(frame().assign(remark="-"))
    data = whole.append_column(column, pa.array([SECRET] * 40))
    if suffix == "parquet":
        pq.write_table(data, path)
    elif suffix == "jsonl":
        row = json.dumps(frame().to_dict("records")[0])
        write_table(path, row[:-1] + f', "remark": 1, "{column}": "{SECRET}"' + "}\n")
        if column == "remark":
            write_table(path, row[:-1] + ', "remark": 1, "remark": 2}\n')
    else:
        sep = "\t" if suffix == "tsv" else ","
        rows = [data.column_names, *zip(*(cells.to_pylist() for cells in data.columns))]
        write_table(path, "\n".join(sep.join(map(str, row)) for row in rows))
    assert f"two columns are named '{column}'" in error(path)


def test_columns_without_a_name_may_be_several(tmp_path):
    assert len(read(write_table(tmp_path / "notes.csv", frame().to_csv() + ",,,\n")).table) == 40
    content = "\n".join(f"{line},," for line in frame().to_csv(index=False).splitlines())
    assert len(read(write_table(tmp_path / "notes.csv", content)).table) == 40


def test_two_columns_that_differ_in_case_are_told_apart_only_by_their_name(tmp_path):
    path = write_table(tmp_path / "notes.csv", frame().assign(Text="another"))
    assert "two columns are named 'text' but for their case" in error(path)
    assert read(path, text="Text").table["text"][0].as_py() == "another"


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (DataConfig, name, value)
        for name in ("validation_share", "test_share")
        for value in (0.0, 1.0, -0.1, float("nan"), float("inf"))
    ]
    + [(DataConfig, "split_seed", -1), (DataConfig, "split_seed", 2**32)]
    + [(DataConfig, "subgroup_least", 0)]
    + [
        (WorldConfig, name, float("nan"))
        for name in ("zipf", "morphology", "knowledge", "vitals", "positive_share")
    ]
    + [(WorldConfig, "seed", -1), (WorldConfig, "unlabelled", -1), (WorldConfig, "mentions", -1)],
)
def test_every_bound_is_declared_with_its_field(cls, name, value):
    with pytest.raises(ValidationError):
        TypeAdapter(get_type_hints(cls, include_extras=True)[name]).validate_python(value)


def test_the_real_notes_keep_their_splits_and_class_names(real_data):
    notes = read(real_data / "kotech_cs" / "data.parquet")
    counts = Counter(notes.table["split"].to_pylist())
    assert counts == {"train": 2088, "validation": 518, "test": 978}
    assert len(notes.label_names) == 7
    assert "database" in notes.label_names
