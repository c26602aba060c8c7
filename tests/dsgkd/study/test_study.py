from dataclasses import replace

import pytest
from tiny_runs import KOREAN, MILD, URGENT

import analysis
from dsgkd.distillation.store.depot import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.student import load_student
from dsgkd.study.ledger import Ledger
from dsgkd.study.runner import run_trials
from dsgkd.study.study import Study
from dsgkd.study.teachers import plan, store_teacher

pytestmark = pytest.mark.ray


@pytest.fixture
def finished(local_ray, make_study):
    lines = []
    config = make_study(test="once")
    study = Study(config, lines.append)
    study.check()
    study.run()
    return config, lines, analysis.load(config.folder)


def test_a_study_searches_confirms_and_writes_everything_down(finished):
    config, lines, found = finished
    (study,) = found.studies.to_dict("records")
    assert study["name"] == config.name
    assert study["data_fingerprint"]
    trials = found.trials
    assert sorted(trials["trial_id"]) == [
        *(
            f"confirm-{method}-00{i}"
            for method in ("mlkd", "plain", "random-teacher")
            for i in (0, 1)
        ),
        *(f"search-{method}-000" for method in ("mlkd", "plain", "random-teacher")),
    ]
    assert set(trials["state"]) == {"complete"}
    assert set(trials["stage"]) == {"search", "confirm", "control"}
    assert (trials["epochs_done"] == 2).all()
    assert (trials["worker_seconds"] > 0).all()

    # Every teacher read the texts once; the controls' own went with their trials.
    use = trials.set_index("trial_id")["teacher_store"]
    assert use[use.index.str.contains("plain")].isna().all()
    assert set(use[use.index.str.contains("mlkd|search-random")]) == {"hit"}
    assert set(use[use.index.str.contains("confirm-random")]) == {"miss"}
    assert sum("texts read once" in line for line in lines) == 2
    assert len(list((config.cache / "teachers").iterdir())) == 2
    assert not list(config.folder.glob("trials/*/teacher"))

    # Every epoch is there, and only confirmation read the test split.
    metrics = found.metrics
    counts = metrics.groupby(["trial_id", "split"]).size().unstack(fill_value=0)
    assert (counts["train"] == 2).all()
    assert (counts["validation"] == 2).all()
    assert (counts["test"] == [1] * 6 + [0] * 3).all()
    tested = found.predictions.query("split == 'test'")
    assert set(tested["trial_id"]) == {name for name in trials["trial_id"] if "confirm" in name}
    assert len(tested) == 6 * 9

    # The methods of one seed share it, and no seed of the search is used again.
    seeds = trials.set_index("trial_id")["seed"]
    assert seeds["confirm-mlkd-000"] == seeds["confirm-plain-000"]
    confirmed = trials["stage"] != "search"
    assert not set(trials.loc[confirmed, "seed"]) & set(trials.loc[~confirmed, "seed"])

    report = analysis.report(found)
    assert "mlkd - random-teacher" in report
    assert any("confirm-mlkd-001" in line for line in lines)

    # The model that a confirmed trial left can be loaded.
    _, _, card = load_student(config.folder / "trials/confirm-mlkd-000/model", "dsgkd_plain")
    assert card.method == "mlkd"

    # Nothing in the study's folder holds a text, and only the cache may.
    for file in config.folder.rglob("*"):
        if file.is_file() and file.name not in ("tokenizer.json", "vocab.txt"):
            content = file.read_bytes()
            assert not any(word.encode() in content for word in [*KOREAN, *URGENT, *MILD]), file


def test_a_finished_study_stays_as_it_is_when_resumed_and_refuses_another_question(finished):
    config, _, before = finished
    with pytest.raises(InputError, match="--resume"):
        Study(config).check()
    again = replace(config, resume=True)
    resumed = Study(again, lambda line: None)
    resumed.check()
    resumed.run()
    after = analysis.load(config.folder)
    assert after.trials.equals(before.trials)
    other = replace(again, seed=99)
    changed = Study(other, lambda line: None)
    changed.check()
    with pytest.raises(InputError, match="seed"):
        changed.run()


def test_a_lost_part_of_a_study_is_done_again_and_nothing_else(finished, tmp_path):
    config, _, before = finished
    # As if the driver had died in the middle of this trial's second epoch.
    row = before.trials.query("trial_id == 'confirm-plain-001'").to_dict("records")[0]
    ledger = Ledger(str(config.folder / "ledger"))
    raw = next(
        trial for trial in ledger.read("trials").to_pylist() if trial["trial_id"] == row["trial_id"]
    )
    ledger.write("trials", [raw | {"state": "running"}], "confirm-plain-001-1")
    resumed = Study(replace(config, resume=True), lambda line: None)
    resumed.check()
    resumed.run()
    trials = analysis.load(config.folder).trials
    attempts = trials.query("attempt == 2")
    assert list(attempts["trial_id"]) == ["confirm-plain-001"]
    assert list(attempts["state"]) == ["complete"]
    assert list(attempts["best_epoch"]) == [row["best_epoch"]]
    assert list(attempts["objective"]) == [row["objective"]]


