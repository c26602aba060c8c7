from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError
from ray.train import PreemptionError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from dsgkd.errors import StorageError
from dsgkd.study.dispatcher import WORKER_DEATHS, Dispatcher, Stage
from dsgkd.study.trial import TrialSpec


class WithItsNode(ActorDiedError):
    def __str__(self):
        return "The actor died because its node has died. Node Id: 1"


class NoAnswer(Exception):
    """As Ray Train wraps what it met when it asked a worker how it was."""

    def __init__(self, failure):
        self.health_check_failure = failure


def of_train(*failures):
    return WorkerGroupError("x", {rank: NoAnswer(error) for rank, error in enumerate(failures)})


def spec_of(name):
    return TrialSpec("s", name, 1, "search", "mlkd", None, "", "", None, "", "", False, workers=2)


def report_of(epoch, **more):
    return {"epoch": epoch, "score": 0.5, "best_score": 0.5, "done": False, **more}


class TrialCallback:
    def __init__(self):
        self.heard = []

    def started(self, spec):
        self.heard.append((spec.trial_id, spec.attempt, "started"))

    def reported(self, spec, report):
        self.heard.append((spec.trial_id, spec.attempt, report["epoch"]))

    def ended(self, spec, report, state, reason):
        seconds = report["worker_seconds"]
        self.heard.append((spec.trial_id, spec.attempt, state, reason, seconds))


class Rig:
    """A dispatcher, a clock, and stages of trials; plays Tune's part."""

    def __init__(self, *stages):
        self.now, self.callback = 0.0, TrialCallback()
        self.stages = [
            Stage(f"stage-{at}", iter_of(names), callbacks=[self.callback])
            for at, names in enumerate(stages)
        ]
        self.dispatcher = Dispatcher(iter(self.stages), clock=lambda: self.now)

    def start(self):
        spec = self.dispatcher.hand_out()
        if spec is not None:
            self.dispatcher.on_trial_start(0, [], tune_trial(spec))
        return spec

    def lose(self, spec, error):
        self.dispatcher.on_trial_error(0, [], tune_trial(spec, error))


def iter_of(names):
    specs = iter([spec_of(name) for name in names])
    return lambda: next(specs, None)


def tune_trial(spec, error=None):
    return SimpleNamespace(config={"spec": spec}, get_pickled_error=lambda: error)


def test_a_stage_begins_when_the_one_before_has_nothing_left_or_running():
    rig = Rig(["a", "b"], [], ["c"])
    a, b = rig.start(), rig.start()
    assert rig.start() is None
    assert not rig.dispatcher.exhausted
    rig.dispatcher.report(a, report_of(1, done=True))
    assert rig.start() is None  # b still runs
    rig.dispatcher.report(b, report_of(1, done=True))
    c = rig.start()
    assert c.trial_id == "c"
    rig.dispatcher.report(c, report_of(1, done=True))
    assert rig.start() is None
    assert rig.dispatcher.exhausted


def test_every_second_is_charged_by_the_drivers_clock():
    rig = Rig(["a"])
    a = rig.start()
    rig.now = 5.0
    rig.dispatcher.report(a, report_of(1))
    rig.now = 8.0
    rig.dispatcher.report(a, report_of(2, done=True))
    assert rig.callback.heard[-1] == ("a", 1, "complete", "", 16.0)  # of two workers


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ActorDiedError(), "its worker was lost"),
        (NodeDiedError("x"), "its node was lost"),
        (WithItsNode(), "its node was lost"),
        (of_train(ActorDiedError(), ValueError()), "its worker was lost"),
        (of_train(ValueError(), WithItsNode()), "its node was lost"),
        (PreemptionError(PreemptionInfo(None, {})), "its node was lost"),
        (None, "its worker was lost"),
    ],
)
def test_a_lost_trial_is_preempted_and_handed_out_again_as_the_next_attempt(error, reason):
    rig = Rig(["a", "b"])
    a = rig.start()
    rig.now = 3.0
    rig.dispatcher.report(a, report_of(1))
    rig.now = 4.0
    rig.lose(a, error)
    assert rig.callback.heard[-1] == ("a", 1, "preempted", reason, 8.0)
    again = rig.start()
    assert (again.trial_id, again.attempt, again.known_epochs) == ("a", 2, 1)


