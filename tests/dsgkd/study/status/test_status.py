"""A status is the same whether it was kept up to date from messages or read from a ledger."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from trial_events import EPOCHS, ended, make_epoch, make_spec, play

from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.callbacks.progress import StatusCallback
from dsgkd.study.status.hyperparameters import settings_of
from dsgkd.study.status.status import StageStatus, TrialLine, lines_of, read_status
from dsgkd.study.status.status_table import WIDTH, duration, fitting, heading, hours, plain, table
from dsgkd.study.test_access import TestAccess

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(hours=1)
EMPTY = StageStatus(
    *("demo", "search", "auroc", "maximise", EPOCHS, 9, 0, (), 0.0, 0.0, 2.0),
    datetime.now(UTC),
)


def before(ledger, stage="search", done=0):
    """A stage as a session finds it in the ledger."""
    return read_status(ledger).begun(stage, 9, done)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The ledger of a study in which no trial was started yet."""
    ledger = Ledger(tmp_path / "ledger")
    row = {
        "study_id": "s",
        "name": "demo",
        "created_at": NOW,
        "objective": "auroc",
        "measures": {"auroc": "maximise", "brier": "minimise"},
        "arms": {"plain": {}, "mlkd": {}, "random-teacher": {}},
        "configuration": {"budget": {"price_per_gpu_hour": 2.0}},
        "budget": {
            **{"trials": 9, "epochs": EPOCHS, "confirm_top": 2, "confirm_seeds": 5},
            "controls": ["random"],
        },
    }
    ledger.write("studies", [row], "study")
    return ledger


def run_once(callback, spec, epoch, state) -> None:
    """Let a callback know a trial of one report."""
    callback.on_start(spec, datetime.now(UTC))
    over = ended(spec, state, epoch, seconds=10.0 * epoch.epoch)
    callback.on_epoch(spec, epoch, over.charge)
    callback.on_end(spec, over)


def without_clock(stage: StageStatus) -> StageStatus:
    """A status without its moments: two clocks were read."""
    lines = tuple(replace(line, started=NOW, ended=line.ended and NOW) for line in stage.trials)
    return replace(stage, trials=lines, at=NOW)


def test_events_and_ledger_give_the_same_status(ledger):
    kept = StatusCallback(EMPTY)
    assert without_clock(kept.read()) == without_clock(read_status(ledger).stage)
    play([LedgerCallback(ledger), kept])
    told, read = kept.read(), read_status(ledger).stage
    assert len(told.trials) == 7
    assert without_clock(told) == without_clock(read)
    assert [line.trial_id for line in told.rows] == [line.trial_id for line in read.rows]
    for one, other in zip(told.trials, read.trials):
        assert abs(one.started - other.started) < timedelta(seconds=5)


def test_what_a_status_says(ledger):
    kept = StatusCallback(EMPTY)
    play([kept])
    stage = kept.read()
    assert stage.done == 4
    assert [line.trial_id for line in stage.running] == ["search-mlkd-002", "search-plain-002"]
    assert [line.trial_id for line in stage.rows[2:]] == [
        *("search-plain-001", "search-mlkd-001", "search-mlkd-000", "search-plain-000")
    ]
    assert stage.best == pytest.approx({"mlkd": 0.74, "plain": 0.64})
    assert list(stage.best) == ["mlkd", "plain"]
    # 40 + 40 + 10 + 1 seconds of one worker, 20 and then 10 of two, with half a GPU each.
    assert stage.worker_seconds == 91 + 40 + 20
    assert stage.gpu_seconds == 30
    assert stage.price == pytest.approx(30 / 3600 * 2)
    assert stage.parameters["search-mlkd-001"] == ("lr 2e-4", "alpha 1.5")
    assert stage.parameters["search-plain-002"] == ("lr 3e-4",)


def test_smaller_losses_are_better():
    kept = StatusCallback(replace(EMPTY, measure="brier", direction="minimise"))
    play([kept])
    stage = kept.read()
    assert stage.best["mlkd"] == pytest.approx(0.65 + 0.03)  # not 0.74
    assert list(stage.best) == ["plain", "mlkd"]


def line(
    name: str, state: str, ran: float, epoch: int = 0, reported: float = 0.0, **changes
) -> TrialLine:
    """A line of a trial that was started `ran` seconds before NOW."""
    values = {
        **{"trial_id": name, "attempt": 1, "stage": "search", "method": "mlkd", "state": state},
        **{"settings": (), "epoch": epoch, "best": None, "workers": 1},
        **{"worker_seconds": reported, "gpu_seconds": 0.0, "reason": "", "shown_in": "search"},
        **{"started": NOW - timedelta(seconds=ran), "ended": None},
    }
    return TrialLine(**values | changes)


