"""Criteria on hidden states beside `projected`: numbers by hand, gradients, masks, widths."""

import math

import pytest
import torch
from torch import Tensor
from word_samples import as_batch, criterion_of, words_of

from dsgkd.distillation.criteria.contrastive import contrastive_loss
from dsgkd.distillation.criteria.relational import relational_loss
from dsgkd.distillation.criteria.standardised import principal_directions, procrustes, relative_loss
from dsgkd.models.taps import WordStates

NAMES = ["orthonormal", "fixed", "reverse", "contrastive", "relational"]
WIDTHS = [(8, 6), (6, 8), (7, 7)]
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()


def relative(wanted, given, mask, count):
    return relative_loss(wanted, given, [3.0, 2.0], mask, count)


LOSSES = [relative, contrastive_loss, relational_loss]


def states(seed: int = 0, width: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(2, *MASK.shape, width, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_finite_differences(loss):
    teacher, student = states(), [s.requires_grad_() for s in states(1)]
    assert torch.autograd.gradcheck(lambda *s: loss(teacher, s, MASK, 7.0), student, fast_mode=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_words_that_do_not_exist_count_nothing(loss):
    teacher, student = states(), states(1)
    other = [[x + 5 * ~MASK[..., None] for x in side] for side in (teacher, student)]
    value = loss(teacher, student, MASK, 8.0)
    assert value > 1e-3
    torch.testing.assert_close(loss(*other, MASK, 8.0), value)
    torch.testing.assert_close(loss(teacher, student, MASK, 16.0), value / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_states_have_no_loss(loss):
    assert loss(states(), states(), MASK, 8.0).abs() < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mask", [torch.zeros_like(MASK), MASK & (MASK.cumsum(1) < 2)])
def test_without_words_or_with_one_a_text_the_gradient_is_finite(loss, mask):
    student = [s.requires_grad_() for s in states(1)]
    value = loss(states(), student, mask, mask.sum())
    assert mask.any() or value == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, student))


def test_the_relative_loss_of_a_student_that_knows_nothing_is_one():
    wanted = torch.tensor([[[1.0, 2.0]]])
    given = torch.zeros(1, 1, 2)
    mask = torch.ones(1, 1).bool()
    assert relative_loss([wanted], [given], [5.0], mask, 1).item() == pytest.approx(1)
    assert relative_loss([wanted], [wanted * 0.5], [5.0], mask, 1).item() == pytest.approx(0.25)


def test_the_contrastive_loss_by_hand():
    teacher = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    projected = torch.tensor([[[0.0, 5.0], [0.0, 1.0]]])  # both say the second word
    mask = torch.ones(1, 2).bool()
    # KL(softmax(1, 0) || softmax(0, 1)) = tanh(1/2) for the first word, nothing for the second.
    loss = contrastive_loss([teacher], [projected], mask, 2, temperature=1.0)
    assert loss.item() == pytest.approx(math.tanh(0.5) / 2, abs=1e-6)


def test_words_of_one_type_are_no_negatives_of_each_other():
    teacher = torch.eye(4)[torch.tensor([[0, 0, 1, 2]])]  # the first two are one term
    mask = torch.ones(1, 4).bool()
    assert contrastive_loss([teacher], [teacher * 7], mask, 4).abs() < 1e-6
    one_hot = -torch.log_softmax(teacher[0] @ teacher[0].T / 0.1, -1).diagonal().mean()
    assert one_hot > 0.3  # plain InfoNCE pushes the two apart


def test_the_relational_loss_by_hand():
    right = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]])  # distances 3, 4, 5
    even = torch.eye(3)[None]  # an equilateral triangle, in three dimensions
    mask = torch.ones(1, 3).bool()
    distances = (0.25**2 / 2 / 2) * 4  # two of three differ by .25, each seen from both ends
    angles = (0.5**2 + 0.1**2 + 0.3**2) / 2  # cosines 0, .6, .8 and .5
    loss = relational_loss([right], [even], mask, 3)
    assert loss.item() == pytest.approx((distances + 2 * angles) / 3, abs=1e-5)
    # Neither place, size nor direction is a relation.
    turned = 2 + 5 * right.flip(-1)
    assert relational_loss([right], [turned], mask, 3).abs() < 1e-6


def test_procrustes_finds_a_rotation_and_principal_directions_the_wide_ones():
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(procrustes(sample, sample @ rotation.T), rotation)
    wide = sample * torch.tensor([0.1, 5, 0.1, 20])
    found = principal_directions(wide, 2).abs()
    torch.testing.assert_close(found[:, [3, 1]], torch.eye(2).double(), atol=0.2, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("ours", "theirs"), WIDTHS)
