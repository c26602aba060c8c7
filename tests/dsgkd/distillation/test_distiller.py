import math
from dataclasses import replace
from operator import itemgetter

import pytest
import torch
import torch.nn.functional as F
from distilling import distiller_of, losses_of
from transformers import AutoModelForSequenceClassification

from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.distiller import (
    LEAST_SCALE,
    Distiller,
    relative_scales,
    teacher_request,
)
from dsgkd.errors import InputError
from dsgkd.models.attention import AttentionTap
from dsgkd.models.heads import find_head
from dsgkd.models.randomness import random_state
from dsgkd.models.student import Student
from dsgkd.tasks import Classification

BOTH = DistillationConfig("teacher", alpha=1.0, beta=1.0)
PAPER = replace(BOTH, hidden="paper_hidden", attention="paper_attention", mapping="last-2")
WORDS = 2000


@pytest.fixture
def make_pair(make_model):
    """A distiller and its teacher, of unequal widths, depths and numbers of heads."""

    def make(config: DistillationConfig = BOTH, **student_sizes):
        sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6}
        teacher = make_model(seed=1, **sizes).requires_grad_(False)
        student = make_model(auto_class=AutoModelForSequenceClassification, **student_sizes)
        return distiller_of(config, student, *[teacher] * bool(config.teacher))

    return make


