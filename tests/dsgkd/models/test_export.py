import errno
import json
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_heads import FirstToken
from transformers import BertTokenizerFast, PreTrainedTokenizerFast, RobertaTokenizerFast

from dsgkd.alignment.batch import Collator, evaluation_batches
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.alignment.words import WordRule
from dsgkd.errors import InputError, StorageError
from dsgkd.models import export
from dsgkd.models.export import StudentCard, load_student, pipeline, save_student
from dsgkd.models.names import HEADS
from dsgkd.models.student import Student, StudentConfig, needs_words, new_student
from dsgkd.models.taps import run_model

TEXTS = ["w5 w7 w33 w12", "w8 가 w9", "가 나", "w40 " * 60]
OTHERS = ["roberta", "electra", "distilbert", "modernbert", "deberta"]
FAMILIES = ["bert", *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS)]


def card(head: str, **changes) -> StudentCard:
    facts = {
        "label_names": ("경증", "중증", "unknown"),
        "head": head,
        "max_length": 48,
        "threshold": 0.31,
        "method": "distilled",
        "measures": {"auroc": 0.8},
        "words": WordRule("script", "Latin"),
        "max_transfer_words": 2,
    }
    return StudentCard(**facts | changes)


def ask(student, tokenizer, facts, texts=TEXTS):
    """Predict as the library does; [texts, classes]."""
    view = View.once(texts, tokenizer, facts.max_length, facts.words)
    collate = Collator(facts.max_transfer_words, own_words=needs_words(student))
    result = torch.zeros(len(texts), len(facts.label_names))
    with torch.inference_mode():
        for batch in evaluation_batches(EncodedTexts.of_view(view), 3, collate):
            result[batch.rows] = run_model(student, batch.student).logits.softmax(-1)
    return result


def scores(answers, facts):
    """What a pipeline answered with top_k=None; [texts, classes]."""
    rows = [{answer["label"]: answer["score"] for answer in row} for row in answers]
    return torch.tensor([[row[name] for name in facts.label_names] for row in rows])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_a_student_comes_back_as_it_was_saved_and_pipelines_agree(
    family, head, make_student, word_tokenizer, tmp_path
):
    student = make_student(head, family)
    save_student(tmp_path / "a", student, word_tokenizer, card(head))
    before = torch.get_rng_state()
    loaded, tokenizer, facts = load_student(tmp_path / "a", "dsgkd_plain")
    assert torch.equal(torch.get_rng_state(), before)
    assert facts == card(head)
    assert not loaded.training
    assert isinstance(loaded, Student) == (head != "cls")
    kept = loaded.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in student.state_dict().items())
    expected = ask(student, word_tokenizer, facts)
    # Where a tensor lies in memory may change the last bit of a product.
    torch.testing.assert_close(ask(loaded, tokenizer, facts), expected, rtol=1e-5, atol=1e-7)

    answers = [pipeline(tmp_path / "a", batch_size=3)(TEXTS, top_k=None)]
    if not needs_words(student):
        classify = transformers.pipeline("text-classification", str(tmp_path / "a"))
        answers.append(classify(TEXTS, top_k=None, truncation=True))
    for answer in answers:
        torch.testing.assert_close(scores(answer, facts), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["cls", "words"])
def test_our_pipeline_answers_as_that_of_transformers(head, make_student, word_tokenizer, tmp_path):
    student, facts = make_student(head), card(head)
    save_student(tmp_path / "a", student, word_tokenizer, facts)
    classify = pipeline(tmp_path / "a")
    expected = facts.label_names[ask(student, word_tokenizer, facts)[0].argmax()]
    assert [answer["label"] for answer in classify(TEXTS[0])] == [expected]
    assert [answer["label"] for answer in classify(TEXTS[0], top_k=1)] == [expected]
    assert len(classify(iter(TEXTS))) == len(TEXTS)
    assert classify.card.threshold == 0.31


def test_the_pipeline_of_transformers_says_that_a_head_has_to_be_told_of_words(
    make_student, word_tokenizer, tmp_path
):
    save_student(tmp_path / "a", make_student("words"), word_tokenizer, card("words"))
    classify = transformers.pipeline("text-classification", str(tmp_path / "a"))
    with pytest.raises(InputError, match=r"classify with .*dsgkd\.models\.export\.pipeline"):
        classify(TEXTS)


@pytest.mark.slow
def test_a_student_with_the_architectures_head_needs_no_dsgkd(
    make_student, word_tokenizer, tmp_path
):
    save_student(tmp_path / "a", make_student(), word_tokenizer, card("cls"))
    assert "dsgkd" not in (tmp_path / "a" / "config.json").read_text()
    code = (
        "import sys; from transformers import pipeline; "
        f"print(pipeline('text-classification', {str(tmp_path / 'a')!r})('w5 w7')[0]['label']); "
        "assert not any(name.startswith('dsgkd') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in card("cls").label_names


def _with_vocabulary(kind: str) -> PreTrainedTokenizerFast:
    names = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    }[kind]
    vocabulary = {name: n for n, name in enumerate([*names, *(f"w{n}" for n in range(5, 60))])}
    if kind == "bert":
        return BertTokenizerFast(vocab=vocabulary)
    pieces = [*names, *"0123456789w", "Ġ"]
    return RobertaTokenizerFast(vocab={name: n for n, name in enumerate(pieces)}, merges=[])


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("head", ["mean", "words"])
def test_tokenizers_of_architectures_come_back_too(kind, head, make_student, tmp_path):
    tokenizer, student, facts = _with_vocabulary(kind), make_student(head, kind), card(head)
    save_student(tmp_path / "a", student, tokenizer, facts)
    expected = ask(student, tokenizer, facts)
    answers = pipeline(tmp_path / "a", batch_size=2)(TEXTS, top_k=None)
    torch.testing.assert_close(scores(answers, facts), expected, rtol=1e-4, atol=1e-5)
    if head == "mean":
        classify = transformers.pipeline("text-classification", str(tmp_path / "a"))
        answers = classify(TEXTS, top_k=None, truncation=True)
        torch.testing.assert_close(scores(answers, facts), expected, rtol=1e-4, atol=1e-5)


