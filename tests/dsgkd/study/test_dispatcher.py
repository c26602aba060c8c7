from dataclasses import replace
from datetime import timedelta

import pytest
from trial_events import START, Heard, make_epoch, make_spec, one_stage

from dsgkd.errors import StorageError
from dsgkd.study.dispatcher import WORKER_DEATHS, Dispatcher, Stage
from dsgkd.study.messages import (
    StorageFailed,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    WorkerLost,
)

RUN = make_spec().run


def spec_of(name, needs=(), **changes):
    settings = {"trial_id": name, "run": RUN, "workers": 2, "needs": tuple(needs)}
    return make_spec(**settings | changes)


class Rig:
    """A dispatcher, a clock, and stages of trials; plays a backend's part."""

    def __init__(self, *stages, **settings):
        self.now, self.heard = 0.0, Heard()
        self.stages = [
            Stage(
                f"stage-{at}",
                iter([spec_of(one) if isinstance(one, str) else one for one in names]),
                callbacks=[self.heard],
            )
            for at, names in enumerate(stages)
        ]
        self.dispatcher = Dispatcher(one_stage(*self.stages), **{"concurrent": 9} | settings)

    @property
    def at(self):
        return START + timedelta(seconds=self.now)

    def hand_out(self):
        return self.dispatcher.next_trial(self.at)

    def start(self):
        spec = self.hand_out()
        if spec is not None:
            self.send(spec, TrialStarted())
        return spec

    def send(self, spec, message):
        return self.dispatcher.receive(spec, message, self.at)

    def epoch(self, spec, number, **changes):
        return self.send(spec, make_epoch(spec, number, **{"finished": False} | changes))

    def finish(self, spec):
        return self.send(spec, TrialFinished())

    def lose(self, spec, with_node=False):
        self.send(spec, WorkerLost(with_node))


def test_a_stage_begins_when_the_one_before_has_nothing_left_or_running():
    rig = Rig(["a", "b"], [], ["c"])
    a, b = rig.start(), rig.start()
    assert rig.start() is None
    assert not rig.dispatcher.exhausted
    rig.finish(a)
    assert rig.start() is None  # b still runs
    rig.finish(b)
    c = rig.start()
    assert c.trial_id == "c"
    rig.finish(c)
    assert rig.start() is None
    assert rig.dispatcher.exhausted


def test_every_second_is_charged_from_the_start_to_the_end():
    rig = Rig(["a"])
    a = rig.start()
    rig.now = 5.0
    rig.epoch(a, 1)
    rig.now = 8.0
    rig.finish(a)
    assert rig.heard.events[-1] == ("a", 1, "complete", "", 16.0)  # of two workers


@pytest.mark.parametrize("with_node", [True, False])
def test_a_lost_trial_is_preempted_and_handed_out_again_as_the_next_attempt(with_node):
    rig = Rig(["a", "b"])
    a = rig.start()
    rig.now = 3.0
    rig.epoch(a, 1)
    rig.now = 4.0
    rig.lose(a, with_node)
    reason = f"its {'node' if with_node else 'worker'} was lost"
    assert rig.heard.events[-1] == ("a", 1, "preempted", reason, 8.0)
    again = rig.start()
    assert (again.trial_id, again.attempt, again.known_epochs) == ("a", 2, 1)


def test_what_a_lost_attempt_says_late_is_not_heard():
    rig = Rig(["a"])
    a = rig.start()
    rig.lose(a)
    again = rig.start()
    assert rig.epoch(a, 1)
    assert rig.finish(a)
    assert rig.heard.events[-1] == ("a", 2, "started")
    rig.finish(again)
    assert rig.heard.ends[-1][:3] == ("a", 2, "complete")


def test_nodes_may_be_lost_for_ever_but_not_workers():
    rig = Rig(["a"])
    spec = rig.start()
    for _ in range(3 * WORKER_DEATHS):
        rig.lose(spec, with_node=True)
        spec = rig.start()
    for _ in range(WORKER_DEATHS):
        assert rig.heard.events[-1][2] == "started"
        rig.lose(spec)
        spec = rig.start()
    assert spec is None
    assert rig.heard.events[-1][2:4] == ("failed", "its worker died 5 times within an epoch")


def test_a_worker_that_cannot_start_is_given_up_and_written_down():
    rig = Rig(["a"])
    for _ in range(WORKER_DEATHS):
        assert rig.heard.events == []
        rig.lose(rig.hand_out())
    assert rig.hand_out() is None
    assert [event[2] for event in rig.heard.events] == ["started", "failed"]


