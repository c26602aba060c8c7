"""Whatever is wrong with what the user gives: one line that says what, where and what to do."""

import errno

import pandas as pd
import pytest

from dsgkd.storage import atomic as files

SECRET = "환아 confidential"
"""What stands in the notes here, and must not stand in a message."""


def frame(rows=40):
    return pd.DataFrame(
        {
            "id": [f"n{row}" for row in range(rows)],
            "text": [f"{SECRET} fever {row}" for row in range(rows)],
            "label": [row // 4 % 2 for row in range(rows)],
            "split": (["train"] * 2 + ["validation", "test"]) * (rows // 4),
        }
    )


def missing(folder):
    return folder / "absent.csv"


def empty(folder):
    (folder / "notes.csv").write_bytes(b"")
    return folder / "notes.csv"


def header_only(folder):
    return written(folder, frame().head(0))


def written(folder, table):
    table.to_csv(folder / "notes.csv", index=False)
    return folder / "notes.csv"


def no_text_column(folder):
    return written(folder, frame().rename(columns={"text": "words"}))


def label_missing(folder):
    table = frame()
    table["label"] = table["label"].astype("object")
    table.loc[5, "label"] = None
    return written(folder, table)


def one_class(folder):
    return written(folder, frame().assign(label=1))


def unseen_label(folder):
    table = frame()
    table.loc[table["split"] == "validation", "label"] = 7
    return written(folder, table)


def non_text_cells(folder):
    frame().assign(text=range(40)).to_parquet(folder / "notes.parquet")
    return folder / "notes.parquet"


def duplicate_ids(folder):
    return written(folder, frame().assign(id="same"))


def wrong_encoding(folder):
    (folder / "notes.csv").write_bytes(frame().to_csv(index=False).encode("cp949"))
    return folder / "notes.csv"


def empty_split(folder):
    return written(folder, frame()[lambda table: table["split"] != "validation"])


def mismatched_lengths(folder):
    for split in ("train", "val", "test"):
        pd.DataFrame({"ER_DHX": [SECRET] * 8}).to_csv(folder / f"X_{split}.csv")
        rows = 7 if split == "val" else 8
        pd.DataFrame({"LABEL": [row % 2 for row in range(rows)]}).to_csv(folder / f"y_{split}.csv")
    return folder


BAD_DATA = {
    missing: "absent.csv",
    empty: "empty",
    header_only: "notes.csv",
    no_text_column: "--text",
    label_missing: "row",
    one_class: "class",
    unseen_label: "not in 'train'",
    non_text_cells: "text",
    duplicate_ids: "id",
    wrong_encoding: "UTF-8",
    empty_split: "validation",
    mismatched_lengths: "y_val.csv",
}


@pytest.mark.parametrize("make", BAD_DATA, ids=lambda make: make.__name__)
def test_bad_notes_end_in_one_line(run_cli, zoo, tmp_path, make):
    (tmp_path / "data").mkdir()
    code, _, err = run_cli(
        "train",
        *("--data", make(tmp_path / "data"), "--out", tmp_path / "run"),
        *("--student", zoo / "student", "--teacher", zoo / "teacher"),
    )
    assert_one_line(code, err, BAD_DATA[make])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--student", "no/such-model"], "tiny-ko"),
        (["--student", "."], "config.json"),
        (["--teacher", "kmbert"], "folder"),
        (["--distillation.alpha", "-1"], "alpha"),
        (["--distillation.mapping", "sideways"], "uniform"),
        (["--optimisation.epochs", "0"], "epochs"),
        (["--selection.objective", "beauty"], "auroc"),
        (["--words.script", "Klingon"], "Klingon"),
        (["--max-length", "1000"], "--max-length"),
        (["--unknown", "1"], "--unknown"),
        (["--label", "nothing"], "nothing"),
        (["--optimisation.epochs", "many"], "many"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_end_in_one_line(run_cli, short, tmp_path, monkeypatch, flags, expected):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    given = [*short, "--out", tmp_path / "run"]
    if flags[0] == "--teacher":
        at = given.index("--teacher")
        del given[at : at + 2]
    code, _, err = run_cli("train", *given, *flags)
    assert_one_line(code, err, expected)


def test_a_folder_that_cannot_be_written_ends_in_one_line(run_cli, short, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run_cli("train", *short, "--out", tmp_path / "file" / "run")
    assert_one_line(code, err, "file")


def test_a_full_disk_ends_in_one_line_and_leaves_nothing_half_written(
    run_cli, short, tmp_path, monkeypatch
):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    code, _, err = run_cli("train", *short, "--out", tmp_path / "run", "--cache", tmp_path / "c")
    assert_one_line(code, err, "")
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert left == []


def test_a_text_without_a_foreign_word_and_a_very_long_one_are_fine(run_cli, short, tmp_path):
    table = frame()
    table.loc[0, "text"] = "환아 어제 부터"
    table.loc[1, "text"] = "환아 fever " * 11_000
    given = [flag if flag != short[1] else str(written(tmp_path, table)) for flag in short]
    code, out, _ = run_cli("train", *given, "--out", tmp_path / "run")
    assert code == 0
    assert SECRET not in out


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_that_is_no_student_ends_in_one_line(run_cli, command, tmp_path, notes_csv):
    source = ["--data", notes_csv] if command == "evaluate" else [notes_csv]
    code, _, err = run_cli(command, "--model", tmp_path, *source)
    assert_one_line(code, err, "dsgkd.json")


def test_an_empty_corpus_ends_in_one_line(run_cli, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n")
    code, _, err = run_cli(
        "pretrain", "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / "model"
    )
    assert_one_line(code, err, "")
    assert not (tmp_path / "model").exists()


def assert_one_line(code, err, expected):
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert expected in err
    assert "Traceback" not in err
    assert "confidential" not in err
