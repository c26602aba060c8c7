from tiny_runs import KOREAN, MILD, SPECIAL, URGENT
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.words import WordRule
from dsgkd.data.config import DataConfig
from dsgkd.data.identity import id_key
from dsgkd.data.notes import read_notes
from dsgkd.study.console import Console
from dsgkd.study.preparation.prepare import prepare_notes, wrong_way_round


def encode_pair(notes_csv, tmp_path, student, teacher):
    notes = read_notes(DataConfig(path=str(notes_csv)), id_key(tmp_path))
    return EncodedTexts.of(notes, student, [teacher], 48, WordRule(), tmp_path)


def test_a_pair_of_equal_readers_is_not_the_wrong_way_round(notes_csv, tmp_path, tokenizer):
    notes = encode_pair(notes_csv, tmp_path, tokenizer, tokenizer)
    assert not wrong_way_round(notes, tokenizer.unk_token_id, tokenizer.unk_token_id)


def word_pieces(words):
    """Return a tokenizer that knows these words whole and everything else by its letters."""
    letters = {letter for word in KOREAN + URGENT + MILD + ["중증", "경증"] for letter in word}
    pieces = [*SPECIAL, *words, *sorted(letters), *(f"##{letter}" for letter in sorted(letters))]
    model = models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def test_a_student_that_reads_the_words_better_and_the_text_worse_is_noticed(notes_csv, tmp_path):
    korean, english = word_pieces(KOREAN), word_pieces(URGENT + MILD)
    right = encode_pair(notes_csv, tmp_path, korean, english)
    wrong = encode_pair(notes_csv, tmp_path, english, korean)
    unknown = korean.unk_token_id
    assert not wrong_way_round(right, unknown, unknown)
    assert wrong_way_round(wrong, unknown, unknown)


def test_preparing_says_what_is_transferred(make_config, zoo, tmp_path):
    run = make_config(teacher="teacher")
    lines = []
    prepare_notes(run, tmp_path, Console(lines.append))
    assert any("words used" in line for line in lines)
    assert not any("WARNING" in line for line in lines)