def test_a_loss_falls_in_the_student_alone_whatever_the_widths(name, ours, theirs):
    criterion = criterion_of(name, ours, theirs)
    sample = words_of(300, ours, theirs)
    criterion.calibrate(*sample)
    student = as_batch(words_of(60, ours, theirs, seed=1)[0], 10)
    teacher = as_batch(words_of(60, ours, theirs, seed=2)[1], 10)  # of other words
    free = {k: v.clone().requires_grad_() for k, v in student.hidden.items()}
    mask = torch.ones(10, 6).bool()
    optimizer = torch.optim.Adam([*free.values(), *criterion.parameters()], lr=0.05)
    losses = []
    for _ in range(60):
        loss = criterion(WordStates(free, {}), teacher, mask, mask.sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["orthonormal", "fixed", "reverse"])
def test_workers_that_count_the_whole_batch_add_up(name):
    criterion = criterion_of(name)
    criterion.calibrate(*words_of(300))
    ours, theirs = (as_batch(s, 4) for s in words_of(16, seed=1))

    def of(rows: slice) -> Tensor:
        parts = (WordStates({k: v[rows] for k, v in s.hidden.items()}, {}) for s in (ours, theirs))
        return criterion(*parts, MASK[rows], MASK.sum())

    torch.testing.assert_close(of(slice(0, 2)) + of(slice(2, 4)), of(slice(0, 4)))


@pytest.mark.parametrize(("ours", "theirs"), WIDTHS)
def test_rows_stay_orthonormal_while_the_projection_is_learnt(ours, theirs):
    criterion = criterion_of("orthonormal", ours, theirs)
    criterion.calibrate(*words_of(300, ours, theirs))
    student, teacher = (as_batch(s, 10) for s in words_of(60, ours, theirs, seed=1))
    mask = torch.ones(10, 6).bool()
    first = criterion.map_of(0)[0].detach().clone()
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        criterion(student, teacher, mask, mask.sum()).backward()
        optimizer.step()
    rows = criterion.map_of(0)[0].detach()
    assert rows.shape == (min(ours, theirs), ours)
    assert (rows - first).abs().max() > 0.01
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_a_projection_is_orthonormal_under_bf16_too():
    criterion = criterion_of("orthonormal")
    criterion.calibrate(*words_of(300))
    ours, theirs = (as_batch(s, 4) for s in words_of(16, seed=1))
    exact = criterion(ours, theirs, MASK, MASK.sum())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(criterion(ours, theirs, MASK, MASK.sum()), exact)


def test_only_the_student_moves_where_the_projection_is_fixed():
    for name in ("fixed", "reverse"):
        assert not list(criterion_of(name).parameters())


def test_a_fixed_projection_and_a_learnt_one_start_alike():
    sample, held_out = words_of(300), [as_batch(s, 4) for s in words_of(16, seed=1)]
    values = []
    for name in ("orthonormal", "fixed"):
        criterion = criterion_of(name)
        criterion.calibrate(*sample)
        values.append(criterion(*held_out, MASK, MASK.sum()))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", ["orthonormal", "fixed", "reverse"])
def test_a_student_that_is_the_rotated_teacher_is_at_its_goal(name):
    """Then the loss is zero at calibration, and with a narrower teacher nothing is left over."""
    generator = torch.Generator().manual_seed(0)
    teacher = {k: torch.randn(500, 6, generator=generator) for k in (3, 5)}
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    standard = {k: (v - v.mean(0)) / v.std(0) for k, v in teacher.items()}
    student = {
        s: standard[t] @ (torch.eye(6) if name == "reverse" else 3 * turn) + 1
        for s, t in ((1, 3), (2, 5))
    }
    criterion = criterion_of(name, 6, 6)
    sample = WordStates(student, {}), WordStates(teacher, {})
    criterion.calibrate(*sample)
    ours, theirs = (as_batch(s, 10) for s in sample)
    mask = torch.ones(10, 50).bool()
    assert criterion(ours, theirs, mask, mask.sum()) < 1e-4
    missed, there = criterion.explained(ours, theirs, mask)
    assert missed < 1e-4 * there
    weight, bias = criterion.projection(1)
    image = ours.hidden[1] @ weight.T + bias
    assert image.square().sum().item() == pytest.approx(float(there) / 2, rel=0.02)


def test_the_image_of_the_teacher_has_the_students_variance():
    criterion = criterion_of("reverse")
    ours, theirs = words_of(500)
    criterion.calibrate(ours, theirs)
    image = criterion.standardised(theirs)[0] @ criterion.images[0].T
    assert image.square().sum(1).mean().item() == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_goes_on_from_its_state(name):
    one, other = criterion_of(name), criterion_of(name)
    one.calibrate(*words_of(300))
    other.load_state_dict(one.state_dict())
    batch = [as_batch(s, 4) for s in words_of(16, seed=1)]
    torch.testing.assert_close(other(*batch, MASK, MASK.sum()), one(*batch, MASK, MASK.sum()))