def test_a_worker_that_gets_on_between_its_deaths_is_not_given_up():
    rig = Rig(["a"])
    spec = rig.start()
    for epoch in range(1, 3 * WORKER_DEATHS):
        rig.epoch(spec, epoch)
        rig.lose(spec)
        spec = rig.start()
        assert rig.heard.events[-1][2] == "started"


def test_a_worker_lost_before_it_was_there_leaves_no_attempt():
    rig = Rig(["a"])
    spec = rig.hand_out()
    rig.lose(spec)
    assert rig.heard.events == []
    assert rig.start().attempt == 1


def test_the_last_message_decides_how_a_trial_ended():
    rig = Rig(["failed", "unclear"])
    failed, unclear = rig.start(), rig.start()
    rig.send(failed, TrialFailed(reason="no data"))
    rig.epoch(unclear, 1, best_objective=float("nan"), finished=True)
    rig.finish(unclear)
    assert [end[2:] for end in rig.heard.ends] == [
        ("failed", "no data"),
        ("failed", "its objective is not a number"),
    ]


def test_a_hopeless_trial_is_pruned():
    rig = Rig(["a"])
    rig.stages[0].should_stop = lambda spec: True
    a = rig.start()
    assert rig.epoch(a, 3)
    assert rig.heard.events[-1][2:4] == ("pruned", "below the others after epoch 3")
    assert rig.epoch(a, 4)  # whatever comes late
    assert len(rig.heard.events) == 3


def test_the_reason_says_by_which_rule_a_trial_was_pruned():
    rig = Rig(["a"])
    rig.stages[0].should_stop, rig.stages[0].rule = lambda spec: True, lambda: "first rung: epoch 3"
    rig.epoch(rig.start(), 3)
    assert rig.heard.ends[-1][3] == "below the others after epoch 3; first rung: epoch 3"


def test_a_trial_that_has_finished_its_last_epoch_is_complete_whatever_its_score():
    rig = Rig(["a"])
    rig.stages[0].should_stop = lambda spec: True
    rig.stages[0].exceeded = lambda at: None if rig.now == 0 else "max-hours 1"
    a = rig.start()
    rig.now = 1.0
    assert not rig.epoch(a, 4, finished=True)
    rig.finish(a)
    assert rig.heard.ends == [("a", 1, "complete", "")]


def test_a_limit_ends_a_stage_and_not_the_next():
    rig = Rig(["a", "b", "c"], ["d"])
    a, b = rig.start(), rig.start()
    rig.stages[0].exceeded = lambda at: "max-hours 1"
    assert rig.epoch(a, 1)
    assert rig.start() is None  # c is not begun, b still runs
    assert rig.epoch(b, 1)
    reason = "the study reached max-hours 1"
    assert rig.heard.ends == [(name, 1, "preempted", reason) for name in ("a", "b")]
    assert rig.stages[0].limit == "max-hours 1"
    assert rig.start().trial_id == "d"
    assert rig.stages[1].limit is None


def test_an_interruption_ends_what_is_open():
    rig = Rig(["a", "b"])
    rig.start()
    rig.hand_out()  # its worker is not there yet
    rig.dispatcher.close(rig.at)
    assert rig.heard.ends == [("a", 1, "preempted", "the study was interrupted")]


def test_a_trial_that_not_all_have_heard_of_yet_is_ended_for_none():
    rig = Rig(["a"])
    second = Heard()
    rig.stages[0].callbacks = [rig.heard, second]
    second.on_start = raise_interrupt
    with pytest.raises(KeyboardInterrupt):
        rig.start()
    rig.dispatcher.close(rig.at)
    assert [event[2] for event in rig.heard.events] == ["started"]


def raise_interrupt(spec, at):
    raise KeyboardInterrupt


def test_a_place_that_cannot_be_written_stops_the_study_and_fails_no_trial():
    rig = Rig(["a"])
    a = rig.start()
    with pytest.raises(StorageError, match="/d: f: r"):
        rig.send(a, StorageFailed("/d", "f", "r"))
    assert rig.heard.events[-1][2] == "preempted"


# Links: trials that make what others start from.


def link(name, needs=(), **changes):
    return spec_of(name, needs, stage="link", key=name, **changes)


def chain():
    first = link("link-1")
    return first, link("link-2", [first])


