"""Studies whose trials are chains of runs, or have several teachers."""

from dataclasses import replace

import pytest

import analysis
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.storage.artefacts import Artefacts
from dsgkd.study.config import ConfirmationConfig
from dsgkd.study.console import Console
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.messages import TrialFailed
from dsgkd.study.names import PublicNames, restored
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.spec import LINK, PlannedTrial
from dsgkd.study.stages import spec_of
from dsgkd.study.status.status import read_status
from dsgkd.study.study import Study
from dsgkd.study.trial import trial_steps
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.training.config import AdaptationConfig, LinkConfig, OptimisationConfig

QUIET = Console(lambda line: None)


@pytest.fixture
def make_recipe(make_study, make_config):
    """Return a function that makes a study with one link, made alike for all arms."""

    def make(name="recipe", epochs=2, **changes):
        adapt = LinkConfig(
            name="adapt",
            task=MaskedLanguageModel(),
            optimisation=OptimisationConfig(epochs=epochs, batch_size=8, precision="fp32"),
        )
        run = replace(make_config(optimisation={"epochs": 1}), links=(adapt,))
        settings = {
            "search": SearchConfig(trials=2),
            "pruning": PruningConfig(scheduler="none"),
            "confirmation": ConfirmationConfig(seeds=1, controls=()),
        }
        return make_study(name, run=run, **settings | changes)

    return make


def planned(config, method="mlkd", number=0):
    run = config.arms[method].applied(config.run)
    return PlannedTrial("search", method, f"search-{method}-{number:03d}", run)


def test_arms_without_a_teacher_in_a_link_share_it(make_recipe):
    config = make_recipe()
    manifest = StudyManifest(config)
    mlkd, plain = (spec_of(config, manifest, planned(config, m)) for m in ("mlkd", "plain"))
    (link,) = mlkd.needs
    assert plain.needs[0].trial_id == link.trial_id == f"link-{link.key[:8]}"
    assert (link.stage, link.run.links, link.keep_model) == (LINK, (), False)
    other = spec_of(make_recipe(epochs=3), manifest, planned(make_recipe(epochs=3)))
    assert other.needs[0].trial_id != link.trial_id


@pytest.mark.ray
@pytest.mark.slow
def test_a_link_is_made_once_charged_once_and_seen(local_ray, make_recipe):
    config = make_recipe(test="once")
    study = Study(config, QUIET)
    study.check()
    assert study.run().tested
    ledger = Ledger(config.location.child("ledger"))
    trials = {row["trial_id"]: row for row in ledger.rows("trials")}
    links = [row for row in trials.values() if row["stage"] == LINK]
    links.sort(key=lambda row: row["started_at"])
    # One for the search and, as seeds of confirmation are fresh ones, one for its seed.
    assert [row["state"] for row in links] == ["complete", "complete"]
    assert all(row["epochs_done"] == 2 and row["worker_seconds"] > 0 for row in links)
    assert links[0]["ended_at"] <= trials["search-mlkd-000"]["started_at"]
    searched = [row for name, row in trials.items() if name.startswith("search")]
    assert {tuple(row["links"]) for row in searched} == {(links[0]["settings"]["artefact"],)}
    assert Artefacts(config.artefacts).get(links[0]["settings"]["artefact"])
    status = read_status(ledger)
    assert {line.stage for line in status.lines} == {LINK, "search", "confirm", "test"}
    assert status.stage.worker_seconds == pytest.approx(
        sum(row["worker_seconds"] for row in trials.values())
    )
    # Another study in the folder finds it made.
    other = make_recipe("other")
    Study(other, QUIET).run()
    again = Ledger(other.location.child("ledger")).rows("trials")
    assert [row["epochs_done"] for row in again if row["stage"] == LINK] == [0, 0]


