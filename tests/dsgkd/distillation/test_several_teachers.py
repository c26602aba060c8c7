"""Several teachers of one student, each with its own depth, width, mapping and share."""

from dataclasses import replace

import pytest
import torch
from distilling import distiller_of, losses_of
from transformers import AutoModelForSequenceClassification

from dsgkd.distillation.config import DistillationConfig, split_teachers
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.errors import InputError

BOTH = DistillationConfig("a+b", alpha=1.0, beta=1.0)


@pytest.fixture
def make_distiller(make_model):
    """A distiller whose criteria always start from the same weights."""

    def make(config, *teachers):
        student = make_model(auto_class=AutoModelForSequenceClassification)
        torch.manual_seed(0)
        return distiller_of(config, student, *(make_model(**sizes) for sizes in teachers))

    return make


WIDE = {"seed": 1, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6}
DEEP = {"seed": 2, "hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2}


def test_teachers_of_other_shapes_and_mappings_teach_one_student(make_distiller, make_batch):
    config = replace(BOTH, mapping="1:2,3:1; last-2+emb")
    distiller, teachers = make_distiller(config, WIDE, DEEP)
    batches = [make_batch((5, 3, 2), seed=seed, teachers=2) for seed in range(2)]
    distiller.calibrate(batches, teachers, 2000)
    ours, theirs = zip(distiller.requests(0), distiller.requests(1))
    assert [request.hidden_layers for request in ours] == [(1, 3), (0, 2, 3)]
    assert [request.hidden_layers for request in theirs] == [(2, 1), (0, 4, 5)]
    assert [request.attention_layers for request in theirs] == [(2, 1), (4, 5)]
    losses = losses_of(distiller, teachers, batches[0])
    assert list(losses) == ["ce", "hidden_1", "hidden_2", "attention_1", "attention_2"]
    query = distiller.student.bert.encoder.layer[2].attention.self.query.weight
    gradients = [
        torch.autograd.grad(losses[name], query, retain_graph=True)[0] for name in list(losses)[1:]
    ]
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert not torch.allclose(gradients[0], gradients[1])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.terms.parameters())
    for teacher in teachers:
        assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_each_teacher_speaks_of_the_words_that_it_shares_with_the_student(
    make_distiller, make_batch
):
    """Words and their numbers differ from teacher to teacher; each loss is that of it alone."""
    distiller, teachers = make_distiller(replace(BOTH, mapping="last-2"), WIDE, DEEP)
    one, two = make_batch((5, 3, 0)), make_batch((2, 0, 1), seed=1)
    together = losses_of(distiller, teachers, replace(one, pairs=(*one.pairs, *two.pairs)))
    for at, (sizes, pairs) in enumerate(((WIDE, one.pairs), (DEEP, two.pairs))):
        alone, teacher = make_distiller(DistillationConfig("a", beta=1.0, mapping="last-2"), sizes)
        criteria = [term.criterion for term in distiller.terms if term.teacher == at]
        for term, criterion in zip(alone.terms, criteria, strict=True):
            term.criterion = criterion
        losses = losses_of(alone, teacher, replace(one, pairs=pairs))
        for name in ("hidden", "attention"):
            torch.testing.assert_close(together[f"{name}_{at + 1}"], losses[name] / 2)


def test_shares_weigh_the_teachers(make_distiller, make_batch):
    batch = make_batch(teachers=2)

    def losses(teacher):
        distiller, teachers = make_distiller(replace(BOTH, teacher=teacher), WIDE, DEEP)
        return losses_of(distiller, teachers, batch)

    half, shares = losses("a+b"), losses("0.7*a+0.3*b")
    for kind in ("hidden", "attention"):
        torch.testing.assert_close(shares[f"{kind}_1"], 1.4 * half[f"{kind}_1"])
        torch.testing.assert_close(shares[f"{kind}_2"], 0.6 * half[f"{kind}_2"])


