import subprocess
import sys
from copy import deepcopy
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import BertTokenizer, PreTrainedTokenizerFast

from dsgkd.alignment import view
from dsgkd.alignment._spans import Meaningless, script_spans
from dsgkd.alignment._tokens import at_spaces, before_spaces, cut_for, nowhere, tokenize
from dsgkd.alignment.view import encode, encoded, tokenizer_fingerprint
from dsgkd.alignment.words import WordRule, find_words, separated
from dsgkd.data.ragged import Ragged
from dsgkd.errors import InputError
from dsgkd.storage.stored_table import _read

KINDS = [
    "wordpiece",
    "wordpiece without [CLS]",
    "byte-level BPE, trimmed",
    "byte-level BPE, untrimmed",
    "SentencePiece BPE",
    "Unigram, always",
    "Unigram, never",
]
PIECES = [
    *(
        "fever",
        "Vomiting",
        "x-ray",
        "café",
        "cafe\u0301",
        "naïve",
        "V/S",
        "ﬁt",
        "Ｆever",
        "IV",
        "q",
    ),
    *("로", "환아", "漢", "\U0001f600", "㎎", "3", ".", ",", "(", "’", "\u0301", "\u200b", "[SEP]"),
    *(" ", " ", " ", "  ", "\n", "▁"),
]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=4)


def rows(table, column):
    return table[column].to_pylist()


def expected_spans(text, tokenizer, max_length):
    """The definition, word by word and token by token."""
    full = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    added = full["special_tokens_mask"]
    last = len(added) - 1 if added and added[-1] else len(added)
    beyond = min(max_length - (len(added) - last), last)
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    spans = []
    for start, end in find_words(text, WordRule()):
        inside = [
            number
            for number, (a, b) in enumerate(full["offset_mapping"])
            if not added[number] and a < end and b > start
        ]
        names = tokenizer.convert_ids_to_tokens(full["input_ids"])
        while inside and names[inside[0]] == "▁":
            inside.pop(0)
        good = inside and inside[-1] < beyond
        ids = {full["input_ids"][i] for i in inside}
        span = (inside[0], inside[-1] + 1) if good and not specials & ids else (-1, -1)
        spans.append((-2, -2) if span[0] >= 0 and tokenizer.unk_token_id in ids else span)
    return spans


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(texts=texts, max_length=st.integers(4, 40))
def test_spans_are_the_tokens_that_overlap_the_word_and_no_others(
    kind, texts, max_length, tokenizers
):
    tokenizer = tokenizers[kind]
    table = encode(texts, tokenizer, max_length, WordRule())
    assert table.num_rows == len(texts)
    for text, ids, starts, ends in zip(texts, *(rows(table, c) for c in table.column_names)):
        assert ids == tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        assert list(zip(starts, ends)) == expected_spans(text, tokenizer, max_length)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(texts=texts, max_length=st.integers(4, 40), rule=st.sampled_from(["script", "paper"]))
def test_spans_are_ordered_and_never_cover_a_special_token(
    kind, texts, max_length, rule, tokenizers
):
    tokenizer = tokenizers[kind]
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    table = encode(texts, tokenizer, max_length, WordRule(rule))
    for text, ids, starts, ends in zip(texts, *(rows(table, c) for c in table.column_names)):
        assert len(starts) == len(ends) == len(find_words(text, WordRule(rule)))
        inside = [(s, e) for s, e in zip(starts, ends) if s >= 0]
        assert all(0 <= s < e <= len(ids) for s, e in inside)
        assert all(a <= c and b <= d for (a, b), (c, d) in pairwise(inside))
        if rule == "script" or "[SEP]" not in text:
            assert not any(special & set(ids[s:e]) for s, e in inside)


@pytest.mark.parametrize("kind", KINDS)
def test_the_characters_of_a_span_include_the_whole_word(kind, tokenizers, samples):
    tokenizer = tokenizers[kind]
    table = encode(samples, tokenizer, 512, WordRule())
    for text, starts, ends in zip(samples, rows(table, "word_start"), rows(table, "word_end")):
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        for (start, end), first, last in zip(find_words(text, WordRule()), starts, ends):
            covered = text[offsets[first][0] : offsets[last - 1][1]]
            assert text[start:end] in covered
            assert covered.strip() == text[start:end] or "WordPiece" not in kind


@pytest.mark.parametrize("kind", ["Unigram, always", "SentencePiece BPE"])
def test_the_space_before_the_first_word_is_not_part_of_it(kind, tokenizers):
    tokenizer = tokenizers[kind]
    table = encode(["mite 환아"], tokenizer, 16, WordRule())
    first = rows(table, "word_start")[0][0]
    names = tokenizer.convert_ids_to_tokens(rows(table, "input_ids")[0])
    assert names[first - 1] == "▁"
    assert names[first] != "▁"


