import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "studies" / "mlkd_search.py"


@pytest.fixture
def run_study(monkeypatch, capsys):
    """Return a function that runs the script up to where it would start Ray."""
    import ray

    def no_ray(*arguments, **keywords):
        raise AssertionError("Ray was started before the input was checked")

    monkeypatch.setattr(ray, "init", no_ray)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*flags):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return exit_.value.code, capsys.readouterr().err

    return run


def assert_one_line(outcome, expected):
    code, err = outcome
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert expected in err


def test_the_script_reads_like_a_methods_section():
    assert len(SCRIPT.read_text().splitlines()) <= 150


def test_a_folder_with_another_study_is_left_alone(run_study, tmp_path):
    ledger = tmp_path / "first" / "ledger" / "studies"
    ledger.mkdir(parents=True)
    (ledger / "study.parquet").write_bytes(b"")
    outcome = run_study("--out", tmp_path, "--name", "first")
    assert_one_line(outcome, "--resume")


def test_a_folder_with_other_files_is_left_alone(run_study, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "thesis.txt").write_text("precious")
    assert_one_line(run_study("--out", tmp_path, "--name", "first"), "--name")
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_written_is_an_input_error(run_study, tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line(run_study("--out", tmp_path / "file"), "--out")


def test_hub_models_without_network_name_the_alternatives(run_study, notes_csv, tmp_path):
    outcome = run_study("--data", notes_csv, "--out", tmp_path)
    assert_one_line(outcome, "--student-corpus")
    assert "tiny-ko" in outcome[1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--unknown"], "--unknown"),
        (["--trials", "2"], "trials"),
        (["--trials", "many"], "many"),
        (["--beta", "-1"], "beta"),
        (["--confirm-seeds", "0"], "confirm-seeds"),
        (["--name", "a/b"], "a/b"),
        (["--data", "absent.csv"], "absent.csv"),
        (["--student", "tiny-ko", "--student-corpus", "x"], "--student"),
        (["--teacher-corpus", "absent"], "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_end_in_one_line(run_study, tmp_path, flags, expected):
    assert_one_line(run_study("--out", tmp_path, *flags), expected)


def test_a_job_needs_an_absolute_folder(run_study, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert_one_line(run_study("--out", "runs"), "absolute")