def gradients(module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_the_classification_term_is_the_cross_entropy_of_the_students_logits(make_pair, make_batch):
    distiller, teachers = make_pair()
    batch = make_batch()
    side = batch.student
    logits = distiller.student(side.input_ids, attention_mask=side.attention_mask).logits
    losses = losses_of(distiller, teachers, batch)
    torch.testing.assert_close(losses["ce"], F.cross_entropy(logits, batch.labels))
    assert losses["hidden"] > 0
    assert losses["attention"] > 0


@pytest.mark.parametrize("mapping", ["uniform", "uniform+emb", "last-1", "1:2,3:2"])
def test_models_of_unequal_widths_depths_and_heads_can_be_paired(mapping, make_pair, make_batch):
    distiller, teachers = make_pair(replace(BOTH, mapping=mapping))
    distiller.calibrate([make_batch()], teachers, WORDS)
    sum(losses_of(distiller, teachers, make_batch()).values()).backward()
    found = gradients(distiller)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert all(p.grad is not None for p in distiller.terms[0].parameters())
    assert found["student.bert.encoder.layer.0.attention.self.query.weight"].abs().max() > 0
    assert not gradients(teachers[0].model)


def test_weights_scale_their_term_and_zero_removes_it(make_pair, make_batch):
    batch = make_batch()

    def losses(**weights):
        torch.manual_seed(0)
        return losses_of(*make_pair(replace(BOTH, **weights)), batch)

    one = losses()
    assert list(one) == ["ce", "hidden", "attention"]
    torch.testing.assert_close(losses(alpha=3.0)["hidden"], 3 * one["hidden"])
    torch.testing.assert_close(losses(beta=3.0)["attention"], 3 * one["attention"])
    assert list(losses(beta=0.0)) == ["ce", "hidden"]
    assert list(losses(alpha=0.0)) == ["ce", "attention"]
    torch.testing.assert_close(losses(alpha=0.0)["attention"], one["attention"])


def test_the_raw_losses_are_those_without_weights(make_pair, make_batch):
    distiller, (teacher,) = make_pair(replace(BOTH, alpha=3.0, beta=0.5))
    batch = make_batch()
    losses = distiller(batch, [teacher.word_states(batch.pairs[0])], 3, [4.0])
    torch.testing.assert_close(losses.weighted, losses.raw * torch.tensor([1, 3, 0.5]))
    assert not losses.raw.requires_grad


@pytest.mark.parametrize(
    ("norms", "weights", "scales"),
    [
        ([2.0, 4.0, 0.5], [1.0, 1.0], [0.5, 4.0]),
        ([2.0, 12.0, 1.5], [3.0, 3.0], [0.5, 4.0]),  # measured with the weights
        ([2.0, 0.0, 1.0], [1.0, 0.0], [1.0, 1.0]),  # terms without a gradient, or a weight
        ([0.0, 4.0, 0.5], [1.0, 1.0], [1.0, 8.0]),  # no task
        ([0.0, 0.0, 0.5], [1.0, 1.0], [1.0, 1.0]),
        ([0.0, 0.0, 0.0], [1.0, 1.0], [1.0, 1.0]),
        ([1e-9, 4.0, 1e-9], [1.0, 1.0], [LEAST_SCALE, 1.0]),  # a task that is learnt already
        ([math.inf, math.nan, 2.0], [1.0, 1.0], [1.0, 1.0]),
    ],
)
def test_scales_make_gradients_as_large_as_the_tasks_or_leave_them(norms, weights, scales):
    assert relative_scales(norms, weights) == pytest.approx(scales)


def test_scales_multiply_the_weights_and_are_kept(make_pair, make_batch):
    distiller, teachers = make_pair(replace(BOTH, alpha=3.0))
    scaled = Distiller(distiller.student, distiller.task, distiller.terms, relative=True)
    raw = losses_of(distiller, teachers, make_batch())
    assert scaled.needs_scales
    assert not distiller.needs_scales
    scaled.set_scales([1.0, 6.0, 0.25])
    losses = losses_of(scaled, teachers, make_batch())
    torch.testing.assert_close(losses["hidden"], 0.5 * raw["hidden"])
    torch.testing.assert_close(losses["attention"], 4 * raw["attention"])
    assert scaled.weights == [1.5, 4.0]
    again = Distiller(distiller.student, distiller.task, distiller.terms, relative=True)
    again.load_state_dict(scaled.state_dict())
    assert (again.weights, again.needs_scales) == ([1.5, 4.0], False)


@pytest.mark.parametrize("config", [replace(BOTH, alpha=0.0, beta=0.0), DistillationConfig()])
def test_nothing_to_transfer_needs_no_teacher_and_no_taps(
    config, make_pair, make_batch, monkeypatch
):
    monkeypatch.setattr(AttentionTap, "read", None)
    distiller, teachers = make_pair(config)
    assert not config.distils
    assert distiller.teachers == len(distiller.terms) == 0
    distiller.calibrate([], teachers, WORDS)
    losses = losses_of(distiller, [], replace(make_batch(), pairs=()))
    assert list(losses) == ["ce"]
    assert losses["ce"] > 0


def test_texts_without_words_only_classify(make_pair, make_batch):
    distiller, teachers = make_pair()
    for words in ((0, 0), (3, 0)):
        batch = make_batch(words)
        (pair,) = batch.pairs
        batch = replace(batch, pairs=(replace(pair, mask=torch.zeros_like(pair.mask)),))
        losses = losses_of(distiller, teachers, batch)
        assert losses["hidden"].item() == losses["attention"].item() == 0
        assert losses["ce"] > 0
        sum(losses.values()).backward()
        assert all(gradient.isfinite().all() for gradient in gradients(distiller).values())


@pytest.mark.parametrize("head", ["cls", "paper", "words", "max"])
def test_an_empty_share_gives_zero_losses_and_zero_gradients_to_the_same_parameters(
    head, make_pair, make_batch
):
    distiller, teachers = make_pair()
    if head != "cls":
        distiller.student = Student(distiller.student.base_model, find_head(head)(32, 2, 0.1))
    batch = make_batch()
    empty = batch.each(itemgetter(slice(0)))
    sum(losses_of(distiller, teachers, batch).values()).backward()
    expected = gradients(distiller).keys()
    distiller.zero_grad()
    losses = losses_of(distiller, teachers, empty, examples=3, words=4)
    assert [loss.item() for loss in losses.values()] == [0, 0, 0]
    sum(losses.values()).backward()
    assert gradients(distiller).keys() == expected
    assert all(gradient.eq(0).all() for gradient in gradients(distiller).values())


@pytest.mark.parametrize("config", [replace(BOTH, mapping="last-2"), replace(PAPER, beta=0.0)])
def test_two_workers_average_to_the_gradient_of_the_whole_batch(config, make_pair, make_batch):
    width = {"hidden_size": 48} if config.hidden == "paper_hidden" else {}
    distiller, teachers = make_pair(config, **width)
    batch = make_batch((3, 1, 0, 2, 4, 1))
    sum(losses_of(distiller, teachers, batch).values()).backward()
    whole = gradients(distiller)
    distiller.zero_grad()
    for rank in range(2):
        share = batch.each(itemgetter(slice(rank, None, 2)))
        losses = losses_of(distiller, teachers, share, 6 / 2, 11 / 2)
        (sum(losses.values()) / 2).backward()
    for name, gradient in gradients(distiller).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6)


