from datetime import UTC, datetime, timedelta

import pytest
from trial_events import START, ended, make_epoch, make_spec

from dsgkd.ledger import Ledger
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.confirmation import unread
from dsgkd.study.history import read_history
from dsgkd.study.test_access import TestAccess


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def test_every_opening_is_a_row_before_and_after_the_reading(ledger):
    access = TestAccess(ledger, "s")
    assert (access.earlier, access.opened_at) == (0, None)
    access.open(3, "f")
    (row,) = ledger.rows("test_reads")
    assert (row["read"], row["models"], row["closed_at"]) == (1, 3, None)
    # A reading that was cut off is gone on with; it is not another one.
    again = TestAccess(ledger, "s")
    assert (again.earlier, again.opened_at) == (0, row["opened_at"])
    again.open(3, "f")
    again.close()
    second = TestAccess(ledger, "s")
    assert (second.earlier, second.opened_at) == (1, None)
    second.open(1, "f")
    assert [one["read"] for one in ledger.rows("test_reads")] == [1, 2]
    assert TestAccess(ledger, "another study").earlier == 0


def run(ledger, spec, at, state="complete"):
    callback = LedgerCallback(ledger)
    callback.on_start(spec, at)
    callback.on_end(spec, ended(spec, state, make_epoch(spec, 4), test={"auroc": 0.5}))


def test_a_confirmed_run_has_read_the_test_split_if_a_reading_names_it(ledger):
    """By the column, whatever the trials are called."""
    run(ledger, make_spec(0, stage="confirm", trial_id="a"), START)
    run(ledger, make_spec(1, stage="control", trial_id="b"), START)
    run(ledger, make_spec(2, stage="confirm", trial_id="c"), START, "failed")
    run(ledger, make_spec(0, stage="test", trial_id="x", parent="a"), START)
    run(ledger, make_spec(1, stage="test", trial_id="test-b", parent="b"), START, "preempted")
    past = read_history(ledger, "auroc")
    assert [trial.trial_id for trial in unread(past)] == ["b"]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [trial.trial_id for trial in unread(past, later)] == ["a", "b"]
