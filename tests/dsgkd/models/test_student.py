import errno
import json

import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, pipeline

from dsgkd.errors import InputError, StorageError
from dsgkd.models.student import (
    PaperClassifier,
    StudentCard,
    StudentConfig,
    encoder_of,
    load_student,
    new_student,
    probabilities,
    save_student,
)

TEXT = "w5 w7 w33 w12"


def card(head: str) -> StudentCard:
    return StudentCard(("경증", "중증", "unknown"), head, 48, 0.31, "distilled", {"auroc": 0.8})


@pytest.fixture
def encoder(tmp_path, make_model, word_tokenizer) -> str:
    make_model().save_pretrained(tmp_path / "encoder")
    word_tokenizer.save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.fixture
def make_student(encoder):
    def make(head="standard", reference=encoder):
        torch.manual_seed(0)
        student = new_student(StudentConfig(reference, head), reference, 3, "dsgkd_plain")
        with torch.no_grad():  # far enough from a tie
            for name, parameter in student.named_parameters():
                if "classifier" in name or name.startswith("head."):
                    parameter.mul_(20)
        return student.eval()

    return make


def ask(student, tokenizer):
    inputs = tokenizer([TEXT, "w8 w9", "w40"], padding=True, return_tensors="pt")
    return probabilities(student, inputs.input_ids, inputs.attention_mask)


@pytest.mark.parametrize("head", ["standard", "paper"])
def test_a_student_comes_back_as_it_was_saved(head, make_student, word_tokenizer, tmp_path):
    student = make_student(head)
    save_student(tmp_path / "a", student, word_tokenizer, card(head))
    loaded, tokenizer, facts = load_student(tmp_path / "a", "dsgkd_plain")
    assert facts == card(head)
    assert not loaded.training
    assert isinstance(loaded, PaperClassifier) == (head == "paper")
    assert torch.equal(ask(loaded, tokenizer), ask(student, word_tokenizer))


def test_the_pipeline_of_transformers_gives_the_label_of_a_standard_student(
    make_student, word_tokenizer, tmp_path
):
    student = make_student()
    save_student(tmp_path / "a", student, word_tokenizer, card("standard"))
    classify = pipeline("text-classification", str(tmp_path / "a"))
    (answer,) = classify([TEXT])
    probability = ask(student, word_tokenizer)[0]
    assert answer["label"] == card("standard").label_names[probability.argmax()]
    assert answer["score"] == pytest.approx(probability.max().item(), rel=1e-3)
    assert "dsgkd" not in (tmp_path / "a" / "config.json").read_text()


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "modernbert"])
@pytest.mark.parametrize("head", ["standard", "paper"])
def test_every_family_can_be_a_student(
    family, head, make_model, make_student, make_batch, tmp_path
):
    make_model(family).save_pretrained(tmp_path / family)
    student = make_student(head, str(tmp_path / family))
    side = make_batch().student
    probability = probabilities(student, side.input_ids, side.attention_mask)
    assert probability.shape == (3, 3)
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability.sum(1), torch.ones(3))
    assert isinstance(encoder_of(student), PreTrainedModel)
    assert not any("classifier" in name for name, _ in encoder_of(student).named_parameters())


def test_the_papers_head_is_two_layers_on_the_pooler(make_student, make_batch):
    student = make_student("paper")
    side = make_batch().student
    inputs = {"input_ids": side.input_ids, "attention_mask": side.attention_mask}
    _, first, _, _, second = student.head
    pooled = student.encoder(**inputs).pooler_output
    expected = second(torch.nn.functional.gelu(first(pooled)))
    torch.testing.assert_close(student(**inputs).logits, expected)
    assert first.weight.shape == (32, 32)
    assert student(**inputs).hidden_states is None
    assert len(student(**inputs, output_hidden_states=True).hidden_states) == 4


def test_no_texts_have_no_probabilities(make_student):
    nothing = torch.zeros(0, 8, dtype=torch.long)
    assert probabilities(make_student(), nothing, nothing).shape == (0, 3)


def test_a_new_head_is_drawn_from_the_current_random_state(make_student):
    one, two = make_student(), make_student()
    torch.manual_seed(1)
    other = new_student(StudentConfig(), encoder_of(one).name_or_path, 3, "dsgkd_plain")
    assert torch.equal(one.classifier.weight, two.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_folder_without_a_student_is_a_users_error(encoder, tmp_path):
    for folder in (encoder, "none"):
        with pytest.raises(InputError, match=r"no dsgkd\.json in it, so no trained student"):
            load_student(tmp_path / folder, "dsgkd_plain")


@pytest.mark.parametrize("file", ["dsgkd.json", "head.safetensors", "model.safetensors"])
def test_a_damaged_student_is_a_users_error(file, make_student, word_tokenizer, tmp_path):
    save_student(tmp_path / "a", make_student("paper"), word_tokenizer, card("paper"))
    path = tmp_path / "a" / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"damaged|cannot be loaded"):
        load_student(tmp_path / "a", "dsgkd_plain")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left")]
)
def test_a_full_disk_is_a_users_error(error, make_student, word_tokenizer, tmp_path, monkeypatch):
    def full(*_, **__):
        raise error

    student = make_student()
    monkeypatch.setattr(type(student), "save_pretrained", full)
    with pytest.raises(StorageError, match="choose another --out"):
        save_student(tmp_path / "a", student, word_tokenizer, card("standard"))
    assert not (tmp_path / "a" / "dsgkd.json").exists()


def test_saved_files_hold_no_text_that_the_student_read(make_student, word_tokenizer, tmp_path):
    student = make_student()
    ask(student, word_tokenizer)
    save_student(tmp_path / "a", student, word_tokenizer, card("standard"))
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "dsgkd.json",
    }
    assert not any(TEXT.encode() in path.read_bytes() for path in files)
    facts = json.loads((tmp_path / "a" / "dsgkd.json").read_text(encoding="utf-8"))
    assert facts.keys() == StudentCard.__dataclass_fields__.keys()