def test_ridge_regression_starts_nearer_to_the_teacher_than_chance(make_pair, make_batch):
    torch.manual_seed(0)  # of the projection before it is calibrated
    distiller, teachers = make_pair()
    batches = [make_batch((5, 4, 3, 6), seed=seed) for seed in range(8)]

    def hidden():
        return sum(losses_of(distiller, teachers, batch)["hidden"].item() for batch in batches) / 8

    before = hidden()
    distiller.calibrate(batches, teachers, WORDS)
    assert hidden() < 1 < before


def test_a_linear_relation_is_recovered_on_words_never_seen(stored_model, make_batch):
    linear = torch.nn.Linear(6, 10)
    hidden = torch.randn(2, 64, 24, 6)
    sample, fresh = (make_batch([5] * 64, seed=seed) for seed in (0, 1))

    def same_tokens(batch):  # for both models, or their words would be others
        (pair,) = batch.pairs
        return replace(batch, pairs=(replace(pair, teacher=batch.student),))

    student = stored_model(hidden)
    teacher = stored_model(linear(hidden).detach() * 7 + 3)
    distiller, teachers = distiller_of(DistillationConfig("teacher"), student, teacher)
    distiller.calibrate([same_tokens(sample)], teachers, WORDS)
    assert losses_of(distiller, teachers, same_tokens(fresh))["hidden"] < 1e-4


def test_the_teachers_states_are_standardised_on_the_words_of_the_sample(make_pair, make_batch):
    distiller, teachers = make_pair()
    batches = [make_batch((5, 4, 0, 6), seed=seed) for seed in range(3)]
    distiller.calibrate(batches, teachers, WORDS)
    criterion = distiller.terms[0].criterion
    said = [(teachers[0].word_states(b.pairs[0]).hidden, b.pairs[0].mask) for b in batches]
    for i, (_, layer) in enumerate(criterion.pairs):
        states = torch.cat([hidden[layer][mask] for hidden, mask in said])
        states = (states - criterion.teacher_mean[i]) / criterion.teacher_scale[i]
        torch.testing.assert_close(states.mean(0), torch.zeros(48), rtol=0, atol=1e-4)
        torch.testing.assert_close(states.std(0), torch.ones(48), rtol=0, atol=1e-4)


def test_calibration_reads_no_more_batches_than_it_needs(make_pair, make_batch):
    distiller, teachers = make_pair()
    batches = iter([make_batch((3, 2), seed=seed) for seed in range(5)])
    distiller.calibrate(batches, teachers, words=10)
    assert len(list(batches)) == 3


def test_without_anything_to_calibrate_no_batch_is_read(make_pair, make_batch):
    for config in (replace(BOTH, alpha=0.0), PAPER):
        distiller, teachers = make_pair(config, hidden_size=48, num_attention_heads=6)
        batches = iter([make_batch()])
        distiller.calibrate(batches, teachers, WORDS)
        assert len(list(batches)) == 1


@pytest.mark.parametrize("words", [[], [(0, 0)], [(1, 0)]])
def test_calibration_without_words_changes_nothing(words, make_pair, make_batch):
    distiller, teachers = make_pair()
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    distiller.calibrate([make_batch(counts) for counts in words], teachers, WORDS)
    after = distiller.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("training", [True, False])