def test_the_same_teacher_twice_is_that_teacher_once(make_distiller, make_batch):
    single, (teacher,) = make_distiller(replace(BOTH, teacher="a"), WIDE)
    double, teachers = make_distiller(BOTH, WIDE, WIDE)
    sample = [make_batch((5, 4, 3), seed=seed) for seed in range(2)]

    def twice(batch):
        return replace(batch, pairs=batch.pairs * 2)

    single.calibrate(sample, [teacher], 20)
    double.calibrate(map(twice, sample), teachers, 20)
    one = losses_of(single, [teacher], sample[0])
    two = losses_of(double, teachers, twice(sample[0]))
    for kind in ("hidden", "attention"):
        torch.testing.assert_close(two[f"{kind}_1"] + two[f"{kind}_2"], one[kind])
    torch.testing.assert_close(sum(two.values()), sum(one.values()))
    sum(one.values()).backward()
    sum(two.values()).backward()
    for ours, other in zip(single.student.parameters(), double.student.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(other.grad, ours.grad, rtol=1e-4, atol=1e-6)


def test_calibration_reads_until_every_teacher_has_enough_words(make_distiller, make_batch):
    distiller, teachers = make_distiller(BOTH, WIDE, DEEP)
    wordy = [make_batch((3, 3), seed=seed) for seed in range(4)]
    sparse = [make_batch((1, 1), seed=seed + 9).pairs for seed in range(4)]
    batches = iter(replace(b, pairs=(*b.pairs, *pairs)) for b, pairs in zip(wordy, sparse))
    distiller.calibrate(batches, teachers, words=5)
    assert len(list(batches)) == 1
    first = distiller.terms[0].criterion
    states = teachers[0].word_states(wordy[0].pairs[0]).hidden[first.pairs[0][1]]
    # The first teacher's six words of the first batch were enough.
    torch.testing.assert_close(first.teacher_mean[0], states.flatten(0, 1).mean(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a", (("a", 1.0),)),
        ("0.2*a", (("a", 1.0),)),
        ("a+b", (("a", 0.5), ("b", 0.5))),
        ("0.7*a+0.3*b", (("a", 0.7), ("b", 0.3))),
        (" 3*x/y + corpus:z + .5*w-1.0 ", (("x/y", 6 / 9), ("corpus:z", 2 / 9), ("w-1.0", 1 / 9))),
    ],
)
def test_teachers_are_read_with_shares_that_add_up_to_one(text, expected):
    found = split_teachers(text)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [share for _, share in found] == pytest.approx([share for _, share in expected])


def test_a_path_may_hold_a_plus_sign(tmp_path):
    (tmp_path / "a+b").mkdir()
    path = str(tmp_path / "a+b")
    assert split_teachers(path) == ((path, 1.0),)
    assert split_teachers(f"corpus:{path}") == ((f"corpus:{path}", 1.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a+", "teacher: 'a\\+' cannot be read: write a\\+b or 0.7\\*a\\+0.3\\*b"),
        ("+", "teacher: .* cannot be read"),
        ("a+a", "teacher: 'a\\+a' cannot be used: give different ones, with shares"),
        ("0*a+0*b", "teacher: .* cannot be used"),
        ("0.7*+b", "teacher: .* cannot be read"),
        ("-0.3*a+b", "teacher: .* cannot be read"),
    ],
)
def test_teachers_that_cannot_be_read_are_said_in_one_line(text, message):
    for read in (split_teachers, DistillationConfig):
        with pytest.raises(InputError, match=rf"^{message}[^\n]*$"):
            read(text)


def test_one_mapping_serves_all_teachers_or_each_has_its_own():
    uniform, last = LayerMapping.parse("uniform"), LayerMapping.parse("last-2")
    assert [c.mapping for c in BOTH.choices] == [uniform, uniform]
    assert [c.mapping for c in replace(BOTH, mapping="uniform;last-2").choices] == [uniform, last]
    with pytest.raises(InputError, match=r"^layer mapping: 3 for 2 teachers: give one, or one for"):
        replace(BOTH, mapping="uniform;last-2;last-1")