def test_a_word_cut_by_the_limit_is_lost_and_one_that_just_fits_is_not(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    text = "환아 vomiting fever"
    whole = len(tokenizer(text)["input_ids"])
    fitting = encode([text], tokenizer, whole, WordRule())
    cut = encode([text], tokenizer, whole - 1, WordRule())
    assert rows(fitting, "word_end")[0][-1] == whole - 1
    assert rows(cut, "word_end")[0][-1] == -1
    assert rows(cut, "word_start")[0][0] == rows(fitting, "word_start")[0][0]


def test_under_the_paper_rule_a_word_cut_by_the_limit_keeps_its_beginning(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    text = "환아 stomatitis"
    whole = len(tokenizer(text)["input_ids"])
    table = encode([text], tokenizer, whole - 1, WordRule("paper"))
    (start,), (end,) = rows(table, "word_start")[0], rows(table, "word_end")[0]
    assert 0 < start < end == whole - 2
    assert rows(encode([text], tokenizer, whole - 1, WordRule()), "word_start") == [[-1]]


def test_without_cls_the_first_word_starts_at_zero(tokenizers):
    for rule in (WordRule("script"), WordRule("paper")):
        table = encode(["fever 환아"], tokenizers["wordpiece without [CLS]"], 16, rule)
        assert rows(table, "word_start")[0] == [0]


def test_a_token_that_stands_for_no_characters_hides_no_word():
    tokens = Ragged.of_lengths(np.array([5, 6, 7]), np.array([3]))
    offsets = np.array([[0, 2], [0, 0], [3, 5]])
    words = [find_words("ab cd", WordRule())]
    none = Meaningless([], [], [])
    spans = script_spans(["ab cd"], words, tokens, offsets, none)
    assert spans.values.tolist() == [[0, 2, 0], [2, 3, 0]]


def test_a_special_token_spelled_out_in_a_note_is_no_word(tokenizers):
    table = encode(["[SEP] fever"], tokenizers["wordpiece"], 32, WordRule())
    assert [start >= 0 for start in rows(table, "word_start")[0]] == [False, True]


def test_texts_without_words_and_no_texts_at_all_work(tokenizers):
    for rule, separate in product((WordRule("script"), WordRule("paper")), (False, True)):
        table = encode(["환아 3일", "", " "], tokenizers["wordpiece"], 16, rule, separate)
        assert rows(table, "word_start") == [[], [], []]
        assert encode([], tokenizers["wordpiece"], 16, rule, separate).num_rows == 0


# ------------------------------------------------------------- attached particles, unknown words


@pytest.mark.parametrize("text", ["vomiting으로 내원", "환아vomiting", "환vomiting으로"])
def test_a_word_with_a_particle_is_unknown_to_a_wordpiece_unless_separated(text, english):
    attached = encode([text], english, 16, WordRule())
    assert [rows(attached, c) for c in ("word_start", "word_end")] == [[[-2]], [[-2]]]
    table = encode([text], english, 16, WordRule(), separate=True)
    ((start,),), ((end,),) = rows(table, "word_start"), rows(table, "word_end")
    assert english.convert_ids_to_tokens(rows(table, "input_ids")[0][start:end]) == [
        "vomit",
        "##ing",
    ]


def test_separated_words_keep_their_number_and_order(english):
    text = "fever로 vomiting으로, 환아fever qq로"
    table = encode([text], english, 32, WordRule(), separate=True)
    (starts,), (ends,) = rows(table, "word_start"), rows(table, "word_end")
    ids = rows(table, "input_ids")[0]
    spelled = [english.convert_ids_to_tokens(ids[a:b]) for a, b in zip(starts, ends)]
    assert spelled[:3] == [["fever"], ["vomit", "##ing"], ["fever"]]
    assert (starts[3], ends[3]) == (-2, -2)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(texts=texts, max_length=st.integers(4, 40))
def test_a_separated_text_is_encoded_as_if_it_were_written_so(kind, texts, max_length, tokenizers):
    tokenizer = tokenizers[kind]
    table = encode(texts, tokenizer, max_length, WordRule(), separate=True)
    spaced = [separated(text, find_words(text, WordRule()))[0] for text in texts]
    assert table == encode(spaced, tokenizer, max_length, WordRule())
    found = [len(find_words(text, WordRule())) for text in texts]
    assert [len(starts) for starts in rows(table, "word_start")] == found


def test_the_paper_rule_knows_no_separation_and_no_unknown_words(english):
    texts = ["fever로 qq vomiting 환아"]
    plain = encode(texts, english, 16, WordRule("paper"))
    assert encode(texts, english, 16, WordRule("paper"), separate=True) == plain
    assert rows(plain, "word_start") == [[2, 3]]


def test_a_word_cut_by_the_limit_is_cut_off_even_if_it_is_unknown(english):
    table = encode(["fever fever qq"], english, 4, WordRule())
    assert rows(table, "word_start") == [[1, 2, -1]]


def test_a_tokeniser_without_an_unknown_token_knows_every_word(tokenizers):
    backend = tokenizers["byte-level BPE, trimmed"].backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    assert tokenizer.unk_token_id is None
    assert min(rows(encode(["qq로 fever"], tokenizer, 32, WordRule()), "word_start")[0]) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_100000_characters_is_truncated(kind, tokenizers):
    long = ["환아 fever " * 11_112, "x" * 100_001]
    for rule in (WordRule("script"), WordRule("paper")):
        table = encode(long, tokenizers[kind], 64, rule)
        lengths = [len(ids) for ids in rows(table, "input_ids")]
        assert lengths[0] == 64
        assert lengths[1] <= 64
        assert max(rows(table, "word_end")[0]) <= 64
        assert rows(table, "word_end")[0][-1] == -1


def test_texts_are_the_same_in_many_chunks_and_in_one(tokenizers, monkeypatch, samples):
    for rule in (WordRule("script"), WordRule("paper")):
        together = encode(samples * 3, tokenizers["wordpiece"], 24, rule)
        monkeypatch.setattr("dsgkd.alignment._tokens._CHUNK_CHARACTERS", 50)
        assert encode(samples * 3, tokenizers["wordpiece"], 24, rule) == together
        monkeypatch.undo()


CUTS = dict.fromkeys(KINDS, nowhere) | {
    "wordpiece": at_spaces,
    "wordpiece without [CLS]": at_spaces,
    "byte-level BPE, trimmed": before_spaces,
    "byte-level BPE, untrimmed": before_spaces,
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if CUTS[kind] is not nowhere])
@settings(max_examples=60, deadline=None)
@given(texts=texts, max_length=st.integers(4, 40), separate=st.booleans(), prefix=st.booleans())
def test_texts_are_the_same_in_pieces_and_whole(
    kind, texts, max_length, separate, prefix, tokenizers
):
    tokenizer = deepcopy(tokenizers[kind])
    if "BPE" in kind:
        tokenizer.backend_tokenizer.pre_tokenizer.add_prefix_space = prefix
    assert cut_for(tokenizer) is CUTS[kind]
    for rule in (WordRule("script"), WordRule("paper")):
        pieces = encode(texts, tokenizer, max_length, rule, separate)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view, "cut_for", lambda _: nowhere)
            assert encode(texts, tokenizer, max_length, rule, separate) == pieces


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_cut_only_where_nothing_reaches_over_the_cut(kind, tokenizers):
    assert cut_for(tokenizers[kind]) is CUTS[kind]
    for added in ("blood pressure", AddedToken("fever", rstrip=True)):
        tokenizer = deepcopy(tokenizers[kind])
        tokenizer.add_tokens([added])
        assert cut_for(tokenizer) is nowhere


