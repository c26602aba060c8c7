"""How many links a study makes."""

from dsgkd.distillation.config import DistillationConfig
from dsgkd.study.config import ConfirmationConfig, StudyConfig
from dsgkd.study.cost.links import plan_links
from dsgkd.study.search.config import SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.training.config import AdaptationConfig, LinkConfig, RunConfig

GIVEN = DistillationConfig(teacher="near")


def planned(trials=13, top=1, seeds=5, space=None, **run):
    config = StudyConfig(
        name="s",
        out="runs",
        run=RunConfig(**run),
        teachers=("near",),
        space=space or SearchSpace(),
        search=SearchConfig(trials=trials),
        confirmation=ConfirmationConfig(top=top, seeds=seeds),
    )
    given = RunConfig(**run, distillation=GIVEN)
    return {link.name: link for link in plan_links(config, given)}


def counts(found):
    return {name: (link.search, link.confirm) for name, link in found.items()}


def test_an_adaptation_follows_searched_values_but_masked_language_modelling_does_not():
    found = planned(adaptation=AdaptationConfig(steps=40, evaluations=4))
    assert counts(found) == {
        "adapt (mlkd)": (4, 5),
        "adapt (masked-lm)": (1, 5),
        "adapt (random-teacher)": (4, 5),
    }
    assert {link.epochs for link in found.values()} == {4}
    # A control's link is timed as that of distillation is.
    alone = found["adapt (random-teacher)"].alone
    assert alone == found["adapt (mlkd)"].alone
    assert alone.chain == alone.links
    assert alone.links[0].distillation.teacher == "near"
    assert found["adapt (masked-lm)"].alone.links[0].task == MaskedLanguageModel()


def test_an_adaptation_is_shared_by_trials_that_differ_in_nothing_it_knows():
    """Alone on the texts, only the proportions of the terms count."""
    space = SearchSpace(cs_max_len=(32,), mappings=("uniform",))
    found = planned(space=space, adaptation=AdaptationConfig(steps=40))
    assert set(counts(found).values()) == {(1, 5)}


def test_each_configuration_that_is_confirmed_has_a_link_for_each_seed():
    assert counts(planned(top=2, adaptation=AdaptationConfig(steps=40)))["adapt (mlkd)"] == (4, 10)
    without = planned(trials=0, adaptation=AdaptationConfig(steps=40))
    assert set(counts(without).values()) == {(0, 5)}


def test_a_link_without_a_teacher_is_shared_by_all_arms():
    links = (LinkConfig("further", MaskedLanguageModel()),)
    assert counts(planned(links=links)) == {"further (mlkd, plain, random-teacher)": (1, 5)}


def test_a_link_with_a_teacher_of_its_own_is_made_once_an_arm():
    links = (LinkConfig("terms", NoTask(), GIVEN), LinkConfig("more", MaskedLanguageModel()))
    found = counts(planned(links=links))
    assert found["terms (mlkd)"] == found["terms (random-teacher)"] == (1, 5)
    assert found["more (mlkd)"] == found["more (plain)"] == (1, 5)  # from another student
    assert "terms (plain)" not in found
    assert planned() == {}
