from datetime import timedelta

import pytest
from trial_events import Heard, make_spec, one_stage

from dsgkd.ledger import Ledger
from dsgkd.study.backends.simulated import START, SimulatedBackend
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.cost.budget import BudgetCallback, BudgetConfig
from dsgkd.study.cost.curves import Curve
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.history import read_history
from dsgkd.study.search.arms import arms
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.search.search import Search
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import RunConfig

HOUR = 3600.0


def play(callbacks, trials=3, epochs=4, slots=1, stage=None, **settings):
    """Play trials whose epochs take an hour each; return the backend."""
    specs = [make_spec(number, workers=2, gpus_per_worker=0.5) for number in range(trials)]
    curve = Curve("", "mlkd", (0.5,) * epochs, (HOUR,) * epochs, whole=True, workers=2)
    backend = SimulatedBackend(lambda spec: curve, slots, **settings)
    stage = stage or Stage("search")
    stage.trials, stage.callbacks = iter(specs), callbacks
    backend.run(Dispatcher(one_stage(stage), slots))
    return backend


def test_a_simulated_study_writes_a_ledger_with_simulated_times(tmp_path):
    ledger = Ledger(tmp_path)
    play([LedgerCallback(ledger)])
    first, second, _ = read_history(ledger, "auroc").values()
    assert first.row["started_at"] == START
    assert second.row["started_at"] == START + timedelta(hours=4)
    assert first.row["worker_seconds"] == 8 * HOUR
    assert first.row["gpu_seconds"] == 4 * HOUR
    assert first.scores == dict.fromkeys((1, 2, 3, 4), 0.5)


def test_the_loss_of_a_slot_is_a_pre_empted_attempt_that_goes_on(tmp_path):
    ledger, heard = Ledger(tmp_path), Heard()
    backend = play([LedgerCallback(ledger), heard], preemptions_per_hour=0.5, startup_seconds=60)
    past = read_history(ledger, "auroc").values()
    assert {trial.state for trial in past} == {"complete"}
    assert {trial.epochs for trial in past} == {4}
    attempts = sum(trial.attempts for trial in past)
    assert attempts > 3
    assert sum(end[2:] == ("preempted", "its node was lost") for end in heard.ends) == attempts - 3
    charged = sum(trial.seconds for trial in past)
    assert charged == pytest.approx(3 * 8 * HOUR + backend.lost_worker_seconds, abs=1e-3)


def test_a_budget_ends_a_simulated_study_when_it_is_spent():
    budget, heard = BudgetCallback(BudgetConfig(max_hours=5.5)), Heard()
    play([budget, heard], stage=Stage("search", exceeded=budget.exceeded))
    assert [end[2] for end in heard.ends] == ["complete", "preempted"]
    assert heard.ends[1][3].startswith("the study reached max-hours 5.5 (6 h spent")


def test_a_whole_search_runs_on_a_simulated_clock(tmp_path):
    """The search, its early stopper, the budget and the ledger are those of any study."""
    names, arms_of = ("mlkd", "plain"), {arm.method: arm for arm in arms(())}
    space, ledger = SearchSpace(), Ledger(tmp_path / "ledger")

    def suggest(trial, method):
        depths = {"tiny-ko": 2, "teacher": 2}
        return space.suggest(trial, arms_of[method], RunConfig(), {"teacher": "teacher"}, depths)

    def curve_of(spec):
        score = 1 - abs(spec.run.optimisation.encoder_lr - 3e-4) * 100
        return Curve("", spec.method, (score,) * 8, (HOUR,) * 8, whole=True)

    search = Search(
        tmp_path / "journal",
        "simulated",
        SearchConfig(trials=20),
        RunConfig(),
        dict.fromkeys(names, 10),
        suggest,
    )
    pruning = PruningCallback(PruningConfig("asha", grace_epochs=1), 8)

    def asked():
        while (one := search.ask()) is not None:
            yield make_spec(trial_id=one.trial_id, method=one.method, run=one.run)

    stage = Stage(
        "search",
        asked(),
        callbacks=[LedgerCallback(ledger), search, pruning],
        should_stop=pruning.should_stop,
    )
    SimulatedBackend(curve_of, 4, preemptions_per_hour=0.05).run(Dispatcher(one_stage(stage), 4))
    past = read_history(ledger, "auroc")
    assert len(past) == 20
    assert {trial.state for trial in past.values()} == {"complete", "pruned"}
    (best,) = search.best("mlkd")
    scores = {name: max(trial.scores.values()) for name, trial in past.items()}
    complete = [name for name in scores if past[name].state == "complete" and "mlkd" in name]
    assert best.trial_id == max(complete, key=scores.__getitem__)


def test_a_dispatcher_that_waits_for_nobody_is_an_error_and_no_hang():
    class Waiting:
        exhausted = False

        def next_trial(self, at):
            return None

        def close(self, at):
            pass

    with pytest.raises(RuntimeError, match="nobody runs"):
        SimulatedBackend(None, 1).run(Waiting())


def test_links_of_confirmation_are_no_barrier():
    """Four seeds of three arms, one of which has no link."""
    specs = []
    for seed in range(4):
        links = {
            arm: make_spec(stage="link", trial_id=f"link-{arm}-{seed}", method=arm, key="k")
            for arm in ("mlkd", "random-teacher")
        }
        for arm in ("plain", "mlkd", "random-teacher"):
            needs = (links[arm],) if arm in links else ()
            name = f"confirm-{arm}-000-{seed:03d}"
            specs.append(make_spec(stage="confirm", trial_id=name, method=arm, needs=needs))
    begun = []

    def curve_of(spec):
        begun.append(spec.trial_id)
        return Curve("", spec.method, (0.5,) * 2, (HOUR,) * 2, whole=True)

    stage = Stage("confirm", iter(specs), total=len(specs), known=True)
    backend = SimulatedBackend(curve_of, 4)
    backend.run(Dispatcher(one_stage(stage), 4))
    assert sorted(begun) == sorted({*begun})  # nothing is made twice
    assert len(begun) == 12 + 8
    # Every slot works until the last links are made; then two runs are left.
    assert backend.seconds == (-(-(12 + 8 - 2) // 4) + 1) * 2 * HOUR
    # The first seed's runs go on before the last one's link is made.
    assert begun.index("confirm-mlkd-000-000") < begun.index("link-random-teacher-3")
