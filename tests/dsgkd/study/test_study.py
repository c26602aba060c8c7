import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import rig
from tiny_runs import KOREAN, MILD, URGENT
from trial_events import Heard, one_stage

import analysis
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.models.export import load_student
from dsgkd.models.fingerprint import fingerprint
from dsgkd.study.backends.ray_train import RayTrainBackend
from dsgkd.study.config import ClusterConfig, ConfirmationConfig
from dsgkd.study.console import Console
from dsgkd.study.cost.budget import BudgetConfig
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.preparation.teachers import plan, store_teacher
from dsgkd.study.search.config import PruningConfig
from dsgkd.study.spec import PlannedTrial
from dsgkd.study.stages import spec_of
from dsgkd.study.study import Study
from dsgkd.training.opening import open_table

pytestmark = [pytest.mark.ray, pytest.mark.slow]

QUIET = Console(lambda line: None)


@pytest.fixture(scope="module")
def finished_once(local_ray, study_in, tmp_path_factory):
    """A study that ran to its end, the test split read."""
    lines = []
    out = tmp_path_factory.mktemp("finished") / "studies"
    config = study_in(out, test="once", pruning=PruningConfig("none"))
    study = Study(config, Console(lines.append))
    study.check()
    study.run()
    return config, lines


@pytest.fixture
def finished(finished_once, tmp_path):
    """A copy of it, to be changed."""
    config, lines = finished_once
    shutil.copytree(config.out, tmp_path / "studies")
    config = replace(config, out=tmp_path / "studies")
    return config, lines, analysis.load(config.location.folder)


def test_a_study_searches_confirms_tests_and_writes_everything_down(finished):
    config, lines, found = finished
    folder = config.location.folder
    (study,) = found.studies.to_dict("records")
    assert study["name"] == config.name
    assert study["data_fingerprint"]
    assert len(study["lock_hash"]) == 64
    assert json.loads(study["environment"])["ray"] == ray.__version__
    assert json.loads(study["arms"]) == {
        "mlkd": {"role": "method"},
        "plain": {"role": "baseline"},
        "random-teacher": {"role": "control"},
    }
    assert json.loads(study["patients"]) == {"train": None, "validation": None}
    trials = found.trials
    methods = ("mlkd", "plain", "random-teacher")
    assert sorted(trials["trial_id"]) == [
        *(f"confirm-{method}-000-00{i}" for method in methods for i in (0, 1)),
        *(f"search-{method}-000" for method in methods),
        *(f"test-{method}-000-00{i}" for method in methods for i in (0, 1)),
    ]
    assert set(trials["state"]) == {"complete"}
    assert set(trials["stage"]) == {"search", "confirm", "control", "test"}
    trained = trials[trials["stage"] != "test"]
    assert (trained["epochs_done"] == 2).all()
    assert (trained["worker_seconds"] > 0).all()

    # Every teacher read the texts once; the controls' own went with their trials.
    use = trained.set_index("trial_id")["teacher_store"]
    assert use[use.index.str.contains("plain")].isna().all()
    assert set(use[use.index.str.contains("mlkd|search-random")]) == {"hit"}
    assert set(use[use.index.str.contains("confirm-random")]) == {"miss"}
    assert sum("texts read once" in line for line in lines) == 2
    assert len(list((config.cache / "teachers").iterdir())) == 2
    assert not list(config.location.folder.glob("trials/*/teacher"))

    # Every epoch is there, and only the test stage read the test split, once.
    metrics = found.metrics
    counts = metrics.groupby(["trial_id", "split"]).size().unstack(fill_value=0)
    is_test = counts.index.str.startswith("test-")
    assert (counts[["train", "validation"]][~is_test] == 2).all(axis=None)
    assert (counts["test"] == is_test).all()
    tested = found.predictions.query("split == 'test'")
    assert set(tested["trial_id"]) == {name for name in trials["trial_id"] if "test-" in name}
    assert len(tested) == 6 * 9
    assert "test" not in json.loads(study["row_counts"])

    # The methods of one seed share it, and no seed of the search is used again.
    seeds = trials.set_index("trial_id")["seed"]
    assert seeds["confirm-mlkd-000-000"] == seeds["confirm-plain-000-000"]
    confirmed = trials["stage"].isin(["confirm", "control"])
    searched = trials["stage"] == "search"
    assert not set(trials.loc[confirmed, "seed"]) & set(trials.loc[searched, "seed"])

    # Every run names the one from which it follows.
    parents = trials.set_index("trial_id")["parent"]
    assert parents["confirm-mlkd-000-001"] == "search-mlkd-000"
    assert parents["test-mlkd-000-001"] == "confirm-mlkd-000-001"
    (reading,) = Ledger(str(folder / "ledger")).rows("test_reads")
    assert (reading["read"], reading["models"]) == (1, 6)
    assert reading["closed_at"] > reading["opened_at"]

    # The ledger can be given away: it says neither where anything lies nor on which machine.
    secrets = [str(config.out), str(Path(config.run.data.path).parent), platform.node()]
    for file in (folder / "ledger").rglob("*.parquet"):
        assert not any(secret.encode() in file.read_bytes() for secret in secrets), file

    report = analysis.report(found)
    assert "mlkd - random-teacher" in report
    assert any("confirm-mlkd-000-001" in line for line in lines)

    # The model that a confirmed trial left can be loaded.
    _, _, card = load_student(
        config.location.folder / "trials/confirm-mlkd-000-000/model", "dsgkd_plain"
    )
    assert card.method == "mlkd"

    # Nothing in the study's folder holds a text, and only the cache may.
    for file in config.location.folder.rglob("*"):
        if file.is_file() and file.name not in ("tokenizer.json", "vocab.txt"):
            content = file.read_bytes()
            assert not any(word.encode() in content for word in [*KOREAN, *URGENT, *MILD]), file


