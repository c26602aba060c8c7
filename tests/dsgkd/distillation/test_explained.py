"""What criteria offer besides a loss: the map to the teacher's space, and how well it fits."""

import pytest
import torch
from word_samples import as_batch, criterion_of, words_of

from dsgkd.models.taps import WordStates

MAPS = ["projected", "orthonormal", "fixed", "reverse", "contrastive"]
"""Criteria that predict the teacher's states."""


def share(criterion, ours: WordStates, theirs: WordStates) -> float:
    ours, theirs = as_batch(ours, 10), as_batch(theirs, 10)
    mask = torch.ones(next(iter(ours.hidden.values())).shape[:2]).bool()
    missed, there = criterion.explained(ours, theirs, mask)
    return float(1 - missed / there)


@pytest.mark.parametrize("name", MAPS)
def test_a_linear_image_is_explained_on_held_out_words_and_noise_is_not(name):
    criterion = criterion_of(name)
    criterion.calibrate(*words_of(400))
    ours, theirs = words_of(200, seed=1)
    assert share(criterion, ours, theirs) > 0.5
    unrelated = words_of(200, seed=2)[1]
    assert share(criterion, ours, unrelated) < 0.25


def test_the_projected_share_is_that_of_the_standardised_states():
    criterion = criterion_of("projected", pairs=((1, 3),))
    ours, theirs = words_of(400)
    criterion.calibrate(ours, theirs)
    z = (theirs.hidden[3] - theirs.hidden[3].mean(0)) / theirs.hidden[3].std(0)
    weight, bias = criterion.projection(1)
    assert weight.shape == (6, 8)
    assert bias.shape == (6,)
    expected = 1 - (z - ours.hidden[1] @ weight.T - bias).square().sum() / z.square().sum()
    assert share(criterion, ours, theirs) == pytest.approx(float(expected), abs=1e-5)
    assert expected > 0.99


@pytest.mark.parametrize("name", MAPS)
def test_words_that_do_not_exist_are_not_counted(name):
    criterion = criterion_of(name)
    criterion.calibrate(*words_of(400))
    ours, theirs = (as_batch(states, 10) for states in words_of(200, seed=1))
    mask = torch.rand(10, 20, generator=torch.Generator().manual_seed(0)) < 0.5
    found = criterion.explained(ours, theirs, mask)
    other = WordStates({k: v + 7 * ~mask[..., None] for k, v in theirs.hidden.items()}, {})
    torch.testing.assert_close(criterion.explained(ours, other, mask), found)


@pytest.mark.parametrize("name", MAPS)
def test_only_mapped_layers_have_a_projection_and_it_carries_no_gradient(name):
    criterion = criterion_of(name)
    assert criterion.projection(3) is None
    assert criterion.projection(0) is None
    for layer in (1, 2):
        weight, bias = criterion.projection(layer)
        assert weight.shape[1] == 8
        assert len(weight) == len(bias)
        assert not weight.requires_grad
        assert not bias.requires_grad


def test_a_layer_matched_with_several_has_its_maps_side_by_side():
    whole = criterion_of("projected", pairs=((1, 3), (1, 5)))
    assert whole.projection(1)[0].shape == (12, 8)
    assert whole.projection(1)[1].shape == (12,)


@pytest.mark.parametrize(
    "name", ["relational", "word_attention", "paper_attention", "paper_hidden"]
)
def test_other_criteria_predict_no_states(name):
    criterion = criterion_of(name, teacher=8)
    assert criterion.projection(1) is None
    assert criterion.explained(WordStates({}, {}), WordStates({}, {}), torch.ones(1, 1)) is None
