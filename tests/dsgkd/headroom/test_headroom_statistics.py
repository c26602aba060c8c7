"""The arithmetic of the headroom, on arrays: regressions, folds, intervals, and what is claimed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dsgkd.errors import InputError
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.crossvalidation import Fold, auroc, cut, familiarity, one_vs_rest, subsample
from dsgkd.headroom.features import RANDOM, SHUFFLED, TEACHER, Material, Occurrences, StateName
from dsgkd.headroom.intervals import Interval, beyond, corrected
from dsgkd.headroom.logistic import fit, fit_stack, logits, rotated
from dsgkd.headroom.measurement import measure
from dsgkd.headroom.verdict import Verdict, signed, verdicts

QUICK = HeadroomConfig(repeats=2, label_counts=(), penalties=(0.1, 1.0), random_teachers=2)


@pytest.mark.parametrize(("notes", "width"), [(200, 12), (60, 150)], ids=["tall", "wide"])
def test_many_regressions_at_once_are_those_of_scikit_learn(notes: int, width: int) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((notes, width))
    truth = random.random(notes) < 1 / (1 + np.exp(-3 * features[:, 0]))
    turned = rotated(features, features[:7])
    assert np.allclose(turned.test, turned.train[:7])
    assert (turned.train**2).sum(1).mean() == pytest.approx(1)

    subsets = np.ones((2, notes), bool)
    subsets[0, : notes // 3] = False
    penalties = np.array([0.1, 1.0])
    weights = fit(turned.train, truth[:, None], subsets, penalties)
    for at, subset in enumerate(subsets):
        for number, penalty in enumerate(penalties):
            theirs = LogisticRegression(C=penalty, tol=1e-8, max_iter=2000)
            theirs.fit(turned.train[subset], truth[subset])
            ours = logits(turned.train, weights[:, at, number, 0])
            assert np.abs(ours - theirs.decision_function(turned.train)).max() < 0.05


def test_a_stack_takes_no_notice_of_what_points_the_wrong_way() -> None:
    random = np.random.default_rng(0)
    truth = random.random(300) < 0.5
    good = truth + random.standard_normal(300)
    weights = fit_stack(np.stack([good, -good + random.standard_normal(300)], 1), truth)
    assert weights[0] > 0
    assert weights[1] == 0


def test_the_area_under_the_curve_is_that_of_scikit_learn_ties_and_all() -> None:
    random = np.random.default_rng(0)
    truth = random.random((50, 3)) < 0.3
    truth[:, 2] = False  # undefined, and left out
    scores = random.integers(0, 5, (50, 3, 2)).astype(float)
    expected = [
        np.mean([roc_auc_score(truth[:, k], scores[:, k, arm]) for k in (0, 1)]) for arm in (0, 1)
    ]
    assert auroc(truth, scores) == pytest.approx(expected)
    assert np.isnan(auroc(truth[:, 2:], scores[:, 2:])).all()


def test_a_patient_is_in_one_fold_and_every_fold_has_its_share_of_labels() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 150, 300)
    labels = (np.arange(300) % 3 == 0).astype(int)
    folds = cut(labels, groups, 5, random)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(300))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert abs(labels[fold.test].mean() - 1 / 3) < 0.15
    fewer = subsample(labels, folds[0], 30, (1, 2))
    assert len(set(fewer.train)) == 30
    assert set(fewer.train) <= set(folds[0].train)
    assert abs(labels[fewer.train].mean() - labels[folds[0].train].mean()) < 0.05


def test_classes_with_few_notes_are_no_problem_of_their_own() -> None:
    assert one_vs_rest(np.array([0] * 30 + [1] * 30), 20).shape == (60, 1)
    assert one_vs_rest(np.array([0] * 30 + [1] * 30 + [2] * 5), 20).shape == (65, 2)


def test_a_note_is_as_familiar_as_its_least_known_word() -> None:
    words = csr_array(np.array([[1, 0, 0], [2, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]))
    fold = Fold(np.array([0, 1]), np.array([2, 3, 4]))
    assert familiarity(words, fold).tolist() == [1, 0, -1]


def test_dealt_states_are_the_same_for_a_type_and_never_its_own() -> None:
    words = Occurrences(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 2]), 4)
    states = np.array([[1.0], [2.0], [3.0], [7.0]])
    assert words.of_types(states).ravel().tolist() == [2.0, 2.0, 7.0]
    own = np.array([[1.0], [2.0], [1.0], [3.0]])
    dealt = words.dealt(own, seed=0)
    assert dealt[1] != 1.0
    assert dealt[2] != 3.0
    assert np.isnan(dealt[3]).all()
    assert dealt[0] == (dealt[1] + (6.0 - dealt[1] - dealt[2])) / 2


def test_the_corrected_interval_is_the_formula_of_nadeau_and_bengio() -> None:
    values = np.array([0.1, 0.2, 0.3, np.nan])
    found = corrected(values, folds=5, confidence=0.95)
    reach = 4.302653 * np.sqrt((1 / 3 + 1 / 4) * 0.01)
    assert found == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))
    assert not corrected(np.array([0.1, np.nan, np.nan]), 5, 0.95).is_defined


def test_random_draws_that_differ_much_prove_little() -> None:
    random = np.random.default_rng(0)
    values = 0.05 + 0.01 * random.standard_normal(15)
    alike = 0.01 * random.standard_normal((3, 15))
    unlike = alike + np.array([[-0.04], [0.0], [0.04]])
    assert beyond(values, alike, 5, 0.95).low > 0
    assert beyond(values, unlike, 5, 0.95).low < 0


def invented(seed: int, knows: float = 0.0, notes: int = 160, width: int = 8) -> Material:
    """Notes of words, each with a severity that a teacher knows to some degree."""
    random = np.random.default_rng(seed)
    many = 60
    severity = random.standard_normal(many)
    frequency = np.arange(1, many + 1) ** -0.6
    counts = random.integers(1, 5, notes)
    rows = np.repeat(np.arange(notes), counts)
    types = random.choice(many, len(rows), p=frequency / frequency.sum())
    occurrences = Occurrences(rows, types, notes)
    score = occurrences.mean(severity[types][:, None])[:, 0]
    signs = random.standard_normal(notes)
    labels = (random.random(notes) < 1 / (1 + np.exp(-3 * score / score.std() - signs))).astype(int)
    words = csr_array((np.ones(len(rows)), (rows, types)), shape=(notes, many))
    other = csr_array(random.poisson(0.3, (notes, 20)) * 1.0)
    states = {}
    for features, draws in ((TEACHER, 1), (RANDOM, 2)):
        for draw in range(draws):
            meaning = random.standard_normal((many, width))
            if features == TEACHER:
                meaning[:, 0] = knows * severity * 3 + np.sqrt(1 - knows**2) * meaning[:, 0]
            found = occurrences.mean(meaning[types])
            states[StateName("teacher", features, 1, draw)] = found
    states[StateName("teacher", SHUFFLED, 1)] = states[StateName("teacher", RANDOM, 1, 0)]
    return Material(labels, np.arange(notes), words, csr_array(hstack([words, other])), states)


def verdict_of(material: Material, config: HeadroomConfig = QUICK) -> Verdict:
    return verdicts(measure(material, config), config.worth)[0]


def test_a_teacher_that_knows_the_words_is_worth_a_study() -> None:
    found = verdict_of(invented(3, knows=0.95, notes=300))
    assert found.finding == "headroom"
    assert found.sentence.endswith("a study is worth it.")
    assert found.mapping(4) == "4:1"


@pytest.mark.slow
def test_without_headroom_hardly_any_is_claimed() -> None:
    claims = sum(verdict_of(invented(seed)).finding in ("headroom", "small") for seed in range(40))
    assert claims <= 4  # at 5 %, more have a probability of .02 at most


@pytest.mark.slow
def test_several_teachers_share_the_confidence_and_the_layer_is_named() -> None:
    material = invented(5, knows=0.9)
    states = dict(material.states)
    for name, values in material.states.items():
        states[name._replace(layer=2)] = -values[::-1]
        states[name._replace(model="other")] = values[::-1]
    config = replace(QUICK, label_counts=(50,))
    measured = measure(replace(material, states=states), config)
    assert measured.confidence == pytest.approx(0.975)
    assert [row.layer for row in measured.layers("teacher")] == [1, 2]
    first, second = verdicts(measured, 0.01)
    assert (first.teacher, first.layer) == ("teacher", 1)
    assert second.teacher == "other"
    assert {row.labels for row in measured.rows} == {50, 128}


def test_too_few_notes_of_a_class_are_one_line() -> None:
    material = invented(0)
    few = replace(material, labels=(np.arange(160) < 5).astype(int))
    with pytest.raises(InputError, match="155, 5 training notes in the classes"):
        measure(few, QUICK)


def test_more_than_two_classes_are_told_each_from_the_rest() -> None:
    material = invented(7)
    labels = np.where(np.arange(160) % 3 == 0, 2, material.labels)
    measured = measure(replace(material, labels=labels), QUICK)
    assert measured.problems == 3
    assert 0.3 < measured.find("words").auroc.value < 1


def test_figures_have_a_sign_and_no_leading_zero() -> None:
    assert signed(Interval(0.045, -0.0301, 0.12)) == "+.045 [-.030, .120]"
    assert signed(Interval(-0.0001, -0.02, 0.0)) == "+.000 [-.020, .000]"
    assert signed(Interval(float("nan"), 0, 0)) == "-"
