"""Texts without labels are new ones, and none of them is in validation or test."""

import logging
import re
from pathlib import Path

import pandas as pd
import pytest
from table_files import write_table

from dsgkd.data.sources import (
    SEALED,
    SPLITS,
    DataConfig,
    Notes,
    read_glossary,
    read_notes,
    read_unlabelled,
)
from dsgkd.data.unlabelled import SYNTHETIC
from dsgkd.data.world import WorldConfig, glossary, unlabelled_notes
from dsgkd.errors import InputError

KEY = b"secret"
WORLD = WorldConfig(train_notes=60, validation_notes=40, test_notes=40, unlabelled=50)


@pytest.fixture(params=[SPLITS, SEALED], ids=["open", "sealed"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Notes:
    data = pd.DataFrame(
        {
            "text": [f"{SPLITS[row % 3]} fever Ⅳ {row}" for row in range(30)],
            "label": [row // 3 % 2 for row in range(30)],
            "split": [SPLITS[row % 3] for row in range(30)],
        }
    )
    path = write_table(tmp_path / "notes.csv", data)
    return read_notes(DataConfig(str(path)), KEY, splits=request.param, held_out=True)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl", "txt"])
def test_what_is_held_out_repeated_or_blank_is_dropped_with_a_count(
    suffix: str, notes: Notes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["new one", "test fever Ⅳ 2", "  test  fever\u00a0IV 2 ", "validation fever Ⅳ 1"]
    texts += ["train fever IV 0", "new  one", "기침", " ", "기침"]
    path = tmp_path / f"more.{suffix}"
    lines = suffix == "txt"
    write_table(path, "\n".join(texts) if lines else pd.DataFrame({"note": texts, "label": 1}))
    with caplog.at_level(logging.WARNING):
        (source,) = read_unlabelled([str(path)], None, notes, KEY)
    assert source.table["text"].to_pylist() == ["new one", "train fever IV 0", "기침"]
    counts = {"read": 9, "blank": 1, "repeated": 2, "held_out": 3, "in_training": 1}
    assert source.counts == counts
    (record,) = caplog.records
    assert "3 of 9 texts without labels are used; dropped: 1 blank, 2 repeated, 3 that are in" in (
        record.getMessage()
    )
    assert "fever" not in caplog.text
    assert source.name == path.name
    assert "fever" not in repr(source)


def test_a_source_is_a_table_like_that_of_the_notes(notes: Notes, tmp_path: Path) -> None:
    path = write_table(tmp_path / "more.csv", pd.DataFrame({"memo": ["a", "b"]}))
    (source,) = read_unlabelled([str(path)], "memo", notes, KEY)
    assert source.table.schema == notes.table.schema
    assert source.table["split"].to_pylist() == ["train"] * 2
    assert source.table["label"].to_pylist() == [-1] * 2
    assert source.table["group_id"].null_count == 2
    ids = source.table["example_id"].to_pylist()
    assert all(re.fullmatch("[0-9a-f]{32}", identifier) for identifier in ids)
    assert len(set(ids) | set(notes.table["example_id"].to_pylist())) == 2 + len(notes.table)
    (again,) = read_unlabelled([str(path)], "memo", notes, KEY)
    assert again.fingerprint == source.fingerprint
    (other,) = read_unlabelled([str(path)], "memo", notes, b"another")
    assert other.fingerprint == source.fingerprint
    assert other.table["example_id"] != source.table["example_id"]


def test_each_path_is_a_source_and_the_earlier_one_keeps_a_text(
    notes: Notes, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    write_table(tmp_path / "folder" / "b.txt", "one\ntwo\n")
    write_table(tmp_path / "a.txt", "two\nthree\n")
    first, second = read_unlabelled(
        [str(tmp_path / "folder"), str(tmp_path / "a.txt")], None, notes, KEY
    )
    assert first.table["text"].to_pylist() == ["one", "two"]
    assert second.table["text"].to_pylist() == ["three"]
    assert second.counts["repeated"] == 1
    assert first.fingerprint != second.fingerprint


def test_a_file_of_held_out_notes_alone_is_refused(notes: Notes, tmp_path: Path) -> None:
    path = write_table(tmp_path / "more.txt", "test fever IV 2\ntest fever IV 5\n")
    with pytest.raises(InputError, match="none of 2 texts can be used") as caught:
        read_unlabelled([str(path)], None, notes, KEY)
    assert "fever" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"), [("a,b\n1,2\n", "no text column found"), ("text\na, b\n", "more cells")]
)
def test_what_cannot_be_read_is_refused(content: str, said: str, notes: Notes, tmp_path: Path):
    path = write_table(tmp_path / "more.csv", content)
    with pytest.raises(InputError, match=said):
        read_unlabelled([str(path)], None, notes, KEY)
    with pytest.raises(InputError, match="no such file or folder"):
        read_unlabelled([str(tmp_path / "nowhere.csv")], None, notes, KEY)


def test_notes_read_without_what_is_held_out_cannot_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held_out"):
        read_unlabelled([SYNTHETIC], None, read_notes(DataConfig(), KEY, WORLD), KEY, WORLD)


def test_the_synthetic_world_has_unlabelled_notes_and_a_glossary() -> None:
    world_notes = read_notes(DataConfig(), KEY, WORLD, SEALED, held_out=True)
    (source,) = read_unlabelled([SYNTHETIC], None, world_notes, KEY, WORLD)
    assert source.table["text"].to_pylist() == unlabelled_notes(WORLD)
    assert source.counts["in_training"] == source.counts["held_out"] == 0
    assert read_glossary(SYNTHETIC, KEY, WORLD).table["text"].to_pylist() == glossary(WORLD)


# -------------------------------------------------------------------------------------- glossary


@pytest.mark.parametrize("name", ["terms.txt", "terms", "terms.lst"])
def test_a_glossary_is_one_term_a_line(name: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, "# of the clinic\n\nfever\n  otitis media \nfever\nSpO₂\n")
    source = read_glossary(str(path), KEY)
    assert source.table["text"].to_pylist() == ["fever", "otitis media", "SpO₂"]
    assert source.counts["repeated"] == 1
    assert source.name == name


@pytest.mark.parametrize("column", ["term", "Text"])
def test_a_glossary_may_be_a_column_of_a_table(column: str, tmp_path: Path) -> None:
    data = pd.DataFrame({column: ["fever", None, "#4 tooth"], "gloss": ["열", "-", "치아"]})
    source = read_glossary(str(write_table(tmp_path / "terms.csv", data)), KEY)
    assert source.table["text"].to_pylist() == ["fever", "#4 tooth"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n\n", "none of 0 texts can be used"),
        (b"a note " * 40, "1 of 1 terms have more than 200 characters"),
        ("열".encode("cp949"), "not UTF-8"),
    ],
)
def test_what_is_no_glossary_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read_glossary(str(write_table(tmp_path / "terms.txt", content)), KEY)
    with pytest.raises(InputError, match="no such file"):
        read_glossary(str(tmp_path / "nowhere.txt"), KEY)