def test_truncation_and_padding_of_the_last_call_do_not_linger(tokenizers, samples):
    tokenizer = tokenizers["wordpiece"]
    for rule in (WordRule("script"), WordRule("paper")):
        expected = encode(samples, tokenizer, 64, rule)
        tokenizer(samples, truncation=True, max_length=3, padding="max_length")
        assert tokenize(samples, tokenizer)[0].lengths.min() > 3
        assert encode(samples, tokenizer, 64, rule) == expected


def test_a_tokeniser_that_is_not_fast_is_an_input_error(tokenizers, monkeypatch):
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", property(lambda self: False))
    with pytest.raises(InputError, match="not a fast tokeniser"):
        encode(["a"], tokenizers["wordpiece"], 16, WordRule())


def test_a_length_that_leaves_no_room_for_text_is_an_input_error(tokenizers):
    with pytest.raises(InputError, match="use at least 3"):
        encode(["a"], tokenizers["wordpiece"], 2, WordRule())


def test_the_fingerprint_follows_the_tokeniser_and_not_its_last_call(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    before = tokenizer_fingerprint(tokenizer)
    tokenizer("a b c", truncation=True, max_length=3, padding="max_length")
    assert tokenizer_fingerprint(tokenizer) == before
    assert len({tokenizer_fingerprint(t) for t in tokenizers.values()}) == len(tokenizers)


def test_lower_case_is_part_of_the_fingerprint(golden):
    vocab = golden / "tokenizers" / "student" / "vocab.txt"
    plain, lower = (BertTokenizer(vocab=str(vocab), do_lower_case=flag) for flag in (False, True))
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(lower)


# ------------------------------------------------------------------------------------ the store


def only_file(cache: Path) -> Path:
    (file,) = (cache / "encodings").iterdir()
    return file


def test_notes_are_tokenised_once(make_notes, tokenizers, tmp_path, monkeypatch, samples):
    notes, tokenizer = make_notes(samples), tokenizers["wordpiece"]
    first = encoded(notes, tokenizer, 24, WordRule(), tmp_path)
    monkeypatch.setattr(view, "encode", lambda *_: pytest.fail("tokenised again"))
    assert encoded(notes, tokenizer, 24, WordRule(), tmp_path) == first
    assert only_file(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "changed",
    [
        {"fingerprint": "other"},
        {"kind": "Unigram, always"},
        {"max_length": 25},
        {"rule": WordRule("paper")},
        {"rule": WordRule(script="Hangul")},
        {"separate": True},
    ],
)
def test_whatever_changes_the_result_changes_the_file(
    changed, make_notes, tokenizers, tmp_path, samples
):
    usual = {"fingerprint": "one", "kind": "wordpiece", "max_length": 24, "rule": WordRule()}
    usual["separate"] = False
    for options in (usual, usual | changed):
        notes = make_notes(samples, fingerprint=options["fingerprint"])
        kind, length, rule = options["kind"], options["max_length"], options["rule"]
        encoded(notes, tokenizers[kind], length, rule, tmp_path, options["separate"])
    assert len(list((tmp_path / "encodings").iterdir())) == 2


def test_under_the_paper_rule_both_ways_to_read_share_a_file(
    make_notes, tokenizers, tmp_path, samples
):
    for separate in (False, True):
        notes, rule = make_notes(samples), WordRule("paper")
        encoded(notes, tokenizers["wordpiece"], 24, rule, tmp_path, separate)
    only_file(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "text"])
