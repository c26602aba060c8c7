"""`dsgkd status` says how a study stands, from its ledger alone."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from trial_events import EPOCHS, charge, ended, make_epoch, make_spec, play

from dsgkd.ledger import Ledger
from dsgkd.study.callbacks.ledger import LedgerCallback

ROOT = Path(__file__).parents[3]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study that runs."""
    folder = tmp_path / "first"
    ledger = Ledger(folder / "ledger")
    row = {
        **{"study_id": "s", "name": "first", "created_at": datetime.now(UTC)},
        "configuration": {"objective": "auroc"},
        "objective": "auroc",
        "measures": {"auroc": "maximise"},
        "budget": {"trials": 9, "epochs": EPOCHS},
    }
    ledger.write("studies", [row], "study")
    play([LedgerCallback(ledger)])
    return folder


def age(study: Path, seconds: float) -> None:
    for path in study.rglob("*.parquet"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_status_says_where_a_study_stands(run_cli, study):
    code, out, err = run_cli("status", study)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("first: search, 4 of 9 trials done, 2 running")
    assert lines[1] == "best auroc so far: mlkd 0.740, plain 0.640"
    assert lines[2] == "spent: 0.04 worker hours, <0.01 GPU-hours"
    assert re.match(r"search-mlkd-002 +search +running +lr 3e-4 alpha 2.5 +3/4 +0.680", lines[4])
    assert re.search(r"search +complete +2 +0.02 +0.00", out)
    assert re.search(r"search +preempted +1 +0.01 +<0.01", out)
    assert "failed: 1 x the loss is not finite in epoch 1" in out
    assert re.search(r"last news \d s ago", lines[-1])
    assert max(map(len, lines)) <= 100


def test_the_ledger_itself_or_its_uri_may_be_named(run_cli, study):
    names = (study, study / "ledger", f"file://{study}", f"file://{study}/ledger")
    firsts = {run_cli("status", name)[1].splitlines()[0] for name in names}
    assert len(firsts) == 1
    assert firsts.pop().startswith("first: search, 4 of 9")


def test_a_price_is_multiplied_by_gpu_hours(run_cli, study):
    out = run_cli("status", study, "--price-per-gpu-hour", "120")[1]
    assert "1.00 at 120 a GPU-hour" in out


def test_rows_can_be_limited(run_cli, study):
    out = run_cli("status", study, "--rows", "2")[1]
    assert "and 4 more" in out
    assert "search-mlkd-000" not in out


def test_long_silence_of_a_running_study_is_suspicious(run_cli, study):
    age(study, 3 * 3600)
    assert "no news for 3.0 h: interrupted?" in run_cli("status", study)[1]


def test_silence_of_a_study_that_is_over_is_not(run_cli, study):
    ledger = Ledger(study / "ledger")
    recorder = LedgerCallback(ledger)
    for number, method in ((2, "mlkd"), (2, "plain")):
        spec = make_spec(number, method, attempt=3)
        recorder.on_start(spec, datetime.now(UTC))
        recorder.on_end(spec, ended(spec, "complete", make_epoch(spec, EPOCHS)))
    age(study, 3 * 3600)
    out = run_cli("status", study)[1]
    assert "last news 3.0 h ago" in out
    assert "interrupted" not in out


def test_epochs_that_take_hours_may_be_silent_for_hours(run_cli, study):
    recorder = LedgerCallback(Ledger(study / "ledger"))
    spec = make_spec(7)
    recorder.on_start(spec, datetime.now(UTC))
    recorder.on_epoch(spec, make_epoch(spec, 1), charge(spec, 7200))
    age(study, 3 * 3600)
    assert "last news 3.0 h ago" in run_cli("status", study)[1]


def test_a_study_without_trials_has_begun(run_cli, tmp_path):
    row = {"study_id": "s", "name": "new", "created_at": datetime.now(UTC)}
    Ledger(tmp_path / "ledger").write("studies", [row], "study")
    code, out, _ = run_cli("status", tmp_path)
    assert code == 0
    assert "no trial was started yet" in out


@pytest.mark.parametrize("place", ["nothing/here", "", "file:///nothing/here", "gopher://x/y"])
def test_no_study_is_one_line(run_cli, tmp_path, place):
    code, out, err = run_cli("status", place if "://" in place else tmp_path / place)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_ledger_that_cannot_be_read_is_one_line(run_cli, study):
    (study / "ledger" / "trials" / "search-mlkd-000-1.parquet").write_bytes(b"no parquet")
    code, _, err = run_cli("status", study)
    assert code == 2
    assert "not a file of a ledger" in err
    assert err.count("\n") == 1


def test_a_pause_of_nothing_is_one_line(run_cli, study):
    code, _, err = run_cli("status", study, "--watch", "0")
    assert code == 2
    assert "--watch: 0.0 is too small: give more than 0" in err


@pytest.mark.slow
def test_watching_shows_what_is_new_until_it_is_interrupted(study):
    command = [sys.executable, "-c", "from dsgkd.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "status", str(study), "--watch", "0.2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # In the background of a shell SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert "4 of 9" in process.stdout.readline()
    spec, recorder = make_spec(5), LedgerCallback(Ledger(study / "ledger"))
    recorder.on_start(spec, datetime.now(UTC))
    last = make_epoch(spec, EPOCHS, 0.9)
    recorder.on_epoch(spec, last, charge(spec, 9.0))
    recorder.on_end(spec, ended(spec, "complete", last))
    for line in process.stdout:
        if "5 of 9" in line:
            break
    assert "mlkd 0.900" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