def stage_of(*lines: TrialLine, total: int | None = 10, done: int = 0) -> StageStatus:
    seconds = sum(one.worker_seconds for one in lines)
    return StageStatus(
        *("demo", "search", "auroc", "maximise", 10, total, done),
        *(lines, seconds, 0.0, 0.0, NOW),
    )


def test_time_left_follows_epochs_mean_durations_and_concurrency():
    half = line("a", "running", ran=55, epoch=5, reported=50)
    stage = stage_of(half, total=1)
    assert stage.trial_left(half) == pytest.approx(45)  # 100 seconds in all
    assert stage.left == pytest.approx(45)

    fresh, ended = line("b", "running", ran=20), line("c", "complete", 500, 10, 80)
    stage = stage_of(half, fresh, ended, total=3, done=1)
    assert stage.trial_left(fresh) == pytest.approx(60)
    assert stage.trial_left(ended) is None
    assert stage.left == pytest.approx(60)  # the longer of the two
    # Four wait for 80 seconds each, two at a time.
    assert replace(stage, total=7).left == pytest.approx((4 * 80 + 45 + 60) / 2)


def test_a_fresh_trial_is_measured_by_its_own_method():
    fresh = line("a", "running", ran=20, method="plain")
    slow = line("b", "complete", 500, 10, 200)
    assert stage_of(fresh, slow).trial_left(fresh) == pytest.approx(180)
    quick = line("c", "complete", 500, 10, 50, method="plain")
    assert stage_of(fresh, slow, quick).trial_left(fresh) == pytest.approx(30)


def test_a_resumed_trial_is_not_thought_to_be_fast():
    before = line("a", "preempted", ran=500, epoch=8, reported=80)
    again = line("a", "running", ran=10, epoch=9, reported=10, attempt=2)
    stage = stage_of(before, again, total=1)
    assert stage.trial_left(again) == pytest.approx(10)
    assert stage.latest == (again,)


def test_nothing_is_guessed_from_nothing():
    fresh = line("a", "running", ran=20)
    assert stage_of(fresh).left is None
    assert stage_of(fresh, total=None).left is None
    assert stage_of(line("a", "complete", 50, 10, 50), total=1, done=1).left == 0


def test_a_study_that_stands_still_says_why_and_guesses_no_time():
    ended = line("a", "complete", 500, 10, 80)
    cut_off = line("b", "preempted", 300, 5, 40, reason="the study reached max-hours 1")
    first, *_ = heading(stage_of(ended, cut_off, done=1))
    assert first.endswith("1 of 10 trials done, nothing running: the study reached max-hours 1")
    assert heading(stage_of(ended, done=1))[0].endswith("nothing running")
    assert heading(stage_of(ended, total=1, done=1))[0].endswith("1 of 1 trials done")
    running = line("b", "running", 55, 5, 50)
    assert heading(stage_of(ended, running, total=2, done=1))[0].endswith("about 45 s left")


def test_earlier_sessions_count_once(ledger):
    play([LedgerCallback(ledger)])
    read = read_status(ledger).stage
    kept = StatusCallback(before(ledger, done=4))
    assert without_clock(kept.read()) == without_clock(replace(read, trials=kept.read().trials))
    assert not kept.read().running
    assert kept.read().best == pytest.approx({"mlkd": 0.74, "plain": 0.64})
    spec = make_spec(2, attempt=3, workers=2)
    run_once(kept, spec, make_epoch(spec, EPOCHS, 0.9), "complete")
    stage = kept.read()
    assert stage.done == 5
    assert stage.best["mlkd"] == 0.9
    assert stage.worker_seconds == pytest.approx(read.worker_seconds + 80)


def test_a_later_stage_knows_what_was_spent_and_shows_its_own_trials(ledger):
    play([LedgerCallback(ledger)])
    stage = before(ledger, "confirm")
    assert stage.trials == ()
    assert stage.worker_seconds == pytest.approx(151)
    LedgerCallback(ledger).on_start(make_spec(0, stage="control"), NOW)
    assert len(before(ledger, "confirm").trials) == 1


def test_the_stage_begun_last_is_shown_and_all_are_paid(ledger):
    recorder = LedgerCallback(ledger)
    play([recorder])
    for stage in ("confirm", "control"):
        spec = make_spec(0, stage=stage, trial_id=f"{stage}-mlkd-000-000")
        run_once(recorder, spec, make_epoch(spec, EPOCHS, 0.8), "complete")
    status = read_status(ledger)
    stage = status.stage
    assert (stage.stage, stage.done, stage.total) == ("confirm", 2, 30)
    assert stage.worker_seconds == 151 + 80
    assert len(status.lines) == 9

    TestAccess(ledger, "s").open(2, "f")
    recorder.on_start(make_spec(0, stage="test"), datetime.now(UTC))
    status = read_status(ledger)
    assert (status.stage.stage, status.stage.total) == ("test", 2)
    assert "best" not in plain(status.stage).split("spent")[0]
    (reading,) = status.readings
    assert reading.endswith("not finished, 2 models read the test split")
    TestAccess(ledger, "s").close()
    assert "complete" in read_status(ledger).readings[0]


