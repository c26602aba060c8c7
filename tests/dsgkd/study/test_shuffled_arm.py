"""What a study stores for the arm whose teacher reads other words."""

from dataclasses import replace

import pytest

from dsgkd.study.config import ConfirmationConfig, StudyConfig
from dsgkd.study.confirmation import PlannedTrial
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.search.arms import SHUFFLED_WORDS
from dsgkd.study.stages import spec_of
from dsgkd.study.study import Study


@pytest.fixture
def config(tmp_path) -> StudyConfig:
    controls = ConfirmationConfig(controls=("random", "shuffled"))
    return StudyConfig("s", str(tmp_path), confirmation=controls)


def test_the_search_shares_a_store_of_shuffled_words(config):
    plans = Study(config)._plans({"tiny-ko": 2, "tiny-en-med": 2})
    doubles = ["", " with random weights", " on shuffled words"]
    assert [plan.name for plan in plans] == [f"tiny-en-med{double}" for double in doubles]
    assert [plan.run.distillation.shuffled for plan in plans] == [False, False, True]


def test_without_a_search_nobody_could_share_it(config):
    declared = replace(config, search=replace(config.search, trials=0))
    plans = Study(declared)._plans({"tiny-ko": 2, "tiny-en-med": 2})
    assert [plan.name for plan in plans] == ["tiny-en-med"]


@pytest.mark.parametrize(("stage", "own"), [("search", False), ("control", True)])
def test_confirmation_has_one_of_its_own_because_its_seeds_draw_other_partners(stage, own, config):
    seed = config.seed if stage == "search" else config.seed + 1000
    run = config.arms[SHUFFLED_WORDS].applied(replace(config.run, seed=seed))
    spec = spec_of(config, StudyManifest(config), PlannedTrial(stage, SHUFFLED_WORDS, "one", run))
    assert bool(spec.own_teacher) == own
    assert spec.store.folder == spec.own_teacher
