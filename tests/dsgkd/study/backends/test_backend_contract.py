"""What every backend does with what the dispatcher hands out."""

import pytest
from trial_events import Heard, make_spec, one_stage

from dsgkd.errors import StorageError
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.cost.curves import Curve
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.search.config import PruningConfig
from dsgkd.study.search.pruning import PruningCallback

HALVING = PruningConfig(scheduler="asha", grace_epochs=1, reduction_factor=2)


def curve(name, *scores, failed=False):
    return Curve(name, "mlkd", scores, (1.0,) * len(scores), whole=True, failed=failed)


def curves_of(*curves):
    return {one.trial_id: one for one in curves}


def spec_of(name, stage="search", needs=()):
    return make_spec(trial_id=name, stage=stage, needs=tuple(needs))


def stage_of(heard, *specs, **changes):
    specs = [spec_of(one) if isinstance(one, str) else one for one in specs]
    return Stage("search", iter(specs), callbacks=changes.pop("callbacks", [heard]), **changes)


def test_trials_are_started_reported_and_ended_in_order(new_backend):
    heard, curves = Heard(), curves_of(curve("a", 0.1, 0.2), curve("b", 0.3, failed=True))
    dispatcher = Dispatcher(one_stage(stage_of(heard, "a"), stage_of(heard, "b")))
    new_backend(curves, 1).run(dispatcher)
    assert dispatcher.exhausted
    assert [event[:3] for event in heard.events] == [
        *(("a", 1, "started"), ("a", 1, 1), ("a", 1, 2), ("a", 1, "complete")),
        *(("b", 1, "started"), ("b", 1, 1), ("b", 1, "failed")),
    ]
    assert all(event[4] >= 0 for event in heard.events if len(event) == 5)


def test_the_early_stopper_frees_the_slot(new_backend):
    heard, pruning = Heard(), PruningCallback(HALVING, 4)
    curves = curves_of(curve("a", *[0.8] * 4), curve("b", *[0.5] * 4), curve("c", *[0.9] * 4))
    stage = stage_of(heard, *curves, callbacks=[heard, pruning], should_stop=pruning.should_stop)
    new_backend(curves, 1).run(Dispatcher(one_stage(stage)))
    assert [(name, state) for name, _, state, _ in heard.ends] == [
        *(("a", "complete"), ("b", "pruned"), ("c", "complete")),
    ]


def test_a_link_comes_before_those_that_need_it(new_backend):
    heard, link = Heard(), spec_of("link", "link")
    needy = [spec_of(name, needs=[link]) for name in ("a", "b")]
    curves = curves_of(curve("link", 0.5), curve("a", 0.1), curve("b", 0.2))
    new_backend(curves, 2).run(Dispatcher(one_stage(stage_of(heard, *needy)), 2))
    started = [event[0] for event in heard.events if event[2] == "started"]
    assert started[0] == "link"
    assert sorted(started[1:]) == ["a", "b"]
    assert len(heard.ends) == 3


def test_a_limit_ends_what_runs_and_what_follows(new_backend):
    heard = Heard()
    curves = curves_of(curve("a", 0.1, 0.1, 0.1), curve("b", 0.1), curve("c", 0.1))
    reported = []
    first = stage_of(heard, "a", "b", exceeded=lambda at: "max-hours 1" if reported else None)

    class Noted(Heard):
        def on_epoch(self, spec, epoch, charge):
            reported.append(spec)

    first.callbacks = [heard, Noted()]
    new_backend(curves, 1).run(Dispatcher(one_stage(first, stage_of(heard, "c"))))
    assert [end[:3] for end in heard.ends] == [("a", 1, "preempted"), ("c", 1, "complete")]
    assert first.limit == "max-hours 1"


def test_a_callback_that_cannot_write_stops_the_study_with_its_own_error(new_backend, tmp_path):
    class Full:
        root = "x"

        def write(self, *arguments):
            raise StorageError("ledger", "no space left", "free some")

    heard, closed = Heard(), []

    def stages():
        try:
            yield stage_of(heard, "a", callbacks=[LedgerCallback(Full()), heard])
        finally:
            closed.append(True)

    with pytest.raises(StorageError, match="no space left"):
        new_backend(curves_of(curve("a", 0.1)), 1).run(Dispatcher(stages()))
    assert heard.events == []  # nobody is told what the ledger does not know
    assert closed == [True]
