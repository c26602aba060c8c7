import pytest
from transformers import AutoTokenizer, BertTokenizer

from dsgkd.alignment.coverage import Coverage, coverage
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.words import WordRule
from dsgkd.data.sources import DataConfig, read_notes

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fever", "vomiting", "cough", "Ξ")


def test_every_word_is_transferred_or_accounted_for(make_notes, tokenizers, tmp_path):
    texts = [
        "환아 기침",
        "fever 있어",
        "fever vomiting cough 함",
        "fever " + "기침 " * 40 + "cough",
        "zz로 Ξcough 환아zz",
    ]
    student = tokenizers["wordpiece"]
    teacher = BertTokenizer(vocab=dict(zip(VOCABULARY, range(9), strict=True)))
    notes = EncodedTexts.of(make_notes(texts), student, [teacher], 32, WordRule(), tmp_path)
    found = coverage(notes, max_words=2)
    assert (found.texts, found.texts_with_words) == (5, 3)
    assert (found.words_found, found.words) == (9, 4)
    assert (found.lost_to_alignment, found.beyond_the_most) == (1, 1)
    assert (found.unknown_to_teacher, found.unknown_to_student) == (2, 1)
    assert found.words_per_text == 0.8
    assert found.share_with_words == 0.6
    assert str(found) == (
        "4 of 9 words used (1 cut off, 2 unknown to teacher, 1 to student, 1 beyond 2 a text); "
        "0.8 a text, 60 % of texts"
    )


def test_the_line_leaves_out_what_is_not_lost_and_stays_short():
    usual = Coverage(400, 352, 1300, 1234, 41, 20, 0, 5, 32)
    assert str(usual) == (
        "1,234 of 1,300 words used (41 cut off, 20 unknown to teacher, 5 beyond 32 a text); "
        "3.1 a text, 88 % of texts"
    )
    assert len(str(usual)) <= 110
    assert "(3 unknown to student)" in str(Coverage(4, 4, 7, 4, 0, 0, 3, 0, 32))
    assert "(none lost)" in str(Coverage(4, 4, 7, 7, 0, 0, 0, 0, 32))


def test_an_empty_set_of_notes_has_no_coverage(make_notes, tokenizers, tmp_path):
    tokenizer = tokenizers["wordpiece"]
    notes = EncodedTexts.of(make_notes(["fever"]), tokenizer, [tokenizer], 32, WordRule(), tmp_path)
    assert coverage(notes, 32).words_per_text == 1
    assert coverage(notes.split("test"), 32).words_per_text == 0
    assert coverage(notes.split("test"), 32).share_with_words == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("kotech_cs", 0.85), ("twmed_cs", 0.85)])
def test_real_code_switched_notes_are_mostly_covered(name, least, real_data, golden, tmp_path):
    notes = read_notes(DataConfig(path=str(real_data / name / "data.parquet")), b"key")
    student, teacher = (
        AutoTokenizer.from_pretrained(golden / "tokenizers" / side)
        for side in ("student", "teacher")
    )
    encoded = EncodedTexts.of(notes, student, [teacher], 384, WordRule(), tmp_path)
    found = coverage(encoded.split("train"), max_words=32)
    assert found.share_with_words > least
    assert found.words > 0.85 * found.words_found
