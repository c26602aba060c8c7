import runpy
import sys
from pathlib import Path

import pytest

from dsgkd.cli.points import parse_points
from dsgkd.cli.study import default_study, read_flags
from dsgkd.errors import InputError
from dsgkd.study.search.config import SearchConfig
from dsgkd.training.config import OptimisationConfig

pytestmark = pytest.mark.slow

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
    assert len(SCRIPT.read_text().splitlines()) <= 130


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
        (["--name", "cache"], "cache"),
        (["--first", "lr=3"], "no parameter 'lr'"),
        (["--gpus-per-worker", "nan"], "--gpus-per-worker"),
        (["--space", "nowhere:function"], "nowhere:function"),
        (["--track", "comet"], "tensorboard"),
        (["--on-end", "ftp://x"], "--on-end"),
        (["--teacher", ""], "--teacher: empty"),
        (["--teacher-corpus", "absent"], "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_end_in_one_line(run_study, tmp_path, flags, expected):
    assert_one_line(run_study("--out", tmp_path, *flags), expected)


def test_a_job_needs_an_absolute_folder(run_study, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert_one_line(run_study("--out", "runs"), "absolute")


@pytest.fixture
def read(monkeypatch):
    """Return a function that reads flags over the script's configuration."""
    study = runpy.run_path(str(SCRIPT))["study"]

    def read(*flags):
        return read_flags(study, list(map(str, flags)), "script", "")

    return read


def test_flags_override_what_the_script_says(read):
    base, found = read(), read("--trials", 30, "--epochs", 2, "--beta", "0,2", "--alpha", 1)
    assert base.study.search.trials == 0
    assert base.study.run.optimisation.batch_size == 16
    assert found.study.search.trials == 30
    assert found.study.run.optimisation.epochs == 2
    assert (found.study.space.alpha, found.study.space.beta) == ((1.0, 1.0), (0.0, 2.0))
    assert found.study.space.mappings == base.study.space.mappings


def test_models_and_steps_follow_the_notes_unless_they_are_named(read):
    assert read().study.run.student.model == "tiny-ko"
    assert read().study.run.transfer.unlabelled == ("synthetic",)
    assert read().study.run.optimisation.encoder_lr == 5e-4
    own = read("--data", "notes.csv").study
    assert (own.run.student.model, own.teachers) == ("kobert", ("cbert",))
    assert own.run.transfer.unlabelled == ()
    assert own.run.optimisation.encoder_lr == 3e-5
    assert Path(own.run.data.path).is_absolute()
    small = read("--data", "notes.csv", "--student-corpus", "ko", "--teacher-corpus", "en").study
    assert small.run.student.model == f"corpus:{Path.cwd() / 'ko'}"
    assert small.teachers == (f"corpus:{Path.cwd() / 'en'}",)
    assert small.run.optimisation.encoder_lr == 3e-4
    several = read("--teacher", "a", "--teacher", "b+c").study
    assert several.teachers == ("a", "b+c")


def test_the_seed_is_one_and_the_test_split_stays_sealed_until_it_is_asked_for(read):
    assert (read("--seed", 5).study.seed, read("--seed", 5).study.run.seed) == (5, 5)
    assert [read(*f).study.test for f in ((), ("--test",), ("--test", "again"))] == [
        "",
        "once",
        "again",
    ]


def test_where_studies_go(read, monkeypatch):
    assert read().study.out == str(Path.cwd() / "runs")
    assert read("--out", "s3://bucket/studies").study.out == "s3://bucket/studies"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert read().study.out == str(Path.home() / "dsgkd-runs")


def test_points_to_try_first(read):
    study = read().study
    points = parse_points("base;paper;alpha=3,mapping=last-1", study)
    assert points[0] == {"encoder_lr": 5e-4, "classifier_lr": 1e-3, "alpha": 1.0}
    assert points[1]["alpha"] == 0.6
    assert points[2] == {"alpha": 3, "mapping": "last-1"}
    assert parse_points("", study) == ()
    with pytest.raises(InputError, match="'worse' cannot be read"):
        parse_points("worse", study)


def test_dsgkd_study_is_the_same_command_line_on_the_defaults_of_the_fields():
    found = read_flags(default_study, ["--name", "x"], "dsgkd study", "").study
    assert found.run.optimisation == OptimisationConfig()
    assert found.search == SearchConfig()