def test_nodes_may_be_lost_for_ever_but_not_workers():
    rig = Rig(["a"])
    spec = rig.start()
    for _ in range(3 * WORKER_DEATHS):
        rig.lose(spec, NodeDiedError("x"))
        spec = rig.start()
    for _ in range(WORKER_DEATHS):
        assert rig.callback.heard[-1][2] == "started"
        rig.lose(spec, ActorDiedError())
        spec = rig.start()
    assert spec is None
    assert rig.callback.heard[-1][2:4] == ("failed", "its worker died 5 times within an epoch")


def test_a_worker_that_cannot_start_is_given_up_and_written_down():
    rig = Rig(["a"])
    for _ in range(WORKER_DEATHS):
        assert rig.callback.heard == []
        rig.lose(rig.dispatcher.hand_out(), ActorDiedError())
    assert rig.dispatcher.hand_out() is None
    assert [heard[2] for heard in rig.callback.heard] == ["started", "failed"]


def test_a_worker_that_gets_on_between_its_deaths_is_not_given_up():
    rig = Rig(["a"])
    spec = rig.start()
    for epoch in range(1, 3 * WORKER_DEATHS):
        rig.dispatcher.report(spec, report_of(epoch))
        rig.lose(spec, ActorDiedError())
        spec = rig.start()
        assert rig.callback.heard[-1][2] == "started"


def test_a_worker_lost_before_it_was_there_leaves_no_attempt():
    rig = Rig(["a"])
    spec = rig.dispatcher.hand_out()
    rig.lose(spec, ActorDiedError())
    assert rig.callback.heard == []
    assert rig.start().attempt == 1


def test_the_last_report_decides_how_a_trial_ended():
    rig = Rig(["failed", "unclear", "silent"])
    failed, unclear, silent = rig.start(), rig.start(), rig.start()
    rig.dispatcher.report(failed, {"epoch": 0, "score": None, "done": True, "failure": "no data"})
    rig.dispatcher.report(unclear, report_of(1, best_score=float("nan"), done=True))
    rig.dispatcher.on_trial_complete(0, [], tune_trial(silent))
    ends = [heard[2:4] for heard in rig.callback.heard if len(heard) == 5]
    assert ends == [
        ("failed", "no data"),
        ("failed", "its objective is not a number"),
        ("failed", "it ended without a last report"),
    ]


def test_a_hopeless_trial_is_pruned():
    rig = Rig(["a"])
    rig.stages[0].should_stop = lambda spec: True
    a = rig.start()
    assert rig.dispatcher.report(a, report_of(3))
    assert rig.callback.heard[-1][2:4] == ("pruned", "below the others after epoch 3")
    assert rig.dispatcher.report(a, report_of(4))  # whatever comes late
    assert len(rig.callback.heard) == 3


def test_a_limit_ends_a_stage_and_not_the_next():
    rig = Rig(["a", "b", "c"], ["d"])
    a, b = rig.start(), rig.start()
    rig.stages[0].exceeded = lambda: "max-hours 1"
    assert rig.dispatcher.report(a, report_of(1))
    assert rig.start() is None  # c is not begun, b still runs
    assert rig.dispatcher.report(b, report_of(1))
    ends = [heard[:4] for heard in rig.callback.heard if len(heard) == 5]
    assert ends == [(name, 1, "preempted", "the study reached max-hours 1") for name in ("a", "b")]
    assert rig.stages[0].limit == "max-hours 1"
    assert rig.start().trial_id == "d"
    assert rig.stages[1].limit is None


def test_an_interruption_ends_what_is_open():
    rig = Rig(["a", "b"])
    rig.start()
    rig.dispatcher.hand_out()  # its worker is not there yet
    rig.dispatcher.interrupt()
    ends = [heard[:4] for heard in rig.callback.heard if len(heard) == 5]
    assert ends == [("a", 1, "preempted", "the study was interrupted")]


def test_a_trial_that_not_all_have_heard_of_yet_is_ended_for_none():
    rig = Rig(["a"])
    second = TrialCallback()
    rig.stages[0].callbacks = [rig.callback, second]
    second.started = raise_interrupt
    with pytest.raises(KeyboardInterrupt):
        rig.start()
    rig.dispatcher.interrupt()
    assert [heard[2] for heard in rig.callback.heard] == ["started"]


def raise_interrupt(spec):
    raise KeyboardInterrupt


def test_a_place_that_cannot_be_written_stops_the_study_and_fails_no_trial():
    rig = Rig(["a"])
    a = rig.start()
    report = {
        "epoch": 0,
        "score": None,
        "done": True,
        "failure": "x",
        "unwritable": ("/d", "f", "r"),
    }
    with pytest.raises(StorageError, match="/d: f: r"):
        rig.dispatcher.report(a, report)
    assert rig.callback.heard[-1][2] == "preempted"
