"""A trial of a study is trained again from its row in the ledger, to the bit."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from dsgkd.data.sources import SEALED, DataConfig
from dsgkd.ledger import Ledger
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.study.config import StudyConfig, as_json
from dsgkd.study.names import PublicNames
from dsgkd.tasks.measures import MEASURES
from dsgkd.training import loop
from dsgkd.training.config import RunConfig
from dsgkd.training.loop import DivergedError, EpochResult, train
from dsgkd.training.opening import open_run, open_table

pytestmark = pytest.mark.slow

TRIAL = "search-mlkd-003"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "studies" / "demo"


@pytest.fixture
def write_trial(study: Path, make_config, tmp_path: Path) -> Callable[..., list[EpochResult]]:
    """Return a function that trains a run in this process and writes it down as a study does."""

    def write(
        config: RunConfig | None = None, trial: str = TRIAL, epochs: int = 99, **changes: Any
    ) -> list[EpochResult]:
        config = config or replace(make_config(), splits=SEALED)
        cache, ledger = study.parent / "cache", Ledger(str(study / "ledger"))
        results = []
        checkpoints = Checkpoints(tmp_path / "trained" / trial)
        for result in train(open_run(config, cache), checkpoints):
            results.append(result)
            if result.epoch == epochs:
                break
        teacher = config.distillation.teacher
        asked = StudyConfig(
            "demo", str(study.parent), run=config, teachers=(teacher,) if teacher else ("none",)
        )
        names = PublicNames(asked)
        key = {"study_id": "demo-1", "trial_id": trial, "attempt": 1}
        last = results[-1]
        row = {
            "stage": "search",
            "state": "complete",
            "method": "mlkd",
            "workers": 1,
            "started_at": datetime.now(UTC),
            "epochs_done": last.epoch,
            "best_epoch": last.best_epoch,
            "objective": last.best_objective,
            "configuration": names.public(json.loads(json.dumps(asdict(config)))),
        }
        ledger.write("trials", [key | row | changes], f"{trial}-{(key | changes)['attempt']}")
        metrics = [
            key
            | {"attempt": (key | changes)["attempt"], "epoch": r.epoch, "split": "validation"}
            | {"loss": r.validation["loss"]}
            | {"measures": {name: r.validation[name] for name in MEASURES if name != "loss"}}
            for r in results
        ]
        ledger.write("metrics", metrics, f"{trial}-{(key | changes)['attempt']}")
        notes = open_table(config.data, config.world, cache, SEALED)
        public = names.configuration(asked)
        public["cluster"]["cpus_per_worker"] = torch.get_num_threads()
        row = {"study_id": "demo-1", "data_fingerprint": notes.fingerprint, "configuration": public}
        ledger.write("studies", [row], "study")
        (study / "study.json").write_text(json.dumps({"configuration": as_json(asked)}))
        return results

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["plain", "distilled", "shuffled"])
def test_a_trial_is_the_same_to_the_bit(kind, run_cli, write_trial, study, make_config, tmp_path):
    config = make_config(splits=SEALED)
    if kind != "plain":
        config = make_config(
            teacher="teacher",
            distillation={"teacher_store": "stored", "shuffled": kind == "shuffled"},
            splits=SEALED,
        )
    results = write_trial(config)
    before = contents(study)

    code, out, _ = run_cli("rerun", study, TRIAL)

    assert code == 0, out
    lines = out.splitlines()
    assert f"{TRIAL}, attempt 1: complete in the ledger" in lines[0]
    for result in results:
        value = f"{result.validation['auroc']:.6f}"
        assert f"{result.epoch:>5} {value:>11} {value:>11} {0:>11}" in lines
    best, objective = results[-1].best_epoch, f"{results[-1].best_objective:.6f}"
    assert f"best epoch: {best} then, {best} now" in lines
    assert f"best auroc: {objective} then, {objective} now" in lines
    assert lines[-1] == "identical: every validation measure (epochs: 3)"
    assert contents(study) == before


def test_what_differs_is_named_by_its_size_and_the_exit_code_is_0(run_cli, write_trial, study):
    write_trial()
    ledger = Ledger(str(study / "ledger"))
    rows = ledger.rows("metrics")
    rows[1]["measures"]["auroc"] += 0.25
    rows[2]["measures"]["brier"] -= 0.5
    ledger.write("metrics", rows, f"{TRIAL}-1")

    code, out, _ = run_cli("rerun", study, TRIAL)

    assert code == 0
    assert "identical" not in out
    assert "largest difference of auroc: 0.25 (epoch 2)" in out
    assert "largest difference of brier: 0.5 (epoch 3)" in out


def test_a_trained_trial_is_kept_where_the_user_says_and_never_in_the_study(
    run_cli, write_trial, study, tmp_path
):
    write_trial()
    before = contents(study)
    code, out, _ = run_cli("rerun", study, TRIAL, "--out", tmp_path / "again")
    assert code == 0
    assert (tmp_path / "again" / "model").is_dir()
    assert "dsgkd evaluate --model" in out
    for folder, said in (
        (study / "again", "inside the study's folder"),
        (tmp_path / "again", "not an empty folder"),
    ):
        code, _, problem = run_cli("rerun", study, TRIAL, "--out", folder)
        assert code == 2
        assert said in problem
    assert contents(study) == before


def test_the_test_split_is_not_read_even_where_the_row_opens_it(
    run_cli, write_trial, study, make_config, notes_csv, tmp_path
):
    lines = notes_csv.read_text(encoding="utf-8").splitlines()
    spoilt = tmp_path / "spoilt.csv"
    spoilt.write_text(
        "\n".join(",,no label at all,test" if line.endswith(",test") else line for line in lines),
        encoding="utf-8",
    )
    write_trial(make_config())  # all splits are open
    code, out, _ = run_cli("rerun", study, TRIAL, "--data", spoilt)
    assert code == 0
    assert "identical" in out


def test_a_pruned_trial_ends_where_it_was_pruned(run_cli, write_trial, study):
    write_trial(epochs=2, state="pruned")
    _, out, _ = run_cli("rerun", study, TRIAL)
    assert "\n    2 " in out
    assert "\n    3 " not in out
    assert "identical: every validation measure (epochs: 2)" in out


def test_an_attempt_that_was_cut_off_is_trained_to_the_end(run_cli, write_trial, study):
    write_trial(epochs=1, state="preempted")
    code, out, _ = run_cli("rerun", study, TRIAL)
    assert code == 0
    assert "\n    3           - " in out
    assert "identical: every validation measure (epochs: 1)" in out


def test_attempts_that_followed_one_another_are_compared_as_a_whole(run_cli, write_trial, study):
    write_trial(epochs=1, state="preempted")
    assert [result.epoch for result in write_trial(attempt=2)] == [2, 3]
    code, out, _ = run_cli("rerun", study, TRIAL)
    assert (code, out.splitlines()[0]) == (0, f"{TRIAL}, attempt 2: complete in the ledger")
    assert "identical: every validation measure (epochs: 3)" in out
    code, out, _ = run_cli("rerun", study, TRIAL, "--attempt", 1)
    assert (code, out.splitlines()[0]) == (0, f"{TRIAL}, attempt 1: preempted in the ledger")
    assert "identical: every validation measure (epochs: 1)" in out
    code, _, problem = run_cli("rerun", study, TRIAL, "--attempt", 7)
    assert code == 2
    assert "has no attempt 7: choose of 1, 2" in problem


def test_a_trial_that_diverges_again_says_so(run_cli, write_trial, study, monkeypatch):
    def diverging(*arguments: Any) -> Iterator[EpochResult]:
        raise DivergedError("the loss is not finite in epoch 1")
        yield

    write_trial(state="failed", reason="it was not finite")
    monkeypatch.setattr(loop, "train", diverging)
    code, out, _ = run_cli("rerun", study, TRIAL)
    assert code == 0
    assert "failed now: the loss is not finite in epoch 1; then: it was not finite" in out


def test_other_data_are_refused(run_cli, write_trial, study, notes_csv, tmp_path):
    write_trial()
    other = tmp_path / "other.csv"
    other.write_text(notes_csv.read_text(encoding="utf-8").replace("내원", "퇴원", 1))
    for path, said in (
        (other, "other.csv: not the data that the study began with: name them with --data"),
        (tmp_path / "gone.csv", "no such file or folder"),
    ):
        code, out, problem = run_cli("rerun", study, TRIAL, "--data", path)
        assert (code, out) == (2, "")
        assert said in problem
        assert problem.count("\n") == 1


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        ("search-mlkd-030", f"no trial 'search-mlkd-030': the closest names are: {TRIAL}"),
        ("zzz", "no trial 'zzz': the closest names are: none"),
        ("test-mlkd-000", "test-mlkd-000: it read the test split and trained nothing"),
        ("search-plain-000", "its configuration was not written down"),
        ("search-plain-001", "distillation.new: this version of dsgkd knows no such field"),
    ],
)
def test_rows_that_cannot_be_trained_are_refused_in_one_line(
    trial, said, run_cli, write_trial, study
):
    write_trial()
    ledger = Ledger(str(study / "ledger"))
    key = {"study_id": "demo-1", "attempt": 1}
    newer: dict[str, Any] = copy.deepcopy(ledger.rows("trials")[0]["configuration"])
    newer["distillation"]["new"] = 1
    for name, rest in (
        ("test-mlkd-000", {"stage": "test", "state": "complete"}),
        ("search-plain-000", {"stage": "search"}),
        ("search-plain-001", {"stage": "search", "configuration": newer}),
    ):
        ledger.write("trials", [key | {"trial_id": name} | rest], f"{name}-1")
    code, out, problem = run_cli("rerun", study, trial)
    assert (code, out) == (2, "")
    assert said in problem
    assert problem.count("\n") == 1


def test_a_folder_without_a_study_is_refused(run_cli, tmp_path):
    code, _, problem = run_cli("rerun", tmp_path, TRIAL)
    assert code == 2
    assert "no study here" in problem
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_was_moved_is_found_with_its_notes(
    run_cli, write_trial, study, notes_csv, tmp_path, make_config
):
    gone = tmp_path / "gone.csv"
    gone.write_bytes(notes_csv.read_bytes())
    write_trial(replace(make_config(splits=SEALED), data=DataConfig(path=str(gone))))
    moved = tmp_path / "elsewhere" / "demo"
    moved.parent.mkdir()
    study.rename(moved)
    (study.parent / "cache").rename(moved.parent / "cache")  # the key of the ids goes along
    gone.unlink()
    code, out, _ = run_cli("rerun", moved, TRIAL, "--data", notes_csv)
    assert code == 0
    assert "identical" in out