def test_a_head_from_outside_the_package_is_saved_and_loaded(
    make_encoder, word_tokenizer, tmp_path
):
    name = f"{FirstToken.__module__}:FirstToken"
    student = new_student(StudentConfig(head=name), make_encoder(), 3, "dsgkd_plain").eval()
    save_student(tmp_path / "a", student, word_tokenizer, card(name))
    loaded, tokenizer, facts = load_student(tmp_path / "a", "dsgkd_plain")
    assert isinstance(loaded.head, FirstToken)
    assert not needs_words(loaded)
    assert torch.equal(ask(loaded, tokenizer, facts), ask(student, word_tokenizer, facts))


@pytest.mark.parametrize("head", ["cls", "words"])
def test_weights_whose_names_do_not_fit_are_refused_by_name(
    head, make_student, word_tokenizer, tmp_path
):
    save_student(tmp_path / "a", make_student(head), word_tokenizer, card(head))
    file = tmp_path / "a" / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if "encoder" not in name.split(".")[-4:])
    tensor = weights.pop(lost)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=f"lack tensors \\(1: {lost}"):
        load_student(tmp_path / "a", "dsgkd_plain")
    save_file({**weights, lost: tensor, "stranger": tensor.clone()}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"have unknown tensors \(1: stranger\)"):
        load_student(tmp_path / "a", "dsgkd_plain")


def test_a_folder_without_a_student_is_a_users_error(make_encoder, tmp_path):
    for folder in (make_encoder(), "none"):
        with pytest.raises(InputError, match=r"no dsgkd\.json in it, so no trained student"):
            load_student(tmp_path / folder, "dsgkd_plain")


@pytest.mark.parametrize(
    "file", ["dsgkd.json", "config.json", "tokenizer.json", "model.safetensors"]
)
@pytest.mark.parametrize("head", ["cls", "words"])
def test_a_damaged_student_is_a_users_error(head, file, make_student, word_tokenizer, tmp_path):
    save_student(tmp_path / "a", make_student(head), word_tokenizer, card(head))
    path = tmp_path / "a" / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"damaged|cannot be loaded") as caught:
        load_student(tmp_path / "a", "dsgkd_plain")
    assert "\n" not in str(caught.value)


def test_a_card_of_another_version_is_a_users_error(make_student, word_tokenizer, tmp_path):
    save_student(tmp_path / "a", make_student(), word_tokenizer, card("cls"))
    path = tmp_path / "a" / "dsgkd.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["words"]
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"damaged .*dsgkd\.json"):
        load_student(tmp_path / "a", "dsgkd_plain")


@pytest.mark.parametrize("head", ["cls", "mean"])
def test_after_a_full_disk_nothing_is_left_and_the_old_student_is_whole(
    head, make_student, word_tokenizer, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    student = make_student(head)
    out = tmp_path / "out"
    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(StorageError, match=r"no space left on the disk: .*another --out"):
        save_student(out / "a", student, word_tokenizer, card(head))
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    save_student(out / "a", student, word_tokenizer, card(head))
    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(StorageError):
        save_student(out / "a", make_student(head), word_tokenizer, card(head, threshold=0.9))
    assert load_student(out / "a", "dsgkd_plain")[2].threshold == 0.31
    assert [path.name for path in out.iterdir()] == ["a"]


def test_a_student_takes_the_place_of_an_earlier_one_and_of_nothing_else(
    make_student, word_tokenizer, tmp_path
):
    save_student(tmp_path / "a", make_student("mean"), word_tokenizer, card("mean"))
    save_student(tmp_path / "a", make_student("words"), word_tokenizer, card("words"))
    assert needs_words(load_student(tmp_path / "a", "dsgkd_plain")[0])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds files that are no student's"):
        save_student(tmp_path / "b", make_student(), word_tokenizer, card("cls"))
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("head", ["cls", "words"])
def test_saved_files_hold_no_text_and_no_path(head, make_student, word_tokenizer, tmp_path):
    student = make_student(head)
    ask(student, word_tokenizer, card(head))
    save_student(tmp_path / "a", student, word_tokenizer, card(head))
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "dsgkd.json",
    }
    for secret in (TEXTS[0], str(tmp_path)):
        assert not any(secret.encode() in path.read_bytes() for path in files)
    facts = json.loads((tmp_path / "a" / "dsgkd.json").read_text(encoding="utf-8"))
    assert facts.keys() == StudentCard.__dataclass_fields__.keys()


def test_saving_leaves_the_runs_own_tokenizer_as_it_is(make_student, word_tokenizer, tmp_path):
    before = word_tokenizer.model_max_length
    save_student(tmp_path / "a", make_student(), word_tokenizer, card("cls"))
    assert word_tokenizer.model_max_length == before
    assert load_student(tmp_path / "a", "dsgkd_plain")[1].model_max_length == 48


def test_the_module_is_named_where_people_look_for_it():
    assert export.__doc__ is not None
    assert all(head in export.__doc__ for head in HEADS)