def test_calibration_leaves_the_mode_the_student_and_the_random_state(
    training, make_pair, make_batch
):
    distiller, teachers = make_pair()
    distiller.train(training)
    before, weights = random_state(), distiller.student.state_dict()
    weights = {name: value.clone() for name, value in weights.items()}
    distiller.calibrate([make_batch()], teachers, WORDS)
    after = random_state()
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert {module.training for module in distiller.student.modules()} == {training}
    for name, value in distiller.student.state_dict().items():
        assert torch.equal(value, weights[name])


def test_projections_and_standardisation_travel_with_the_checkpoint(make_pair, make_batch):
    distiller, teachers = make_pair()
    distiller.calibrate([make_batch()], teachers, WORDS)
    other, _ = make_pair()
    other.load_state_dict(distiller.state_dict())
    one, two = (losses_of(d, teachers, make_batch())["hidden"] for d in (distiller, other))
    assert torch.equal(one, two)


def test_a_layer_that_is_mapped_twice_is_read_once(make_pair):
    config = replace(BOTH, mapping="1:2,3:2+emb")
    distiller, _ = make_pair(config)
    ours, theirs = distiller.requests(0)
    assert ours.hidden_layers == (0, 1, 3)
    assert theirs.hidden_layers == (0, 2)
    assert theirs.attention_layers == (2,)
    assert theirs == teacher_request(config, ((0, 0), (1, 2), (3, 2)))
    assert len(distiller.terms[0].criterion.projections) == 3


def test_losses_are_float32_under_bf16_autocast(make_pair, make_batch):
    distiller, teachers = make_pair()
    exact = losses_of(distiller, teachers, make_batch())
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(distiller, teachers, make_batch())
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.05, atol=0.02)


def test_the_criteria_of_the_paper_have_no_projection_and_need_equal_shapes(make_pair):
    same = {"hidden_size": 48, "num_attention_heads": 6}
    assert not list(make_pair(PAPER, **same)[0].terms.parameters())
    with pytest.raises(InputError, match="student width 32 and teacher width 48 differ"):
        make_pair(PAPER)
    with pytest.raises(InputError, match="student has 4 attention heads and teacher 6"):
        make_pair(PAPER, hidden_size=48)


def test_only_the_criteria_of_the_paper_drop_out_attention_and_compare_positions(make_pair):
    paper, _ = make_pair(PAPER, hidden_size=48, num_attention_heads=6)
    standard, _ = make_pair()
    ours, theirs = paper.requests(0)
    assert paper.same_length
    assert not standard.same_length
    assert ours.attention_dropout
    assert not theirs.attention_dropout
    assert not standard.requests(0)[0].attention_dropout
    assert ours.columns == theirs.columns == "positions"
    assert {request.columns for request in standard.requests(0)} == {"words"}


def test_attention_by_words_and_by_positions_cannot_be_read_at_once(make_pair):
    config = replace(PAPER, terms=("word_attention=1",))
    distiller, _ = make_pair(replace(config, beta=0.0), hidden_size=48, num_attention_heads=6)
    assert distiller.requests(0)[1].columns == "words"
    with pytest.raises(InputError, match="attention by words and by positions at once"):
        make_pair(config, hidden_size=48, num_attention_heads=6)


def test_a_student_without_dropout_stays_in_evaluation_mode(make_model):
    student = make_model(auto_class=AutoModelForSequenceClassification)
    for dropout in (True, False):
        distiller = Distiller(student, Classification(), dropout=dropout).train()
        assert distiller.training
        assert student.training == dropout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": -0.1}, "alpha: -0.1"),
        ({"alpha": float("nan")}, "alpha"),
        ({"beta": -1.0}, "beta: -1"),
        ({"max_transfer_words": 0}, "max_transfer_words: 0"),
        ({"calibration_words": 1}, "calibration_words: 1"),
        ({"mapping": "some"}, "layer mapping: 'some' not understood"),
    ],
)
def test_settings_that_make_no_sense_are_a_users_error(setting, message):
    with pytest.raises(InputError, match=message):
        DistillationConfig("teacher", **setting)
