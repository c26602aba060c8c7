from dataclasses import replace
from operator import itemgetter

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from dsgkd.distillation.distiller import DistillationConfig, Distiller
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.teachers.teacher import LiveTeacher
from dsgkd.errors import InputError
from dsgkd.models.attention import AttentionTap
from dsgkd.models.student import PaperClassifier
from dsgkd.storage.checkpoint import random_state

BOTH = DistillationConfig("teacher", alpha=1.0, beta=1.0)


@pytest.fixture
def make_pair(make_model):
    """A distiller and its teacher, of unequal widths, depths and numbers of heads."""

    def make(config: DistillationConfig = BOTH, **student_sizes):
        sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6}
        teacher = make_model(seed=1, **sizes).requires_grad_(False)
        student = make_model(auto_class=AutoModelForSequenceClassification, **student_sizes)
        depth = student.config.num_hidden_layers
        pairs = LayerMapping.parse(config.mapping).resolve(depth, 2)
        distiller = Distiller(student, config, pairs, student.config.hidden_size, 48)
        return distiller, LiveTeacher(teacher, distiller.teacher_request)

    return make


def losses_of(distiller, teacher, batch, examples=None, words=None):
    return distiller(
        batch,
        teacher.word_states(batch),
        len(batch.labels) if examples is None else examples,
        batch.word_mask.sum() if words is None else words,
    )


def gradients(module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_the_classification_term_is_the_cross_entropy_of_the_students_logits(make_pair, make_batch):
    distiller, teacher = make_pair()
    batch = make_batch()
    side = batch.student
    logits = distiller.student(side.input_ids, attention_mask=side.attention_mask).logits
    losses = losses_of(distiller, teacher, batch)
    torch.testing.assert_close(losses.classification, F.cross_entropy(logits, batch.labels))
    assert losses.hidden > 0
    assert losses.attention > 0


@pytest.mark.parametrize("mapping", ["uniform", "uniform+emb", "last-1", "1:2,3:2"])
def test_models_of_unequal_widths_depths_and_heads_can_be_paired(mapping, make_pair, make_batch):
    distiller, teacher = make_pair(replace(BOTH, mapping=mapping))
    distiller.calibrate([make_batch()], teacher)
    sum(losses_of(distiller, teacher, make_batch())).backward()
    found = gradients(distiller)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert all(p.grad is not None for p in distiller.projections.parameters())
    assert found["student.bert.encoder.layer.0.attention.self.query.weight"].abs().max() > 0
    assert not gradients(teacher.model)


def test_weights_scale_their_term_and_zero_removes_it(make_pair, make_batch):
    batch = make_batch()

    def losses(**weights):
        torch.manual_seed(0)
        return losses_of(*make_pair(replace(BOTH, **weights)), batch)

    one = losses()
    torch.testing.assert_close(losses(alpha=3.0).hidden, 3 * one.hidden)
    torch.testing.assert_close(losses(beta=3.0).attention, 3 * one.attention)
    assert losses(alpha=0.0).hidden == 0
    assert losses(beta=0.0).attention == 0
    torch.testing.assert_close(losses(alpha=0.0).attention, one.attention)


@pytest.mark.parametrize("config", [replace(BOTH, alpha=0, beta=0), DistillationConfig()])
def test_nothing_to_transfer_needs_no_teacher_and_no_taps(
    config, make_pair, make_batch, monkeypatch
):
    monkeypatch.setattr(AttentionTap, "__enter__", None)
    distiller, teacher = make_pair(config)
    assert not distiller.distils
    assert not distiller.projections
    distiller.calibrate([], teacher)
    losses = distiller(replace(make_batch(), teacher=None), None, 3, 0)
    assert losses.classification > 0
    assert losses.hidden == losses.attention == 0


def test_texts_without_words_only_classify(make_pair, make_batch):
    distiller, teacher = make_pair()
    for words in ((0, 0), (3, 0)):
        batch = make_batch(words)
        batch = replace(batch, word_mask=torch.zeros_like(batch.word_mask))
        losses = losses_of(distiller, teacher, batch)
        assert losses.hidden.item() == losses.attention.item() == 0
        assert losses.classification > 0
        sum(losses).backward()
        assert all(gradient.isfinite().all() for gradient in gradients(distiller).values())


@pytest.mark.parametrize("head", ["standard", "paper"])
def test_an_empty_share_gives_zero_losses_and_zero_gradients_to_the_same_parameters(
    head, make_pair, make_batch
):
    distiller, teacher = make_pair()
    if head == "paper":
        distiller.student = PaperClassifier(distiller.student.base_model, 2, 0.1)
    batch = make_batch()
    empty = batch.each(itemgetter(slice(0)))
    if head == "standard":
        sum(losses_of(distiller, teacher, batch)).backward()
        expected = gradients(distiller).keys()
        distiller.zero_grad()
    else:
        expected = {n for n, _ in distiller.named_parameters() if "pooler" not in n}
    losses = losses_of(distiller, teacher, empty, examples=3, words=4)
    assert [loss.item() for loss in losses] == [0, 0, 0]
    sum(losses).backward()
    assert gradients(distiller).keys() >= expected
    assert all(gradient.eq(0).all() for gradient in gradients(distiller).values())


@pytest.mark.parametrize("form", ["standard", "paper"])
def test_two_workers_average_to_the_gradient_of_the_whole_batch(form, make_pair, make_batch):
    config = replace(BOTH, form=form, mapping="last-2", beta=1.0 if form == "standard" else 0.0)
    width = {"hidden_size": 48} if form == "paper" else {}
    distiller, teacher = make_pair(config, **width)
    batch = make_batch((3, 1, 0, 2, 4, 1))
    sum(losses_of(distiller, teacher, batch)).backward()
    whole = gradients(distiller)
    distiller.zero_grad()
    for rank in range(2):
        share = batch.each(itemgetter(slice(rank, None, 2)))
        (sum(losses_of(distiller, teacher, share, 6 / 2, 11 / 2)) / 2).backward()
    for name, gradient in gradients(distiller).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6)


