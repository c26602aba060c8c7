"""Texts without labels are read whole, from files, folders and standard input."""

import io
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import write_table

from dsgkd.data.sources import read_corpus, read_texts
from dsgkd.errors import InputError


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_texts_to_predict_on_keep_their_row_numbers_and_ids(suffix, tmp_path):
    data = pd.DataFrame({"id": ["a", "b", "c"], "note": ["fever", None, "기침"]})
    table = read_texts(str(write_table(tmp_path / f"new.{suffix}", data)), None)
    assert table["text"].to_pylist() == ["fever", "기침"]
    assert table["row"].to_pylist() == [1, 3]
    assert table["id"].to_pylist() == ["a", "c"]


@pytest.mark.parametrize(
    ("content", "column", "expected"),
    [
        ("fever 있음\n\n기침, 콧물\n", None, ["fever 있음", "기침, 콧물"]),
        ('id,text\n1,"fever, 있음"\n2,기침\n', None, ["fever, 있음", "기침"]),
        ("\ufeffText\r\nfever\r\n", None, ["fever"]),
        ("a,b\n1,fever\n", "b", ["fever"]),
    ],
)
def test_standard_input_is_csv_or_one_text_a_line(content, column, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert read_texts("-", column)["text"].to_pylist() == expected


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_empty_standard_input_is_refused(content, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(InputError, match="standard input: it is empty"):
        read_texts("-", None)


def test_a_corpus_is_every_file_below_a_folder_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    write_table(tmp_path / "b.csv", pd.DataFrame({"text": ["b1", "b2"], "id": [1, 1]}))
    (tmp_path / "deep" / "a.txt").write_text("d1\n\nd2\n")
    pq.write_table(pa.table({"text": ["a1", None]}), tmp_path / "a.parquet")
    (tmp_path / "README.md").write_text("not text to train on")
    (tmp_path / ".hidden.txt").write_text("nor this")
    assert read_corpus(str(tmp_path)) == ["a1", "b1", "b2", "d1", "d2"]
    assert read_corpus(str(tmp_path / "deep" / "a.txt")) == ["d1", "d2"]


def test_a_corpus_without_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="no text in it"):
        read_corpus(str(tmp_path))
    with pytest.raises(InputError, match="no such file or folder"):
        read_corpus(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("name", "rows"), [("en_tech", 12_023), ("ko_general", 152_192)])
def test_the_real_corpora_are_read_whole(name, rows, real_data):
    assert len(read_corpus(str(real_data / name))) == rows
