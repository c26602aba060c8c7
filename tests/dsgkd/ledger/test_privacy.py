"""A ledger can be given away: no path, no machine's name."""

import platform
from pathlib import Path

import pytest

from dsgkd.ledger import Ledger, without_machines, without_paths


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/data/my notes/x.csv: row 3", "x.csv: row 3"),
        ("/a/b.csv:3: bad", "b.csv:3: bad"),
        ("0.7*/m/a+0.3*/m/b", "0.7*a+0.3*b"),
        ("s3://who:secret@bucket/x/y?endpoint_override=http://host:9000", "y"),
        ("file:///a/b", "b"),
        ("http://host:9000/x is gone", "x is gone"),
        ("data/notes.csv", "notes.csv"),
        ("labelled=data/notes.csv", "labelled=notes.csv"),
        (r"C:\a\b.csv", "b.csv"),
        ("~/x", "x"),
        ("../x/y", "y"),
        ("read '/a/b' and (/c/d/)", "read 'b' and (d)"),
        ({"/m/a": [{"x": "/m/b"}, 1, None]}, {"a": [{"x": "b"}, 1, None]}),
    ],
)
def test_paths_are_cut_to_their_last_part(given: object, kept: object) -> None:
    assert without_paths(given) == kept
    assert without_paths(kept) == kept


@pytest.mark.parametrize(
    "text",
    ["org/name", "a / b and/or c", "package.module:Class", "2026/03/01", "/", "1/2", "2.6.0+cpu"],
)
def test_what_is_no_path_stays(text: str) -> None:
    assert without_paths(text) == text


def test_addresses_and_this_machines_name_are_cut() -> None:
    host = platform.node()
    found = without_machines(f"worker 10.0.0.12:6379 on {host} died")
    assert found == f"worker a node on {'a node' if len(host) > 3 else host} died"
    assert without_machines("4 of 10 trials, lr=0.001") == "4 of 10 trials, lr=0.001"


def test_no_path_reaches_the_files_of_a_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    secret = "/hidden/place"
    ledger.write(
        "studies",
        [
            {
                "study_id": "s",
                "configuration": {"data": {"path": f"{secret}/notes.csv"}},
                "models": {f"{secret}/model": "abc", "org/name": "def"},
            }
        ],
        "study",
    )
    ledger.write(
        "trials",
        [
            {
                "study_id": "s",
                "trial_id": "t",
                "attempt": 1,
                "reason": f"{secret}/x.csv: no space left (10.1.2.3)",
                "settings": {"student": f"{secret}/model"},
            }
        ],
        "t-1",
    )
    for path in tmp_path.rglob("*.parquet"):
        for word in (b"hidden", b"place", b"10.1.2.3"):
            assert word not in path.read_bytes()
    assert ledger.rows("studies")[0]["models"] == {"model": "abc", "org/name": "def"}
    assert ledger.rows("trials")[0]["reason"] == "x.csv: no space left (a node)"