def test_a_finished_study_stays_as_it_is_when_resumed_and_refuses_another_question(finished):
    config, _, before = finished
    with pytest.raises(InputError, match="--resume"):
        Study(config).check()
    again = replace(config, resume=True)
    resumed = Study(again, QUIET)
    resumed.check()
    resumed.run()
    after = analysis.load(config.location.folder)
    assert after.trials.equals(before.trials)
    other = replace(again, seed=99)
    changed = Study(other, QUIET)
    changed.check()
    with pytest.raises(InputError, match="seed"):
        changed.run()


def test_a_study_that_was_copied_goes_on_elsewhere_only_with_its_cache(finished, tmp_path):
    config, _, before = finished
    copy = replace(config, out=tmp_path / "elsewhere", name="renamed", resume=True)
    shutil.copytree(config.location.folder, copy.location.folder)
    with pytest.raises(InputError, match=r"example-id\.key: not there, .*: copy cache/"):
        Study(copy).check()
    assert not copy.cache.exists()
    shutil.copytree(config.cache, copy.cache)
    moved = Study(copy, QUIET)
    moved.check()
    moved.run()
    assert analysis.load(copy.location.folder).trials.equals(before.trials)


def test_a_lost_part_of_a_study_is_done_again_and_nothing_else(finished, tmp_path):
    config, _, _ = finished
    # As if the driver had died in the middle of this trial's second epoch.
    lost = "confirm-plain-000-001"
    ledger = Ledger(str(config.location.folder / "ledger"))
    raw = next(row for row in ledger.rows("trials") if row["trial_id"] == lost)
    ledger.write("trials", [raw | {"state": "running"}], f"{lost}-1")
    resumed = Study(replace(config, resume=True), QUIET)
    resumed.check()
    resumed.run()
    trials = analysis.load(config.location.folder).trials
    attempts = trials.query(f"trial_id == '{lost}'").set_index("attempt")
    assert list(attempts["state"]) == ["preempted", "complete"]
    assert list(trials.query("attempt == 2")["trial_id"]) == [lost]
    assert attempts.loc[2, "best_epoch"] == raw["best_epoch"]
    assert attempts.loc[2, "objective"] == raw["objective"]


def test_a_finished_study_can_be_extended(finished):
    config, _, before = finished
    more = replace(
        config,
        resume=True,
        search=replace(config.search, trials=6),
        confirmation=replace(config.confirmation, top=2),
    )
    extended = Study(more, QUIET)
    extended.check()
    extended.run()
    found = analysis.load(config.location.folder)
    first = found.trials.merge(before.trials[["trial_id", "attempt"]])
    assert len(first) == len(before.trials)  # nothing was done again
    assert (found.trials["attempt"] == 1).all()
    assert len(found.trials.query("stage == 'search'")) == 6
    assert len(found.trials.query("stage == 'confirm' or stage == 'control'")) == 12
    # What was confirmed since has read the test split in a second, recorded reading.
    assert len(found.trials.query("trial_id.str.startswith('test-')")) == 12
    reads = Ledger(str(config.location.folder / "ledger")).rows("test_reads")
    assert [row["reason"] for row in reads] == ["6 models read the test split"] * 2
    budget = json.loads(found.studies["budget"].iloc[0])
    assert budget["trials"] == 6
    assert budget["earlier"][0]["trials"] == 3


