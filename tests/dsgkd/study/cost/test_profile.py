from pathlib import Path
from shutil import copytree

import pytest

from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.teachers.source import live_model
from dsgkd.distillation.teachers.teacher import StoredTeacher
from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.study.cost import profile
from dsgkd.study.cost.profile import time_methods, time_run
from dsgkd.training.loop import BEST, LAST, take_step, train
from dsgkd.training.opening import open_run


class Clock:
    """A clock that only moves when it is told to."""

    seconds = 0.0

    def perf_counter(self):
        return self.seconds


def test_a_step_is_the_mean_over_lengths_of_the_median_over_repeats(
    make_config, cache, monkeypatch
):
    clock, lengths, evaluated = Clock(), [], []
    run = open_run(make_config(), cache)

    def step(run, model, batch, states, optimizer, schedule, workers):
        lengths.append(batch.student.input_ids.shape[1])
        # One hiccup, and a slow start.
        clock.seconds += lengths[-1] + 1000 * (len(lengths) in (1, 2, 5))
        return take_step(run, model, batch, states, optimizer, schedule, workers)

    def predict(run, notes):
        evaluated.append(len(notes))
        clock.seconds += 10 * len(notes)

    monkeypatch.setattr(profile, "time", clock)
    monkeypatch.setattr(profile, "take_step", step)
    monkeypatch.setattr(profile, "predict", predict)
    monkeypatch.setattr(profile, "EVALUATED", 5)
    cost = time_run(run.config, cache)
    timed = lengths[profile.WARM_UP :]
    assert timed == sorted(timed)
    assert len(set(timed)) > 1
    assert cost.step_seconds == sum(timed) / len(timed)
    assert cost.steps == 6  # 41 notes in batches of 8
    # Every third of 17 notes was predicted.
    assert evaluated == [6, 6]
    assert cost.evaluation_seconds == pytest.approx(170)
    assert cost.epoch_seconds == 6 * cost.step_seconds + cost.evaluation_seconds
    shared = time_run(run.config, cache, workers=2)
    assert shared.evaluation_seconds == pytest.approx(85)


@pytest.mark.parametrize("teacher", ["", "teacher"])
def test_the_bytes_are_those_of_a_trials_checkpoints(make_config, cache, tmp_path, teacher):
    config = make_config(teacher=teacher, optimisation={"epochs": 1})
    cost = time_run(config, cache)
    list(train(open_run(config, cache), Checkpoints(tmp_path)))
    last, best = ((tmp_path / name).stat().st_size for name in (LAST, BEST))
    # The real one has random states and a configuration on top: some kilobytes.
    assert cost.model_bytes == best
    assert 0 <= last + best - cost.checkpoint_bytes < 40_000
    assert cost.checkpoint_bytes > 3 * cost.model_bytes  # Adam has two moments of every weight
    assert min(cost.opening_seconds, cost.step_seconds, cost.saving_seconds) > 0


def test_a_stored_teacher_is_timed_from_a_store_that_goes_again(
    make_config, cache, tmp_path, monkeypatch
):
    read = []
    word_states = StoredTeacher.word_states

    def noted(self, batch):
        read.append(batch)
        return word_states(self, batch)

    monkeypatch.setattr(StoredTeacher, "word_states", noted)
    own = copytree(cache, tmp_path / "cache")
    before = {file for file in own.rglob("*") if "teachers" in file.parts}
    live_model.cache_clear()
    cost = time_run(make_config(teacher="teacher", distillation={"teacher_store": "stored"}), own)
    assert len(read) == profile.WARM_UP + profile.LENGTHS * profile.REPEATS
    assert cost.storing_seconds > 0
    assert {file for file in own.rglob("*") if "teachers" in file.parts} == before
    assert not list(own.glob(".timing-*"))
    live = time_run(make_config(teacher="teacher", distillation={"teacher_store": "live"}), own)
    assert len(read) == profile.WARM_UP + profile.LENGTHS * profile.REPEATS
    assert live.storing_seconds == 0
    small = StoreConfig(budget_gb=1e-9)
    with pytest.raises(InputError, match="budget"):
        time_run(
            make_config(teacher="teacher", distillation={"teacher_store": "stored"}), own, small
        )


@pytest.mark.ray
def test_methods_are_timed_on_the_cluster_and_say_what_is_wrong(local_ray, make_config, cache):
    runs = {"plain": make_config(), "mlkd": make_config(teacher="teacher")}
    costs = time_methods(runs, cache, StoreConfig(), {"cpu": 1})
    assert list(costs) == ["plain", "mlkd"]
    plain, mlkd = costs.values()
    assert plain.steps == mlkd.steps == 6
    assert plain.model_bytes == mlkd.model_bytes
    assert mlkd.checkpoint_bytes > plain.checkpoint_bytes  # projections
    assert mlkd.storing_seconds > 0  # three epochs are worth a store
    assert plain.storing_seconds == 0
    assert min(plain.step_seconds, plain.evaluation_seconds, mlkd.step_seconds) > 0
    nobody = make_config(student=str(Path("no") / "student"))
    with pytest.raises(InputError, match="student"):
        time_methods({"plain": nobody}, cache, StoreConfig(), {"cpu": 1})
