"""A closed split is never read, and everything else is the same whether or not it is open."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from table_files import write_table
from transformers import PreTrainedTokenizerFast

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.words import WordRule
from dsgkd.data import _files
from dsgkd.data._files import Columns
from dsgkd.data._rows import read_rows
from dsgkd.data.identity import text_hash
from dsgkd.data.sources import SEALED, SPLITS, DataConfig, Notes, read_notes
from dsgkd.data.world import WorldConfig
from dsgkd.errors import InputError

KEY = b"secret"


def read(
    path: Path, splits: tuple[str, ...] = SEALED, held_out: bool = False, **options: Any
) -> Notes:
    return read_notes(DataConfig(str(path), **options), KEY, splits=splits, held_out=held_out)


def frame(rows: int = 60) -> pd.DataFrame:
    """Six equal rows, two in each split; the splits are mixed."""
    data = pd.DataFrame(
        {
            "text": [f"note {row} fever" for row in range(rows)],
            "label": [row // 2 % 2 for row in range(rows)],
            "label_name": [("calm", "emergency")[row // 2 % 2] for row in range(rows)],
            "split": [SPLITS[row * 7 % 5 % 3] for row in range(rows)],
            "patient": [f"p{row % 5}-{row}" for row in range(rows)],
        }
    )
    for split in SPLITS:
        same = data.index[(data["split"] == split) & (data["label"] == 1)][:2]
        data.loc[same, "text"] = "the same in every split"
    return data


def six_files(folder: Path, data: pd.DataFrame) -> Path:
    for suffix, split in zip(("train", "val", "test"), SPLITS, strict=True):
        part = data[data["split"] == split].drop(columns="split")
        write_table(folder / f"X_{suffix}.csv", part[["text", "patient"]])
        write_table(folder / f"y_{suffix}.csv", part[["label", "label_name"]])
    return folder


def datasets_folder(folder: Path, data: pd.DataFrame) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(
        {
            split: datasets.Dataset.from_pandas(part.drop(columns="split"), preserve_index=False)
            for split, part in data.groupby("split")
        }
    ).save_to_disk(folder / "saved")
    return folder / "saved"


LAYOUTS: dict[str, Callable[[Path, pd.DataFrame], Path]] = {
    "csv": lambda folder, data: write_table(folder / "notes.csv", data),
    "parquet": lambda folder, data: write_table(folder / "notes.parquet", data),
    "jsonl": lambda folder, data: write_table(folder / "notes.jsonl", data),
    "six files": six_files,
    "datasets": datasets_folder,
    "drawn": lambda folder, data: write_table(folder / "notes.csv", data.drop(columns=["split"])),
    "drawn, no patients": lambda folder, data: write_table(
        folder / "notes.csv", data.drop(columns=["split", "patient"])
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_open_is_the_same_whatever_else_is(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, frame())
    whole = read(path, SPLITS)
    for splits in (SEALED, SPLITS[:1]):
        some = read(path, splits)
        assert set(some.table["split"].to_pylist()) == set(splits)
        kept = whole.only(splits)
        assert some.table.equals(kept.table)  # rows, order, ids, classes
        assert (some.label_names, some.fingerprint) == (kept.label_names, kept.fingerprint)
        assert some.fingerprint != whole.fingerprint
    assert whole.only(SPLITS) is whole
    assert len(set(whole.table["example_id"].to_pylist())) == len(frame())


def test_the_same_holds_of_the_synthetic_world():
    world = WorldConfig(train_notes=60, validation_notes=40, test_notes=40)
    whole, sealed = (read_notes(DataConfig(), KEY, world, splits) for splits in (SPLITS, SEALED))
    assert len(sealed.table) == 100
    assert sealed.table.equals(whole.only(SEALED).table)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_held_out_texts_are_hashed_alike_whatever_is_open(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, frame())
    whole = read(path, SPLITS, held_out=True)
    splits = zip(whole.table["text"].to_pylist(), whole.table["split"].to_pylist())
    expected = {text_hash(KEY, text) for text, split in splits if split != "train"}
    assert whole.held_out == expected
    for splits in (SEALED, SPLITS[:1]):
        some = read(path, splits, held_out=True)
        assert some.held_out == whole.only(splits).held_out == expected
        assert some.table.equals(read(path, splits).table)
        assert some.fingerprint == read(path, splits).fingerprint
    assert read(path, SPLITS).held_out is None
    other = read_notes(DataConfig(str(path)), b"another key", held_out=True)
    assert not other.held_out & expected
    assert not any(text_hash in repr(whole) for text_hash in expected)


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
def test_of_held_out_texts_that_cannot_be_used_nothing_is_noticed(layout, tmp_path, caplog):
    path = LAYOUTS[layout](tmp_path, spoilt(frame()))
    with caplog.at_level(logging.DEBUG):
        sealed = read(path, held_out=True)
    texts = sealed.only(["validation"]).table["text"].to_pylist()
    assert sealed.held_out == {text_hash(KEY, text) for text in texts}
    assert not caplog.records


def test_for_the_hashes_the_texts_of_closed_rows_are_read_and_no_label(tmp_path, monkeypatch):
    path = write_table(tmp_path / "notes.csv", frame())
    monkeypatch.setattr("dsgkd.data._tables.read_columns", guarded("label", "label_name"))
    assert read(path, held_out=True).held_out
    with pytest.raises(AssertionError, match="a closed cell was read"):
        read(path, SPLITS)


def test_for_the_hashes_the_closed_file_of_texts_is_opened_and_no_label(tmp_path):
    folder = six_files(tmp_path, frame())
    (folder / "y_test.csv").write_bytes(b"\xff\x00 not a table")
    assert read(folder, held_out=True).held_out
    (folder / "X_test.csv").unlink()
    assert len(read(folder).table)
    with pytest.raises(InputError, match=r"X_test\.csv: no such file"):
        read(folder, held_out=True)


def test_a_datasets_folder_without_a_closed_key_has_no_texts_to_hash(tmp_path):
    data = frame()
    folder = datasets_folder(tmp_path, data[data["split"] != "test"])
    assert len(read(folder, held_out=True).held_out) == data["split"].eq("validation").sum() - 1


def spoilt(data: pd.DataFrame) -> pd.DataFrame:
    """Test rows none of whose cells can be used, except for the split and the patient."""
    data = data.astype(object)
    test = data.index[data["split"] == "test"]
    data.loc[test, "text"] = None
    data.loc[test, "label"] = [f"{at}.5" for at in range(len(test))]
    data.loc[test[:3], "label"] = ["a class of its own", None, "10"]
    data.loc[test, "label_name"] = "the same for all"
    return data


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
def test_no_cell_of_a_closed_row_is_noticed(layout, tmp_path, caplog):
    (tmp_path / "whole").mkdir()
    whole = read(LAYOUTS[layout](tmp_path / "whole", frame()))
    path = LAYOUTS[layout](tmp_path, spoilt(frame()))
    with caplog.at_level(logging.DEBUG):
        sealed = read(path)
    assert sealed.table.equals(whole.table)
    assert sealed.label_names == whole.label_names == ("calm", "emergency")
    assert not caplog.records
    with pytest.raises(InputError):
        read(path, SPLITS)


def test_cells_of_the_wrong_kind_in_closed_rows_are_not_noticed(tmp_path):
    rows = frame().to_dict("records")
    for row in rows:
        if row["split"] == "test":
            row["text"], row["label"] = {"no": "text"}, ["no", "label"]
    path = tmp_path / "notes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert len(read(path).table) == sum(row["split"] != "test" for row in rows)
    with pytest.raises(InputError, match="cells that are not text"):
        read(path, SPLITS)


def test_row_numbers_in_messages_are_those_of_the_file(tmp_path):
    data = frame().astype({"label": object})
    place = data.index[data["split"] == "validation"][-1]
    assert "test" in data["split"][:place].tolist()
    data.loc[place, "label"] = None
    with pytest.raises(InputError, match=rf"in 1 rows, the first is row {place + 1}:"):
        read(write_table(tmp_path / "a.csv", data))
    data.loc[place, "label"] = 7
    with pytest.raises(InputError, match=rf"the first is row {place + 1} of"):
        read(write_table(tmp_path / "b.csv", data))


@pytest.mark.parametrize("state", ["missing", "garbage"])
def test_the_files_of_a_closed_split_are_not_opened(state, tmp_path):
    folder = six_files(tmp_path, frame())
    whole = read(folder, SPLITS)
    for file in (folder / "X_test.csv", folder / "y_test.csv"):
        file.unlink()
        if state == "garbage":
            file.write_bytes(b"\xff\x00 not a table")
    assert read(folder).table.equals(whole.only(SEALED).table)
    with pytest.raises(InputError, match=r"X_test\.csv"):
        read(folder, SPLITS)


def test_a_closed_key_of_a_datasets_folder_is_not_loaded(tmp_path):
    folder = datasets_folder(tmp_path, frame())
    whole = read(folder, SPLITS)
    for file in (folder / "test").iterdir():
        file.write_bytes(b"garbage")
    assert read(folder).table.equals(whole.only(SEALED).table)
    with pytest.raises(InputError, match="not a folder that `datasets` can load"):
        read(folder, SPLITS)


class _Tripwire(list[Any]):
    """Cells of which some must not be touched, however they are reached."""

    def __init__(self, cells: list[Any], closed: set[int]) -> None:
        super().__init__(cells)
        self.closed = closed

    def __getitem__(self, row: Any) -> Any:
        assert row not in self.closed, "a closed cell was read"
        return super().__getitem__(row)

    def __iter__(self) -> Any:
        return (self[row] for row in range(len(self)))


def guarded(*names: str) -> Callable[[Path], Columns]:
    """Read the rows of `frame` with a tripwire on some cells of the closed ones."""
    closed = {row for row, split in enumerate(frame()["split"]) if split == "test"}

    def read_columns(path: Path) -> Columns:
        columns = _files.read_columns(path)
        cells = {
            name: _Tripwire(list(values), closed) if name in names else values
            for name, values in columns.cells.items()
        }
        return Columns(columns.name, cells)

    return read_columns


def test_texts_and_labels_of_closed_rows_are_not_even_touched(tmp_path, monkeypatch):
    path = write_table(tmp_path / "notes.csv", frame())
    readers = guarded("text", "label", "label_name")
    monkeypatch.setattr("dsgkd.data._tables.read_columns", readers)
    assert len(read(path).table) == frame()["split"].ne("test").sum()
    with pytest.raises(AssertionError, match="a closed cell was read"):
        read(path, SPLITS)


def test_a_drawn_split_hands_on_the_open_rows_alone(tmp_path, monkeypatch):
    path = write_table(tmp_path / "notes.csv", frame().drop(columns=["split", "patient"]))
    whole = read(path, SPLITS)
    handed_on = []

    def spy(notes: Columns, *rest: Any) -> Any:
        handed_on.extend(notes.values("text"))
        return read_rows(notes, *rest)

    monkeypatch.setattr("dsgkd.data._tables.read_rows", spy)
    read(path)
    assert handed_on == whole.only(SEALED).table["text"].to_pylist()


def test_a_text_of_the_wrong_kind_drawn_into_test_is_not_noticed(tmp_path):
    rows = frame().drop(columns=["split", "patient"]).to_dict("records")
    path = tmp_path / "notes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    texts = set(read(path).table["text"].to_pylist())
    for row in rows:
        if row["text"] not in texts:
            row["text"] = 5
    path.write_text("\n".join(map(json.dumps, rows)))
    assert set(read(path).table["text"].to_pylist()) == texts
    with pytest.raises(InputError, match="cells that are not text"):
        read(path, SPLITS)


def test_rows_without_a_text_do_not_enter_the_draw(tmp_path, caplog):
    data = frame().drop(columns=["split", "patient"])
    blank = pd.DataFrame({"text": [" "] * 5, "label": [None] * 5, "label_name": [None] * 5})
    with_blank = pd.concat([data, blank, data[:0]], ignore_index=True)
    notes = read(write_table(tmp_path / "a.csv", data))
    with caplog.at_level(logging.WARNING):
        again = read(write_table(tmp_path / "b.csv", with_blank))
    assert again.table.equals(notes.table)
    assert "dropped 5 of" in caplog.text


@pytest.mark.parametrize("named", [True, False])
def test_a_patient_in_an_open_and_a_closed_split_is_still_found(named, tmp_path, caplog):
    data = frame()
    for split in ("train", "test"):
        data.loc[data.index[data["split"] == split][0], "patient"] = "in two splits"
    path = write_table(tmp_path / "notes.csv", spoilt(data))
    if named:
        with pytest.raises(InputError, match="1 groups are in more than one split"):
            read(path, group="patient")
    else:
        with caplog.at_level(logging.WARNING):
            read(path)
        assert "1 patients or groups are in more than one split" in caplog.text


def test_a_class_that_only_test_has_is_refused_when_test_is_opened(tmp_path):
    data = frame().drop(columns="label_name")
    data.loc[data.index[data["split"] == "test"][0], "label"] = -1  # the first in sorted order
    path = write_table(tmp_path / "notes.csv", data)
    assert read(path).label_names == ("0", "1")
    with pytest.raises(InputError, match="1 rows of 'test' have a label that is not in 'train'"):
        read(path, SPLITS)


def test_a_word_among_the_labels_of_test_does_not_reorder_the_classes(tmp_path):
    data = frame().drop(columns="label_name")
    data["label"] = pd.Series([10 if label else 9 for label in data["label"]], dtype=object)
    names = read(write_table(tmp_path / "a.csv", data)).label_names
    data.loc[data.index[data["split"] == "test"], "label"] = "nine"
    assert read(write_table(tmp_path / "b.csv", data)).label_names == names == ("9", "10")
    with pytest.raises(InputError, match="rows of 'test' have a label that is not in 'train'"):
        read(tmp_path / "b.csv", SPLITS)


@pytest.mark.parametrize("splits", [(), ("test",), ("train", "test"), ("validation", "train")])
def test_splits_are_opened_in_their_order(splits, tmp_path):
    with pytest.raises(InputError, match="give the first ones of train, validation, test"):
        read(write_table(tmp_path / "notes.csv", frame()), splits)


def test_an_open_split_without_rows_is_refused_and_a_closed_one_is_not(tmp_path):
    data = frame()
    path = write_table(tmp_path / "notes.csv", data[data["split"] != "test"])
    assert len(read(path).table)
    with pytest.raises(InputError, match="no rows in the split 'test'"):
        read(path, SPLITS)
    path = write_table(tmp_path / "notes.csv", data[data["split"] != "validation"])
    with pytest.raises(InputError, match="no rows in the split 'validation'"):
        read(path)


def test_tokenised_notes_of_sealed_and_open_tables_lie_apart(
    tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]
) -> None:
    path = write_table(tmp_path / "notes.csv", frame())
    tokenizer, cache = tokenizers["wordpiece"], tmp_path / "cache"

    def encoded(notes: Notes) -> EncodedTexts:
        return EncodedTexts.of(notes, tokenizer, [tokenizer], 32, WordRule(), cache)

    sealed = encoded(read(path))
    files = set((cache / "encodings").iterdir())
    whole = encoded(read(path, SPLITS))
    assert len(set((cache / "encodings").iterdir())) == 2 * len(files)
    assert (len(sealed), len(whole)) == (len(read(path).table), len(frame()))
    for split in SEALED:
        ours, theirs = sealed.split(split), whole.split(split)
        assert ours.example_ids.tolist() == theirs.example_ids.tolist()
        assert ours.student.tokens.flat().tolist() == theirs.student.tokens.flat().tolist()
        assert ours.teachers[0].keys.tolist() == theirs.teachers[0].keys.tolist()
    assert not len(sealed.split("test"))