def test_a_full_disk_ends_the_study_in_one_line_with_a_readable_ledger(
    local_ray, make_study, monkeypatch
):
    config = make_study("full")
    study = Study(config, QUIET)
    study.check()
    write, calls = Ledger.write, []

    def write_until_full(self, table, rows, name):
        calls.append(name)
        if len(calls) > 6:
            raise InputError(str(config.location.folder), "no space left", "free some")
        write(self, table, rows, name)

    monkeypatch.setattr(Ledger, "write", write_until_full)
    with pytest.raises(InputError, match="no space left"):
        study.run()
    monkeypatch.undo()
    assert len(analysis.load(config.location.folder).trials) >= 1
    resumed = Study(replace(config, resume=True), QUIET)
    resumed.check()
    resumed.run()
    assert set(
        analysis.load(config.location.folder).trials.query("stage != 'search'")["state"]
    ) == {"complete"}


def test_a_trial_of_two_workers_under_ray_train_reports_like_any_other(
    local_ray, make_study, make_config
):
    config = make_study("two", cluster=ClusterConfig(workers_per_trial=2))
    planned = PlannedTrial(
        "confirm", "mlkd", "confirm-mlkd-000-000", make_config(teacher="teacher"), "search-mlkd-000"
    )
    spec = replace(spec_of(config, StudyManifest(config), planned), study_id="two")
    ends = []

    class Noted(Heard):
        def on_end(self, spec, end):
            super().on_end(spec, end)
            ends.append(end)

    heard = Noted()
    stage = Stage("confirm", iter([spec]), callbacks=[heard])
    backend = RayTrainBackend({"cpu": 1}, 1, config.scratch / "tune")
    backend.run(Dispatcher(one_stage(stage)))
    assert [event[2] for event in heard.events] == ["started", 1, 2, 3, "complete"]
    (end,) = ends
    assert 0 <= end.final.measured["validation"]["auroc"] <= 1
    assert Ledger(spec.ledger).read("predictions").num_rows == 17


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
    assert [str(part) for part in wanted.kinds] == ["hidden.2", "hidden.3", "words.2", "words.3"]

    def stored():
        lines = []
        store_teacher(wanted, {"cpu": 1}, 2, Console(lines.append))
        return lines[-1]  # a slow machine says how far it is

    first = stored()
    assert "texts read once" in first
    assert "41 texts" not in first  # some have no word
    assert stored().endswith("stored before")
    shards = sorted(config.cache.glob("teachers/*/*.safetensors"))
    assert len(shards) == 4  # two for each worker
    shards[0].unlink()
    assert "texts read once" in stored()
    assert len(sorted(config.cache.glob("teachers/*/*.safetensors"))) >= 4


def test_a_store_beyond_its_budget_ends_the_study_before_the_first_trial(local_ray, make_study):
    config = make_study(store=StoreConfig(budget_gb=1e-6))
    stored = replace(config.run.distillation, teacher_store="stored")
    study = Study(replace(config, run=replace(config.run, distillation=stored)), QUIET)
    with pytest.raises(InputError, match=r"needs .*, budget 1 kB: keep fewer layers"):
        study.run()
    assert not config.location.folder.exists()
    lines = []
    Study(make_study("live", store=config.store), Console(lines.append)).run()
    assert any(line.startswith("live teacher: storing it would take") for line in lines)


def test_a_trial_that_fails_says_why_and_the_study_goes_on(local_ray, make_study, make_config):
    # A learning rate at which the weights explode.
    wild = make_config(optimisation={"epochs": 2, "clip_norm": 1e30, "projection_lr": 1e30})
    config = make_study("wild", run=wild, confirmation=ConfirmationConfig(seeds=1))
    study = Study(config, QUIET)
    study.check()
    study.run()
    trials = analysis.load(config.location.folder).trials.set_index("trial_id")
    assert trials.loc["search-mlkd-000", "state"] == "failed"
    assert "not finite" in trials.loc["search-mlkd-000", "reason"]
    assert trials.loc["confirm-plain-000-000", "state"] == "complete"
    assert "confirm-mlkd-000-000" not in trials.index


