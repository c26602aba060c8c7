import optuna
import pytest

from dsgkd.errors import InputError
from dsgkd.study.search.space import METHODS, MLKD, PLAIN, RANDOM_TEACHER, SearchSpace
from dsgkd.training.run import RunConfig

DEPTHS = {"tiny-ko": 2, "near": 2, "deep": 6}


def suggest(space, method, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    trial = study.ask()
    return space.suggest(trial, method, RunConfig(), ("near", "deep"), DEPTHS), trial


def test_plain_draws_learning_rates_only():
    run, trial = suggest(SearchSpace(), PLAIN)
    assert set(trial.params) == {"encoder_lr", "classifier_lr"}
    assert run.distillation.teacher == ""


@pytest.mark.parametrize("method", [MLKD, RANDOM_TEACHER])
def test_distillation_draws_teacher_mapping_and_weights(method):
    run, trial = suggest(SearchSpace(), method)
    assert run.distillation.teacher in ("near", "deep")
    assert run.distillation.alpha == trial.params["alpha"] > 0
    assert run.distillation.cs_max_len == trial.params["cs_max_len"]
    weights = "random" if method == RANDOM_TEACHER else "pretrained"
    assert run.distillation.teacher_weights == weights


def test_the_mapping_parameter_depends_on_the_pair_of_depths():
    seen = set()
    for seed in range(12):
        run, trial = suggest(SearchSpace(), MLKD, seed)
        (name,) = [name for name in trial.params if name.startswith("mapping")]
        assert name == f"mapping_2_to_{DEPTHS[run.distillation.teacher]}"
        seen.add(name)
    assert seen == {"mapping_2_to_2", "mapping_2_to_6"}


def test_mappings_that_do_not_fit_are_left_out():
    space = SearchSpace(mappings=("uniform", "last-4"))
    assert space.fitting_mappings(2, 6) == ["uniform"]
    assert space.fitting_mappings(4, 6) == ["uniform", "last-4"]


def test_no_fitting_mapping_is_an_input_error():
    with pytest.raises(InputError, match="last-4"):
        SearchSpace(mappings=("last-4",)).fitting_mappings(2, 2)


def test_mappings_of_other_teacher_layers_are_left_out():
    space = SearchSpace(mappings=("uniform", "last-1", "uniform+emb"), teacher_layers=(3, 6))
    assert space.fitting_mappings(2, 6) == ["uniform", "last-1"]
    only_last = SearchSpace(mappings=("uniform", "last-1"), teacher_layers=(6,))
    assert only_last.fitting_mappings(2, 6) == ["last-1"]
    with pytest.raises(InputError, match="teacher layers: no mapping uses only 4"):
        SearchSpace(teacher_layers=(4,)).fitting_mappings(2, 6)


def test_beta_is_searched_only_if_its_range_is_open():
    _, closed = suggest(SearchSpace(), MLKD)
    run, opened = suggest(SearchSpace(beta=(0.0, 2.0)), MLKD)
    assert "beta" not in closed.params
    assert 0 <= opened.params["beta"] == run.distillation.beta <= 2


@pytest.mark.parametrize("field", [{"alpha": (0.0, 1.0)}, {"beta": (-1.0, 1.0)}, {"alpha": (2, 1)}])
def test_an_impossible_range_is_an_input_error(field):
    with pytest.raises(InputError, match="no range"):
        SearchSpace(**field)


def test_the_methods_are_distillation_and_its_two_comparisons():
    assert set(METHODS) == {"mlkd", "plain", "random-teacher"}