def test_an_attempt_with_a_successor_is_over(ledger):
    LedgerCallback(ledger).on_start(make_spec(0), NOW)  # and its driver is killed
    LedgerCallback(ledger).on_start(make_spec(0, attempt=2), NOW)
    first, second = read_status(ledger).lines
    assert (first.state, second.state) == ("preempted", "running")
    assert len(read_status(ledger).stage.running) == 1


def test_an_empty_ledger_is_one_line(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.write("trials", [], "none")
    with pytest.raises(InputError, match="no study was begun here"):
        read_status(ledger)


def test_a_link_is_shown_where_it_is_needed_and_counts_as_no_trial(ledger):
    recorder = LedgerCallback(ledger)
    play([recorder])
    link = make_spec(0, stage="link", trial_id="link-12345678", key="12345678", needs=())
    run_once(recorder, link, make_epoch(link, EPOCHS, 0.9), "complete")
    stage = read_status(ledger).stage
    assert (stage.stage, stage.done) == ("search", 4)
    assert stage.best["mlkd"] == pytest.approx(0.74)  # its objective is another one
    recorder.on_start(make_spec(0, stage="confirm", trial_id="confirm-mlkd-000-000"), LATER)
    stage = read_status(ledger).stage
    assert [line.trial_id for line in stage.trials] == ["link-12345678", "confirm-mlkd-000-000"]
    assert (stage.done, stage.total) == (0, 30)


def test_settings_say_nothing_of_the_notes():
    configuration = json.loads(json.dumps({"data": {"path": "/secret/x.csv"}, "seed": 3}))
    assert settings_of(configuration) == (("seed", "3"),)


@pytest.mark.parametrize("width", [120, 100, 80, 60, 40, 20, 7, 1])
@pytest.mark.parametrize("height", [30, 12, 4])
def test_a_picture_fits_its_terminal(width, height):
    kept = StatusCallback(replace(EMPTY, study="소아 응급 mlkd"))
    play([kept])
    for number in range(3, 40):
        spec = make_spec(number)
        run_once(kept, spec, make_epoch(spec, 2), "pruned")
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(table(kept.read()))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80 and height >= 12:
        assert len(lines) <= height
        assert "search-mlkd-002" in lines[4]
        assert f"3/{EPOCHS}" in lines[4]
        assert "lr 3e-4 alpha 2.5" in lines[4]
        assert lines[-1].startswith("and ")
        shown = sum("search-" in text for text in lines)
        assert shown + int(lines[-1].split()[1]) == 6 + 37


def test_plain_text_is_narrow_and_uncoloured():
    kept = StatusCallback(EMPTY)
    play([kept])
    text = plain(kept.read(), 3)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    assert text.isascii()
    assert text.splitlines()[-1] == "and 3 more"
    assert text.splitlines()[0].startswith("demo: search, 4 of 9 trials done, 2 running")
    assert len(plain(kept.read(), None).splitlines()) == 4 + 6


def test_numbers_are_never_cut_short():
    assert fitting(("lr 5e-4", "alpha 12.5"), 18) == "lr 5e-4 alpha 12.5"
    assert fitting(("lr 5e-4", "alpha 12.5"), 17) == "lr 5e-4 .."
    assert fitting(("lr 5e-4",), 3) == ".."
    assert fitting(("lr 5e-4",), 1) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, "-"), (0, "0 s"), (99.4, "99 s"), (100, "2 min")),
        *((5400, "90 min"), (7200, "2.0 h"), (86400 * 3, "3.0 d")),
    ],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_hours_that_are_short_are_not_nothing():
    assert [hours(0), hours(1), hours(36), hours(5400)] == ["0.00", "<0.01", "0.01", "1.50"]


def test_reading_a_status_needs_neither_torch_nor_ray():
    module = "dsgkd.study.status.status_table"
    code = f"import {module}, sys; print(*{{'torch', 'ray', 'sklearn'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_run_that_never_left_the_chance_level_is_shown_as_stuck():
    row = {
        "trial_id": "confirm-plain-000-000",
        **{"attempt": 1, "stage": "confirm", "state": "complete", "method": "plain"},
        **{"configuration": {}, "epochs_done": 3, "objective": 0.5, "workers": 1},
        **{"worker_seconds": 1.0, "gpu_seconds": 0.0, "started_at": NOW, "ended_at": NOW},
        "reason": None,
    }
    for stuck, state in ((True, "complete, stuck"), (None, "complete"), (False, "complete")):
        lines = lines_of([row | {"stuck": stuck}])
        status = replace(EMPTY, stage="confirm", trials=lines)
        (shown,) = [line for line in plain(status).splitlines() if "confirm-plain" in line]
        assert state in shown
        assert ("stuck" in shown) == bool(stuck)