def test_a_damaged_file_is_built_anew(damage, make_notes, tokenizers, tmp_path, samples):
    notes, tokenizer = make_notes(samples), tokenizers["wordpiece"]
    expected = encode(samples, tokenizer, 24, WordRule())
    encoded(notes, tokenizer, 24, WordRule(), tmp_path)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    broken = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "noise": whole[:-400] + bytes(200) + whole[-200:],
        "text": b"not an arrow file",
    }[damage]
    file.write_bytes(broken)
    table = encoded(notes, tokenizer, 24, WordRule(), tmp_path)
    assert table.replace_schema_metadata(None) == expected
    assert file.read_bytes() == whole


def test_no_flipped_byte_changes_what_is_read(make_notes, tokenizers, tmp_path, samples):
    encoded(make_notes(samples), tokenizers["wordpiece"], 24, WordRule(), tmp_path)
    file = only_file(tmp_path)
    whole, expected = file.read_bytes(), _read(file)
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        table = _read(file)
        assert table is None or table.to_pylist() == expected.to_pylist()


BUILDER = """
import sys, time, pathlib, pyarrow as pa
from dsgkd.storage.stored_table import stored_table

def build():
    time.sleep(0.3)
    return pa.table({"input_ids": pa.array([[1, 2], []], pa.list_(pa.int32()))})

assert stored_table(pathlib.Path(sys.argv[1]), build).num_rows == 2
"""


@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path):
    file = tmp_path / "encodings" / "one.arrow"
    command = [sys.executable, "-c", BUILDER, str(file)]
    builders = [subprocess.Popen(command) for _ in range(2)]
    assert [builder.wait(60) for builder in builders] == [0, 0]
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_is_an_input_error_and_leaves_nothing(
    make_notes, tokenizers, tmp_path, monkeypatch, samples
):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsgkd.storage.atomic.os.fsync", full)
    with pytest.raises(InputError, match="no space left on the disk"):
        encoded(make_notes(samples), tokenizers["wordpiece"], 24, WordRule(), tmp_path)
    assert list((tmp_path / "encodings").iterdir()) == []


def test_words_are_named_by_their_tokens_alone(korean):
    texts = ["fever 환아 vomiting", "환, fever fever", "환아"]
    whole = view.View.once(texts, korean, 16, WordRule())
    first, second, third = (names.tolist() for names in whole.word_names)
    assert [len(first), len(second), len(third)] == [2, 2, 0]
    assert first[0] == second[0] == second[1] != first[1]
    taken = whole.take(np.array([1, 0]))
    assert [names.tolist() for names in taken.word_names] == [second, first]
    alone = view.View.once(texts[1:], korean, 16, WordRule()).take(np.array([0]))
    assert alone.word_names.flat().tolist() == second
