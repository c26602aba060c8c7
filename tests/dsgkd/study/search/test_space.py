import optuna
import pytest

from dsgkd.distillation.config import DistillationConfig
from dsgkd.errors import InputError
from dsgkd.models.names import CORPUS_PREFIX, is_built_here
from dsgkd.study.config import ConfirmationConfig, StudyConfig
from dsgkd.study.search.arms import (
    MLKD,
    PLAIN,
    RANDOM_TEACHER,
    SHUFFLED_WORDS,
    WRONG_DOMAIN,
    arms,
    control,
)
from dsgkd.study.search.config import SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.training.config import LinkConfig, RunConfig

CONTROLS = ("random", "shuffled", "wrong-domain=deep")
ARMS = {arm.method: arm for arm in arms(CONTROLS)}
DEPTHS = {"tiny-ko": 2, "near": 2, "deep": 6, "/models/near": 2}
TEACHERS = {"near": "near", "deep": "deep"}


def suggest(space, method, seed=0, teachers=None):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    trial = study.ask()
    return space.suggest(trial, ARMS[method], RunConfig(), teachers or TEACHERS, DEPTHS), trial


def test_plain_draws_learning_rates_only():
    run, trial = suggest(SearchSpace(), PLAIN)
    assert set(trial.params) == {"encoder_lr", "classifier_lr"}
    assert run.distillation.teacher == ""


@pytest.mark.parametrize("method", [MLKD, RANDOM_TEACHER, SHUFFLED_WORDS, WRONG_DOMAIN])
def test_distillation_draws_teacher_mapping_and_weights(method):
    run, trial = suggest(SearchSpace(), method)
    assert run.distillation.teacher in ("near", "deep")
    assert run.distillation.alpha == trial.params["alpha"] > 0
    assert run.distillation.max_transfer_words == trial.params["cs_max_len"]
    weights = "random" if method == RANDOM_TEACHER else "pretrained"
    assert run.distillation.teacher_weights == weights
    assert run.distillation.shuffled == (method == SHUFFLED_WORDS)
    if method == WRONG_DOMAIN:
        assert run.distillation.teacher == "deep"


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
    with pytest.raises(InputError, match=next(iter(field))):
        SearchSpace(**field)


def test_a_control_differs_from_distillation_in_its_teacher_only():
    distils, _ = suggest(SearchSpace(), MLKD)
    shuffled = ARMS[SHUFFLED_WORDS].applied(distils)
    assert shuffled != distils
    assert ARMS[MLKD].applied(shuffled) == distils


def test_a_folder_of_text_becomes_a_teacher_of_the_wrong_domain(tmp_path):
    (tmp_path / "law.txt").write_text("whereas\n")
    assert control(f"wrong-domain={tmp_path}").teacher == CORPUS_PREFIX + str(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert control(f"wrong-domain={tmp_path}").teacher == str(tmp_path)


def test_the_technical_teacher_is_one_of_the_wrong_domain(tmp_path):
    confirmation = ConfirmationConfig(controls=("wrong-domain=tiny-en-tech",))
    study = StudyConfig("s", str(tmp_path), confirmation=confirmation)
    assert study.models[1:] == ("tiny-en-med", "tiny-en-tech")
    assert is_built_here("tiny-en-tech")


@pytest.mark.parametrize("text", ["", "other", "random=x", "wrong-domain", "wrong-domain="])
def test_what_is_no_control_is_an_input_error(text):
    with pytest.raises(InputError, match="controls"):
        control(text)


def test_a_control_given_twice_is_an_input_error():
    with pytest.raises(InputError, match="twice"):
        arms(("random", "random"))


def test_trials_are_shared_equally_by_what_is_searched(tmp_path):
    def budgets(trials, **changes):
        confirmation = ConfirmationConfig(controls=CONTROLS, **changes)
        search = SearchConfig(trials=trials)
        return StudyConfig(name="x", out=tmp_path, search=search, confirmation=confirmation).budgets

    assert set(budgets(10).values()) == {2}
    assert budgets(11, tune_controls=False) == {MLKD: 6, PLAIN: 5}
    with pytest.raises(InputError, match="4 for 5 methods"):
        budgets(4)


def test_several_teachers_are_one_choice_with_a_mapping_each():
    run, trial = suggest(SearchSpace(), MLKD, teachers={"near+deep": "near+deep"})
    assert run.distillation.teacher == "near+deep"
    first, second = run.distillation.mapping.split(";")
    assert trial.params["mapping_2_to_2"] == first
    assert trial.params["mapping_2_to_6_of_2"] == second
    assert len(run.distillation.choices) == 2


def test_what_is_drawn_says_nothing_of_where_a_teacher_lies():
    run, trial = suggest(SearchSpace(), MLKD, teachers={"near": "/models/near"})
    assert run.distillation.teacher == "/models/near"
    assert trial.params["teacher"] == "near"


def test_an_arm_holds_for_the_runs_before_as_well():
    taught = LinkConfig(
        name="adapt", task=MaskedLanguageModel(), distillation=DistillationConfig(teacher="near")
    )
    alone = LinkConfig(name="alone", task=NoTask(), distillation=DistillationConfig(teacher="near"))
    run = RunConfig(links=(taught, alone), distillation=DistillationConfig(teacher="near"))
    random = ARMS[RANDOM_TEACHER].applied(run)
    assert [link.distillation.teacher_weights for link in random.links] == ["random", "random"]
    plain = ARMS[PLAIN].applied(run)
    assert [(link.name, link.distillation.teacher) for link in plain.links] == [("adapt", "")]
