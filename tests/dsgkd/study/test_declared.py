"""Studies without a search."""

from dataclasses import replace

import pytest

from dsgkd.errors import InputError
from dsgkd.study.config import ConfirmationConfig, StudyConfig, as_json, check_same
from dsgkd.study.confirmation import confirmation
from dsgkd.study.declared import Declared
from dsgkd.study.lines import plan_line
from dsgkd.study.search.arms import MASKED_LM, MLKD, PLAIN, RANDOM_TEACHER
from dsgkd.study.search.config import SearchConfig
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.training.config import AdaptationConfig, LinkConfig, RunConfig


def study(**changes):
    settings = {
        "run": RunConfig(adaptation=AdaptationConfig(steps=7, lr=1e-3)),
        "teachers": ("near",),
        "search": SearchConfig(trials=0),
        "confirmation": ConfirmationConfig(seeds=2),
    }
    return StudyConfig(name="s", out="runs", **settings | changes)


def test_every_arm_confirms_the_run_as_it_was_declared():
    config = study()
    planned = list(confirmation(config, Declared(config, config.run)))
    assert [one.trial_id for one in planned] == [
        f"confirm-{method}-000-00{seed}"
        for seed in (0, 1)
        for method in (PLAIN, MASKED_LM, MLKD, RANDOM_TEACHER)
    ]
    assert {one.parent for one in planned} == {"declared-000"}
    first = {one.method: one.run for one in planned[:4]}
    seeded = replace(config.run, seed=config.seed + 1000)
    taught = replace(seeded.distillation, teacher="near")
    assert first[MLKD] == replace(seeded, distillation=taught)
    assert first[RANDOM_TEACHER].distillation == replace(taught, teacher_weights="random")
    assert first[PLAIN].chain == ()
    assert first[PLAIN].optimisation == first[MLKD].optimisation
    assert plan_line(config) == (
        "no search: 4 declared configurations confirmed (1 of each method), on 2 fresh seeds"
    )


def test_masked_language_modelling_takes_the_place_of_the_teacher_in_adaptation():
    """The same texts, steps, batches and rate."""
    config = study()
    found = {
        one.method: one.run.chain for one in confirmation(config, Declared(config, config.run))
    }
    (taught,), (masked,) = found[MLKD], found[MASKED_LM]
    assert (taught.task, masked.task) == (NoTask(), MaskedLanguageModel())
    assert (taught.distillation.teacher, masked.distillation.teacher) == ("near", "")
    same = replace(masked, task=taught.task, distillation=taught.distillation)
    assert same == taught


def test_the_second_baseline_is_there_where_students_are_adapted():
    config = study()
    assert config.arms[MASKED_LM].role == config.arms[PLAIN].role == "baseline"
    off = replace(config, confirmation=ConfirmationConfig(masked_lm=False))
    for other in (off, study(run=RunConfig())):
        assert MASKED_LM not in other.arms
    links = (LinkConfig("terms", NoTask()), LinkConfig("more", MaskedLanguageModel()))
    run = replace(config.run, links=links)
    for method, names in ((PLAIN, ["more"]), (MASKED_LM, ["adapt", "more"])):
        assert [link.name for link in config.arms[method].applied(run).chain] == names


def test_points_are_declared_as_well():
    points = ({"alpha": 3.0, "cs_max_len": 9}, {"encoder_lr": 2e-4, "mapping": "last-1"})
    config = study(initial_points=points, confirmation=ConfirmationConfig(top=2, seeds=1))
    declared = Declared(config, config.run)
    one, other = (found.run for found in declared.best(MLKD, 2))
    assert (one.distillation.alpha, one.distillation.max_transfer_words) == (3.0, 9)
    assert (other.optimisation.encoder_lr, other.distillation.mapping) == (2e-4, "last-1")
    assert [found.trial_id for found in declared.best(PLAIN, 2)] == ["declared-000", "declared-001"]
    assert declared.space.alpha == (1.0, 3.0)
    assert set(declared.space.mappings) == {"uniform", "last-1"}
    declared.check({"tiny-ko": 2, "near": 4})
    deep = study(initial_points=({"mapping": "last-4"},))
    with pytest.raises(InputError, match="last-4"):
        Declared(deep, deep.run).check({"tiny-ko": 2, "near": 4})


def test_what_only_a_search_knows_and_a_choice_of_teachers_are_refused():
    unknown = study(initial_points=({"depth": 3},))
    with pytest.raises(InputError, match="'depth' = 3 means nothing without a search"):
        Declared(unknown, unknown.run)
    several = study(teachers=("near", "deep"))
    with pytest.raises(InputError, match="0, and 2 teachers to choose from"):
        Declared(several, several.run)
    named = replace(several, initial_points=({"teacher": "deep"},))
    assert Declared(named, named.run).runs[0].distillation.teacher == "deep"
    together = study(teachers=("near+deep",))
    assert Declared(together, together.run).runs[0].distillation.teacher == "near+deep"


def test_a_study_is_not_searched_later_nor_its_declaration_changed():
    config = study()
    begun = as_json(config)
    more = replace(config, confirmation=ConfirmationConfig(seeds=9))
    check_same(begun, as_json(more), "s")
    searched = replace(config, search=SearchConfig(trials=12))
    with pytest.raises(InputError, match="begun without a search: give --trials 0"):
        check_same(begun, as_json(searched), "s")
    with pytest.raises(InputError, match="begun with a search"):
        check_same(as_json(searched), begun, "s")
    other = replace(config, initial_points=({"alpha": 3.0},))
    with pytest.raises(InputError, match="initial_points"):
        check_same(begun, as_json(other), "s")
    check_same(as_json(searched), as_json(replace(searched, initial_points=({"alpha": 3.0},))), "s")


def test_budgets_leave_one_trial_to_an_arm_with_nothing_to_search():
    searched = study(search=SearchConfig(trials=13))
    assert searched.budgets == {MLKD: 4, PLAIN: 4, MASKED_LM: 1, RANDOM_TEACHER: 4}
    free = replace(searched, search=SearchConfig(trials=13, match_rates=False))
    assert free.budgets == {MLKD: 4, PLAIN: 3, MASKED_LM: 3, RANDOM_TEACHER: 3}
    assert set(study().budgets.values()) == {0}
    with pytest.raises(InputError, match="3 for 4 methods"):
        study(search=SearchConfig(trials=3))