def test_ridge_regression_starts_nearer_to_the_teacher_than_chance(make_pair, make_batch):
    distiller, teacher = make_pair()
    batches = [make_batch((5, 4, 3, 6), seed=seed) for seed in range(8)]

    def hidden():
        return sum(losses_of(distiller, teacher, batch).hidden.item() for batch in batches) / 8

    before = hidden()
    distiller.calibrate(batches, teacher)
    assert hidden() < 1 < before


def test_a_linear_relation_is_recovered_on_words_never_seen(stored_model, make_batch):
    linear = torch.nn.Linear(6, 10)
    hidden = torch.randn(2, 64, 24, 6)
    sample, fresh = (make_batch([5] * 64, seed=seed) for seed in (0, 1))

    def same_tokens(batch):  # for both models, or their words would be others
        return replace(batch, teacher=batch.student)

    student = stored_model(hidden)
    teacher = stored_model(linear(hidden).detach() * 7 + 3)
    distiller = Distiller(student, DistillationConfig("teacher"), ((1, 1),), 6, 10)
    live = LiveTeacher(teacher, distiller.teacher_request)
    distiller.calibrate([same_tokens(sample)], live)
    assert losses_of(distiller, live, same_tokens(fresh)).hidden < 1e-4


def test_the_teachers_states_are_standardised_on_the_words_of_the_sample(make_pair, make_batch):
    distiller, teacher = make_pair()
    batches = [make_batch((5, 4, 0, 6), seed=seed) for seed in range(3)]
    distiller.calibrate(batches, teacher)
    for i, (_, layer) in enumerate(distiller.pairs):
        states = torch.cat([teacher.word_states(b).hidden[layer][b.word_mask] for b in batches])
        states = (states - distiller.teacher_mean[i]) / distiller.teacher_scale[i]
        torch.testing.assert_close(states.mean(0), torch.zeros(48), rtol=0, atol=1e-4)
        torch.testing.assert_close(states.std(0), torch.ones(48), rtol=0, atol=1e-4)