def test_a_link_is_made_once_before_those_that_need_it_and_others_go_on():
    first = link("link-1")
    rig = Rig([spec_of("a", [first]), "b", spec_of("c", [first])])
    made, other = rig.start(), rig.start()
    assert (made.trial_id, other.trial_id) == ("link-1", "b")
    assert rig.start() is None  # a and c wait, and hold no worker
    rig.epoch(made, 1)
    rig.finish(made)
    assert [rig.start().trial_id, rig.start().trial_id] == ["a", "c"]
    assert [event[0] for event in rig.heard.events if event[2] == "started"] == [
        *("link-1", "b", "a", "c")
    ]


def test_the_links_of_a_chain_are_made_one_after_the_other():
    first, second = chain()
    rig = Rig([spec_of("a", [first, second])])
    for name in ("link-1", "link-2", "a"):
        spec = rig.start()
        assert spec.trial_id == name
        assert rig.start() is None
        rig.finish(spec)
    assert rig.start() is None
    assert rig.dispatcher.exhausted


def test_no_more_trials_are_asked_for_than_run_at_a_time():
    """Who asks a search for all of its trials before one has ended gets them drawn at random."""
    first = link("link-1")
    asked = []

    def trials():
        for name in "abcdef":
            asked.append(name)
            yield spec_of(name, [first])

    rig = Rig([], concurrent=2)
    rig.stages[0].trials = trials()
    made = rig.start()
    assert rig.start() is None
    assert asked == ["a", "b"]
    rig.finish(made)
    assert rig.start().trial_id == "a"


def test_of_trials_that_are_known_beforehand_any_number_waits():
    """The links of the next seed are made while that of the first is: no slot is idle."""
    first, second = link("link-1"), link("link-2")
    rig = Rig(
        [*(spec_of(name, [first]) for name in "abcd"), spec_of("e", [second]), "f"], concurrent=3
    )
    rig.stages[0].known = True
    assert [rig.start().trial_id for _ in range(3)] == ["link-1", "link-2", "f"]
    assert rig.start() is None


def test_a_stage_can_have_nothing_to_run_until_another_trial_has_ended():
    over = []

    def trials():
        yield spec_of("a")
        while not over:
            yield None
        yield spec_of("b")

    rig = Rig([], ["c"])
    rig.stages[0].trials = trials()
    a = rig.start()
    assert rig.start() is None
    over.append(a)
    rig.finish(a)
    assert [rig.start().trial_id, rig.start()] == ["b", None]


def test_a_link_that_fails_fails_those_that_need_it_with_one_reason():
    first, second = chain()
    rig = Rig([spec_of("a", [first, second]), spec_of("b", [first]), "c"])
    made = rig.start()
    rig.start()
    assert rig.start() is None
    rig.send(made, TrialFailed(reason="no text"))
    reason = "its link-1 failed: no text"
    assert rig.heard.ends == [
        ("link-1", 1, "failed", "no text"),
        ("a", 1, "failed", reason),
        ("b", 1, "failed", reason),
    ]
    assert rig.heard.events[-1][4] == 0.0  # and costs nothing


def test_a_link_is_neither_pruned_nor_forgotten_when_its_worker_is_lost():
    first = link("link-1")
    rig = Rig([spec_of("a", [first])])
    rig.stages[0].should_stop = lambda spec: True
    made = rig.start()
    assert not rig.epoch(made, 1)
    rig.lose(made)
    again = rig.start()
    assert (again.trial_id, again.attempt, again.known_epochs) == ("link-1", 2, 1)
    rig.finish(again)
    assert rig.start().trial_id == "a"


def test_a_link_that_a_limit_cut_off_goes_on_in_the_next_stage():
    first = link("link-1")
    rig = Rig([spec_of("a", [first])], [spec_of("b", [first])])
    made = rig.start()
    rig.stages[0].exceeded = lambda at: "max-hours 1"
    assert rig.epoch(made, 2)
    again = rig.start()
    assert (again.trial_id, again.attempt, again.known_epochs) == ("link-1", 2, 2)
    rig.finish(again)
    assert rig.start().trial_id == "b"


def test_what_is_known_of_links_from_before_holds():
    first, second = chain()
    made = Rig([spec_of("a", [first, second])], made=["link-1"])
    assert made.start().trial_id == "link-2"
    broken = Rig([spec_of("a", [first, second])], broken={"link-1": "no text"})
    assert broken.start() is None
    assert broken.heard.ends == [("a", 1, "failed", "its link-1 failed: no text")]


def test_a_spec_is_not_copied():
    spec = spec_of("a")
    assert replace(spec, attempt=2) != spec
    assert spec.__deepcopy__({}) is spec
