import pytest

from dsgkd.text.coverage import coverage
from dsgkd.text.encoding import EncodedNotes
from dsgkd.text.sources import DataConfig, read_notes
from dsgkd.text.words import WordRule


def test_every_word_is_transferred_or_accounted_for(make_notes, tokenizers, tmp_path):
    texts = [
        "환아 기침",
        "fever 있어",
        "fever vomiting cough 함",
        "fever " + "기침 " * 40 + "cough",
    ]
    student, teacher = tokenizers["wordpiece"], tokenizers["Unigram, always"]
    notes = EncodedNotes.build(make_notes(texts), student, teacher, 32, WordRule(), tmp_path)
    found = coverage(notes, cs_max_len=2)
    assert (found.texts, found.texts_with_words) == (4, 3)
    assert (found.words_found, found.words) == (6, 4)
    assert (found.lost_to_alignment, found.lost_to_cs_max_len) == (1, 1)
    assert found.words_per_text == 1.0
    assert found.share_with_words == 0.75
    assert "4 of 6 words transferred" in str(found)
    assert "75.0% of 4 texts" in str(found)
    assert "\n" not in str(found)


def test_an_empty_set_of_notes_has_no_coverage(make_notes, tokenizers, tmp_path):
    notes = EncodedNotes.build(
        make_notes(["fever"]), tokenizers["wordpiece"], None, 32, WordRule(), tmp_path
    ).split("test")
    assert coverage(notes, 32).words_per_text == 0
    assert coverage(notes, 32).share_with_words == 0


@pytest.mark.parametrize(("name", "least"), [("kotech_cs", 0.85), ("twmed_cs", 0.85)])
def test_real_code_switched_notes_are_mostly_covered(name, least, real_data, tokenizers, tmp_path):
    notes = read_notes(DataConfig(path=str(real_data / name / "data.parquet")), b"key")
    encoded = EncodedNotes.build(
        notes, tokenizers["wordpiece"], tokenizers["Unigram, always"], 384, WordRule(), tmp_path
    )
    found = coverage(encoded.split("train"), cs_max_len=32)
    assert found.share_with_words > least
    assert found.words > 0.5 * found.words_found