def test_a_full_disk_ends_the_study_in_one_line_with_a_readable_ledger(
    local_ray, make_study, monkeypatch
):
    config = make_study("full")
    study = Study(config, lambda line: None)
    study.check()
    write, calls = Ledger.write, []

    def write_until_full(self, table, rows, name):
        calls.append(name)
        if len(calls) > 6:
            raise InputError(str(config.folder), "no space left", "free some")
        write(self, table, rows, name)

    monkeypatch.setattr(Ledger, "write", write_until_full)
    with pytest.raises(InputError, match="no space left"):
        study.run()
    monkeypatch.undo()
    assert len(analysis.load(config.folder).trials) >= 1
    resumed = Study(replace(config, resume=True), lambda line: None)
    resumed.check()
    resumed.run()
    assert set(analysis.load(config.folder).trials.query("stage != 'search'")["state"]) == {
        "complete"
    }


def test_a_trial_of_two_workers_under_ray_train_reports_like_any_other(
    local_ray, make_study, make_config
):
    config = make_study("two", workers_per_trial=2)
    spec = Study(config, str)._spec(
        "confirm", "mlkd", "confirm-mlkd-000", make_config(teacher="teacher"), ("test",)
    )
    events = []

    class Listener:
        def started(self, spec):
            events.append("started")

        def reported(self, spec, report):
            events.append(report["epoch"])

        def ended(self, spec, report, state, reason):
            events.append((state, report["tested"]["test"]["auroc"], reason))

    specs = iter([replace(spec, study_id="two")])
    run_trials(lambda: next(specs, None), [Listener()], 2, {"cpu": 1}, 1, config.folder / "tune")
    assert events[:4] == ["started", 1, 2, 3]
    state, auroc, reason = events[-1]
    assert (state, reason) == ("complete", "")
    assert 0 <= auroc <= 1
    assert Ledger(spec.ledger).read("predictions").num_rows == 9


def test_a_teacher_is_stored_by_tasks_and_asked_for_no_more_than_is_missing(
    local_ray, make_study, zoo
):
    config = make_study()
    teacher = str(zoo / "teacher")
    space = replace(config.space, beta=(0.0, 1.0))
    wanted = plan(
        config.run,
        space,
        teacher,
        "pretrained",
        {config.run.student.model: 2, teacher: 3},
        config.cache,
        config.store,
    )
    assert [str(part) for part in wanted.parts] == ["hidden.2", "hidden.3", "words.2", "words.3"]
    lines = []
    store_teacher(wanted, {"cpu": 1}, 2, lines.append)
    store_teacher(wanted, {"cpu": 1}, 2, lines.append)
    assert "41 texts read once" not in lines[0]  # some have no word
    assert "texts read once" in lines[0]
    assert lines[1].endswith("stored before")
    shards = sorted(config.cache.glob("teachers/*/*.safetensors"))
    assert len(shards) == 4  # two for each worker
    shards[0].unlink()
    store_teacher(wanted, {"cpu": 1}, 2, lines.append)
    assert "texts read once" in lines[2]
    assert len(sorted(config.cache.glob("teachers/*/*.safetensors"))) >= 4


def test_a_store_beyond_its_budget_ends_the_study_before_the_first_trial(local_ray, make_study):
    config = make_study(store=StoreConfig(budget_gb=1e-6))
    stored = replace(config.run.distillation, teacher_store="stored")
    study = Study(replace(config, run=replace(config.run, distillation=stored)), lambda _: None)
    with pytest.raises(InputError, match=r"needs .*, budget 1 kB: keep fewer layers"):
        study.run()
    assert not config.folder.exists()
    lines = []
    Study(make_study("live", store=config.store), lines.append).run()
    assert any(line.startswith("live teacher: storing it would take") for line in lines)


def test_a_trial_that_fails_says_why_and_the_study_goes_on(local_ray, make_study, make_config):
    # A learning rate at which the weights explode.
    wild = make_config(optimisation={"epochs": 2, "clip_norm": 1e30, "projection_lr": 1e30})
    config = make_study("wild", run=wild, confirm_seeds=1)
    study = Study(config, lambda line: None)
    study.check()
    study.run()
    trials = analysis.load(config.folder).trials.set_index("trial_id")
    assert trials.loc["search-mlkd-000", "state"] == "failed"
    assert "not finite" in trials.loc["search-mlkd-000", "reason"]
    assert trials.loc["confirm-plain-000", "state"] == "complete"
    assert "confirm-mlkd-000" not in trials.index
