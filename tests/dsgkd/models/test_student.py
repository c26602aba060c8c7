import pytest
import torch
from transformers import PreTrainedModel

from dsgkd.alignment.batch import Side, WordSpans
from dsgkd.alignment.words import WordRule
from dsgkd.errors import InputError
from dsgkd.models.export import StudentCard, save_student
from dsgkd.models.heads import PaperHead
from dsgkd.models.names import HEADS
from dsgkd.models.student import (
    Student,
    StudentConfig,
    encoder_of,
    needs_words,
    new_student,
)
from dsgkd.models.taps import run_model

FAMILIES = ["roberta", "electra", "distilbert", "modernbert", "deberta"]
CASES = [("bert", head) for head in HEADS]
CASES += [(family, head) for family in FAMILIES for head in ("cls", "words")]


@pytest.fixture
def side(make_batch):
    """Three texts of different length with three, one and no word."""
    return make_batch().student


def ask(student, side, **options):
    words = {"spans": side.words.spans} if needs_words(student) else {}
    return student(input_ids=side.input_ids, attention_mask=side.attention_mask, **words, **options)


@pytest.mark.parametrize(("family", "head"), CASES)
def test_every_family_can_be_a_student(family, head, make_student, side):
    student = make_student(head, family)
    output = ask(student, side, output_hidden_states=True)
    assert len(output.hidden_states) == 4
    assert ask(student, side).hidden_states is None
    assert output.logits.shape == (3, 3)
    assert (output.logits[0] - output.logits[1]).abs().max() > 1e-3
    encoder = encoder_of(student)
    assert isinstance(encoder, PreTrainedModel)
    assert not any("classifier" in name for name, _ in encoder.named_parameters())


@pytest.mark.parametrize(("family", "head"), CASES)
def test_every_trainable_weight_gets_a_gradient_under_autocast(family, head, make_student, side):
    student = make_student(head, family).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ask(student, side).logits.float().square().sum()
    loss.backward()
    idle = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.requires_grad)
    frozen = [n for n, p in student.named_parameters() if not p.requires_grad]
    assert all("pooler" in name for name in frozen)
    assert not frozen or head in ("mean", "max", "words", "projected")


@pytest.mark.parametrize(("family", "head"), CASES)
def test_padding_changes_nothing_and_a_full_batch_needs_no_mask(family, head, make_student, side):
    student = make_student(head, family)
    length = int(side.attention_mask[1].sum())
    words = WordSpans(side.words.spans[1:2])
    padded = Side(side.input_ids[1:2], side.attention_mask[1:2], words)
    full = Side(padded.input_ids[:, :length], padded.attention_mask[:, :length], words, True)
    one, other = (run_model(student, text).logits for text in (padded, full))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["words", "projected"])
def test_heads_that_look_at_words_are_told_of_them(head, make_student, side):
    told = [head for head in HEADS if needs_words(make_student(head))]
    assert told == ["words", "projected"]
    student = make_student(head)
    with pytest.raises(InputError, match="where the words are"):
        student(side.input_ids, side.attention_mask)
    moved = side.words.spans.roll(1, 0)
    one, other = (
        student(side.input_ids, side.attention_mask, spans=spans).logits
        for spans in (side.words.spans, moved)
    )
    assert not torch.allclose(one, other)


def test_the_papers_head_stands_on_the_pooler(make_student, side):
    student = make_student("paper")
    assert isinstance(student.head, PaperHead)
    inputs = {"input_ids": side.input_ids, "attention_mask": side.attention_mask}
    pooled = student.encoder(**inputs).pooler_output
    expected = student.head.output(torch.nn.functional.gelu(student.head.hidden(pooled)))
    torch.testing.assert_close(student(**inputs).logits, expected)


@pytest.mark.parametrize("head", HEADS)
def test_a_worker_without_texts_reaches_every_weight(head, make_student):
    nothing = torch.zeros(0, 8, dtype=torch.long)
    student = make_student(head)
    words = WordSpans(torch.zeros(0, 2, 2, dtype=torch.long))
    logits = run_model(student, Side(nothing, nothing, words)).logits
    logits[:0].sum().backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


@pytest.mark.parametrize("head", HEADS)
def test_a_new_head_is_drawn_from_the_current_random_state(head, make_encoder):
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        student = new_student(StudentConfig(head=head), make_encoder(), 3, "dsgkd_plain")
        drawn = [n for n, _ in student.named_parameters() if n.endswith("weight")]
        last = [n for n in drawn if n != "head.projection.weight"][-1]
        weights.append(student.get_parameter(last))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.fixture
def saved(make_student, word_tokenizer, tmp_path):
    """Save a student of the family and head; return it and its folder."""

    def save(head, family="bert"):
        student = make_student(head, family)
        card = StudentCard(("a", "b", "c"), head, 48, 0.5, "mlkd", {}, WordRule(), 32)
        save_student(tmp_path / "saved", student, word_tokenizer, card)
        return student, str(tmp_path / "saved")

    return save


@pytest.mark.parametrize("head", HEADS)
def test_a_saved_student_goes_on_with_its_trained_head(head, saved, side):
    student, folder = saved(head)
    going_on = new_student(StudentConfig(head=head, dropout=0.4), folder, 3, "dsgkd_plain").eval()
    torch.testing.assert_close(ask(going_on, side).logits, ask(student, side).logits)
    if isinstance(going_on, Student):
        assert going_on.head.dropout.p == 0.4


@pytest.mark.parametrize(("head", "classes"), [("paper", 3), ("words", 2)])
def test_another_head_on_a_saved_student_is_new_on_the_trained_encoder(head, classes, saved):
    student, folder = saved("words")
    other = new_student(StudentConfig(head=head), folder, classes, "dsgkd_plain")
    assert other.head.num_classes == classes
    for name, parameter in encoder_of(student).named_parameters():
        trained = encoder_of(other).get_parameter(name)
        assert torch.equal(trained, parameter)
        assert trained.requires_grad or (head == "words" and "pooler" in name)


def test_the_architectures_own_head_cannot_follow_another(saved):
    _, folder = saved("mean")
    with pytest.raises(InputError, match="choose the head 'mean'"):
        new_student(StudentConfig(), folder, 3, "dsgkd_plain")


def test_an_unknown_head_is_refused_before_anything_is_loaded():
    with pytest.raises(InputError, match="'average' unknown"):
        StudentConfig(head="average")