def test_the_same_study_twice_gives_the_same_trials_and_figures(local_ray, tmp_path):
    """One seed decides everything, where trials come one after the other."""
    for name in ("one", "other"):
        config = rig.study_config(tmp_path, name)
        Study(config, QUIET).run()
    assert rig.outcome(tmp_path, "one") == rig.outcome(tmp_path, "other")


def test_the_test_split_is_not_read_before_the_seal_is_broken(local_ray, tmp_path):
    """Its rows may hold anything: nobody looks."""
    config = rig.study_config(tmp_path, "sealed")
    notes = Path(config.run.data.path)
    whole = notes.read_text(encoding="utf-8")
    notes.write_text(
        "\n".join(
            ",".join(["x", "", "no label of ours", "test"]) if line.endswith(",test") else line
            for line in whole.splitlines()
        ),
        encoding="utf-8",
    )
    sealed = Study(replace(config, test=""), QUIET)
    sealed.check()
    sealed.run()
    broken = Study(replace(config, resume=True), QUIET)
    broken.check()
    with pytest.raises(InputError):
        broken.run()
    assert not Ledger(str(config.location.folder / "ledger")).rows("test_reads")
    notes.write_text(whole, encoding="utf-8")
    broken = Study(replace(config, resume=True), QUIET)
    assert broken.run().tested
    assert (
        list(analysis.load(config.location.folder).trials.query("stage == 'test'")["state"])
        == ["complete"] * 3
    )


def test_controls_and_limits(local_ray, make_study, zoo):
    """Every kind of control, tuned by borrowing; and a limit that is reached and raised."""
    config = make_study(
        "controls",
        pruning=PruningConfig("none"),
        confirmation=ConfirmationConfig(
            seeds=1,
            controls=("random", "shuffled", f"wrong-domain={zoo / 'roberta'}"),
            tune_controls=False,
        ),
        budget=BudgetConfig(max_hours=1e-6),
    )
    lines = []
    study = Study(config, Console(lines.append))
    outcome = study.run()
    assert "max-hours" in outcome.limit
    assert any("go on with --resume" in line for line in lines)
    trials = analysis.load(config.location.folder).trials
    assert not set(trials["state"]) - {"preempted", "complete"}
    more = Study(replace(config, resume=True, budget=BudgetConfig()), Console(lines.append))
    assert more.run().limit is None
    trials = analysis.load(config.location.folder).trials.query("state == 'complete'")
    confirmed = trials[trials["stage"].isin(["confirm", "control"])].set_index("method")
    assert set(confirmed.index) == {
        "mlkd",
        "plain",
        "random-teacher",
        "shuffled-words",
        "wrong-domain",
    }
    drawn = json.loads(confirmed.loc["mlkd", "configuration"])
    for method, change in {
        "random-teacher": {"teacher_weights": "random"},
        "shuffled-words": {"shuffled": True},
        "wrong-domain": {"teacher": "roberta"},
    }.items():
        given = json.loads(confirmed.loc[method, "configuration"])
        assert given == drawn | {"distillation": drawn["distillation"] | change}


def test_a_study_says_beforehand_what_it_will_cost_and_plans(local_ray, make_study):
    lines = []
    config = make_study("planned", estimate=True)
    Study(config, Console(lines.append)).plan()
    assert not config.location.folder.exists()
    assert any("at most" in line for line in lines)
    Study(config, QUIET).run()
    lines.clear()
    Study(replace(config, resume=True), Console(lines.append)).plan()
    assert any("hyperband" in line for line in lines)


def test_other_weights_or_another_key_are_not_gone_on_with(local_ray, tmp_path):
    config = rig.study_config(tmp_path, "moved")
    Study(config, QUIET).run()
    resumed = replace(config, resume=True)
    weights = next((tmp_path / "zoo" / "teacher").glob("*.safetensors"))
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    fingerprint.cache_clear()
    with pytest.raises(InputError, match="other weights than the study began with"):
        Study(resumed).run()
    weights.write_bytes(before)
    fingerprint.cache_clear()
    (key,) = [path for path in config.cache.iterdir() if path.name.endswith(".key")]
    key.write_bytes(bytes(32))
    open_table.cache_clear()
    with pytest.raises(InputError, match="another study's"):
        Study(resumed).run()