def test_calibration_reads_no_more_batches_than_it_needs(make_pair, make_batch):
    distiller, teacher = make_pair(replace(BOTH, calibration_words=10))
    batches = iter([make_batch((3, 2), seed=seed) for seed in range(5)])
    distiller.calibrate(batches, teacher)
    assert len(list(batches)) == 3


@pytest.mark.parametrize("words", [[], [(0, 0)], [(1, 0)]])
def test_calibration_without_words_changes_nothing(words, make_pair, make_batch):
    distiller, teacher = make_pair()
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    distiller.calibrate([make_batch(counts) for counts in words], teacher)
    after = distiller.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("training", [True, False])
def test_calibration_leaves_the_mode_the_student_and_the_random_state(
    training, make_pair, make_batch
):
    distiller, teacher = make_pair()
    distiller.train(training)
    before, weights = random_state(), distiller.student.state_dict()
    weights = {name: value.clone() for name, value in weights.items()}
    distiller.calibrate([make_batch()], teacher)
    after = random_state()
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert {module.training for module in distiller.student.modules()} == {training}
    for name, value in distiller.student.state_dict().items():
        assert torch.equal(value, weights[name])


def test_projections_and_standardisation_travel_with_the_checkpoint(make_pair, make_batch):
    distiller, teacher = make_pair()
    distiller.calibrate([make_batch()], teacher)
    other, _ = make_pair()
    other.load_state_dict(distiller.state_dict())
    one, two = (losses_of(d, teacher, make_batch()).hidden for d in (distiller, other))
    assert torch.equal(one, two)


def test_a_layer_that_is_mapped_twice_is_read_once(make_pair):
    distiller, _ = make_pair(replace(BOTH, mapping="1:2,3:2+emb"))
    assert distiller.student_request.hidden_layers == (0, 1, 3)
    assert distiller.teacher_request.hidden_layers == (0, 2)
    assert distiller.teacher_request.attention_layers == (2,)
    assert len(distiller.projections) == 3


def test_losses_are_float32_under_bf16_autocast(make_pair, make_batch):
    distiller, teacher = make_pair()
    exact = losses_of(distiller, teacher, make_batch())
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(distiller, teacher, make_batch())
    for loss, expected in zip(losses, exact):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.02)


def test_the_paper_form_has_no_projection_and_needs_equal_widths(make_pair):
    paper = replace(BOTH, form="paper", mapping="last-2")
    assert not make_pair(paper, hidden_size=48)[0].projections
    with pytest.raises(InputError, match="student width 32 and teacher width 48 differ"):
        make_pair(paper)


def test_only_the_paper_form_drops_out_attention_and_compares_positions(make_pair):
    paper, _ = make_pair(replace(BOTH, form="paper", mapping="last-2"), hidden_size=48)
    standard, _ = make_pair()
    assert paper.student_request.attention_dropout
    assert not paper.teacher_request.attention_dropout
    assert not standard.student_request.attention_dropout
    assert paper.student_request.columns == paper.teacher_request.columns == "positions"
    assert standard.student_request.columns == standard.teacher_request.columns == "words"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": -0.1}, "alpha: -0.1 is negative: give 0 or more"),
        ({"alpha": float("nan")}, "alpha"),
        ({"beta": -1}, "beta: -1 is negative"),
        ({"cs_max_len": 0}, "cs_max_len: 0 is no count"),
        ({"mapping": "some"}, "layer mapping: 'some' not understood"),
    ],
)
def test_settings_that_make_no_sense_are_a_users_error(setting, message):
    with pytest.raises(InputError, match=message):
        DistillationConfig("teacher", **setting)