@pytest.mark.ray
@pytest.mark.slow
def test_a_link_that_fails_fails_the_trials_that_need_it(local_ray, make_recipe):
    def steps(spec):
        if spec.stage == LINK:
            yield TrialFailed(reason="no text")
        else:
            yield from trial_steps(spec)

    config, lines = make_recipe("broken"), []
    Study(config, Console(lines.append), steps=steps).run()
    rows = Ledger(config.location.child("ledger")).rows("trials")
    link = next(row for row in rows if row["stage"] == LINK)
    assert (link["state"], link["reason"]) == ("failed", "no text")
    reasons = {row["reason"] for row in rows if row["stage"] == "search"}
    assert reasons == {f"its {link['trial_id']} failed: {link['reason']}"}
    assert any("no search trial of mlkd was completed" in line for line in lines)


@pytest.mark.ray
@pytest.mark.slow
def test_two_teachers_are_one_choice_of_a_study(local_ray, make_study, zoo):
    both = f"{zoo / 'teacher'}+{zoo / 'roberta'}"
    config = make_study(
        "pair",
        teachers=(both,),
        search=SearchConfig(trials=2),
        confirmation=ConfirmationConfig(seeds=1, controls=()),
        test="once",
    )
    lines = []
    Study(config, Console(lines.append)).run()
    assert sum("texts read once" in line for line in lines) == 2  # each by itself
    ledger = Ledger(config.location.child("ledger"))
    row = next(row for row in ledger.rows("trials") if row["trial_id"] == "confirm-mlkd-000-000")
    assert row["state"] == "complete"
    assert row["settings"]["teacher"] == "teacher+roberta"
    assert row["settings"]["layer_mapping"].count(";") == 1
    terms = next(
        epoch["weighted"]
        for epoch in ledger.rows("metrics")
        if epoch["trial_id"] == "confirm-mlkd-000-000" and epoch["split"] == "train"
    )
    assert set(terms) == {"ce", "hidden_1", "hidden_2"}
    assert restored(row, config).distillation.teacher == both


def test_two_models_of_one_name_are_refused(make_study, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "model").mkdir(parents=True)
    teachers = tuple(str(tmp_path / folder / "model") for folder in ("a", "b"))
    with pytest.raises(InputError, match="two models are called so"):
        PublicNames(make_study(teachers=teachers))


@pytest.mark.ray
@pytest.mark.slow
def test_declared_settings_are_confirmed_beside_masked_language_modelling(
    local_ray, make_study, make_config
):
    """No search: every arm with its adaptation, and the test split; then more seeds."""
    adaptation = AdaptationConfig(steps=4, batch_size=8, evaluations=2)
    run = replace(make_config(optimisation={"epochs": 1}), adaptation=adaptation)
    config = make_study(
        "declared",
        run=run,
        search=SearchConfig(trials=0),
        confirmation=ConfirmationConfig(seeds=1, controls=("random",)),
        test="once",
    )
    lines = []
    study = Study(config, Console(lines.append))
    study.check()
    assert study.run().tested
    assert any(line.startswith("no search: 4 declared configurations") for line in lines)
    ledger = Ledger(config.location.child("ledger"))
    rows = ledger.rows("trials")
    assert {row["state"] for row in rows} == {"complete"}
    assert {row["stage"] for row in rows} == {LINK, "confirm", "control", "test"}
    confirmed = {row["method"]: row for row in rows if row["stage"] in ("confirm", "control")}
    assert set(confirmed) == {"plain", "masked-lm", "mlkd", "random-teacher"}
    assert {row["parent"] for row in confirmed.values()} == {"declared-000"}
    made = {row["method"]: row["links"] for row in confirmed.values()}
    assert made.pop("plain") is None
    assert len({tuple(keys) for keys in made.values()}) == 3  # no two alike
    link = {row["method"]: row for row in rows if row["stage"] == LINK}
    assert link["masked-lm"]["settings"]["task"] == "masked_lm"
    assert link["mlkd"]["settings"]["task"] == "none"
    frame = analysis.compare(analysis.load(config.location.folder))
    assert list(frame.role) == ["baseline", "baseline", "method", "control"]
    assert read_status(ledger).stage.total == 4
    more = replace(config, resume=True, confirmation=replace(config.confirmation, seeds=2))
    Study(more, QUIET).run()
    rows = ledger.rows("trials")
    assert sum(row["stage"] in ("confirm", "control") for row in rows) == 8
    with pytest.raises(InputError, match="begun without a search"):
        Study(replace(more, search=SearchConfig(trials=4)), QUIET).run()
