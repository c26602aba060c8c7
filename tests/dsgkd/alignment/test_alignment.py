from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from dsgkd.alignment.alignment import Alignment
from dsgkd.alignment.texts import UNLABELLED, EncodedTexts
from dsgkd.alignment.view import View, encode
from dsgkd.alignment.words import WordRule, find_words

RULE = WordRule()


def per_text(ragged) -> list[list]:
    return [row.tolist() for row in ragged]


def same(one: Alignment, other: Alignment) -> bool:
    words = per_text(one.words) == per_text(other.words)
    return words and one.unknown.tolist() == other.unknown.tolist()


@pytest.fixture(scope="module")
def texts(make_notes, tokenizers, samples, tmp_path_factory) -> EncodedTexts:
    """Six texts, for two teachers."""
    notes = make_notes(samples * 2, ["train", "test", "test", "train", "validation", "train"])
    kinds = ["wordpiece", "Unigram, always", "byte-level BPE, trimmed"]
    student, *teachers = (tokenizers[kind] for kind in kinds)
    return EncodedTexts.of(notes, student, teachers, 40, RULE, tmp_path_factory.mktemp("cache"))


def test_words_are_those_that_both_models_have_whole(texts, tokenizers, samples):
    for teacher, kind in enumerate(["Unigram, always", "byte-level BPE, trimmed"]):
        sides = [
            encode(samples, tokenizers["wordpiece"], 40, RULE),
            encode(samples, tokenizers[kind], 40, RULE, separate=True),
        ]
        words = texts.alignments[teacher].words
        for row in range(len(samples)):
            columns = [
                side[c].to_pylist()[row] for side in sides for c in ("word_start", "word_end")
            ]
            expected = [list(span) for span in zip(*columns) if min(span) >= 0]
            assert [word[:4] for word in per_text(words)[row]] == expected
        found = [len(find_words(text, RULE)) for text in samples * 2]
        assert texts.student.found.lengths.tolist() == found
    assert 0 < words.lengths.sum() < sum(found)


def test_a_words_position_is_that_among_the_words_of_the_teacher(texts):
    for view, alignment in zip(texts.teachers, texts.alignments):
        for known, words in zip(per_text(view.words), per_text(alignment.words)):
            assert [known[word[4]] for word in words] == [word[2:4] for word in words]


def test_only_the_teacher_reads_words_apart_from_their_particles(
    make_notes, korean, english, tmp_path
):
    text = "환아vomiting으로"
    texts = EncodedTexts.of(make_notes([text]), korean, [english], 16, RULE, tmp_path)
    assert texts.student.tokens.flat().tolist() == korean(text)["input_ids"]
    assert korean.tokenize(text) == ["환", "##아", "##vomit", "##ing", "##으", "##로"]
    assert texts.teachers[0].tokens.flat().tolist() == english("환아 vomiting 으로")["input_ids"]
    assert english.tokenize("환아 vomiting 으로") == ["[UNK]", "vomit", "##ing", "[UNK]"]
    assert texts.alignments[0].words.flat().tolist() == [[3, 5, 2, 4, 0]]


def test_words_unknown_to_a_side_are_lost_and_counted_once(make_notes, korean, english, tmp_path):
    notes = make_notes(["fever qq fever환 fever", "환아", "vomiting환 qq"], ["a", "a", "b"])
    texts = EncodedTexts.of(notes, korean, [english], 16, RULE, tmp_path)
    (alignment,) = texts.alignments
    assert texts.student.found.lengths.tolist() == [4, 0, 2]
    assert alignment.unknown.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert alignment.words.lengths.tolist() == [2, 0, 0]
    assert alignment.words.flat()[:, 0].tolist() == [1, 4]
    assert alignment.words.flat()[:, 4].tolist() == [0, 2]  # the teacher has the one between
    assert texts.words_transferred(1).tolist() == [1, 0, 0]
    assert texts.split("b").alignments[0].unknown.tolist() == [[1, 1]]


def test_without_a_teacher_there_are_no_words_to_transfer(texts):
    alone = texts.alone()
    assert alone.teachers == alone.alignments == ()
    assert alone.words_transferred(32).tolist() == [0] * 6
    assert alone.student.found.lengths.sum() > 0


def test_a_split_has_its_rows_in_their_order(texts, tokenizers, samples):
    train = texts.split("train")
    assert train.example_ids.tolist() == ["e0", "e3", "e5"]
    assert train.labels.tolist() == [0, 1, 1]
    assert train.lengths.tolist() == texts.lengths[[0, 3, 5]].tolist()
    ids = encode(samples * 2, tokenizers["wordpiece"], 40, RULE)["input_ids"].to_pylist()
    assert train.student.tokens.flat().tolist() == list(chain(ids[0], ids[3], ids[5]))
    assert len(texts.split("nothing")) == 0


def test_views_and_alignments_keep_words_and_keys_of_the_texts_taken(texts):
    rows = np.array([5, 0, 0, 3])
    for view in (texts.student, *texts.teachers):
        known = view.words, view.keys  # computed, so that they are handed on
        fresh = replace(view).take(rows)
        for taken in (view.take(rows), fresh):
            assert per_text(taken.tokens) == [per_text(view.tokens)[row] for row in rows]
            assert per_text(taken.words) == [per_text(known[0])[row] for row in rows]
            assert taken.keys.tolist() == known[1][rows].tolist()
        assert len(set(known[1].tolist())) == 3  # each text is there twice
    for view, alignment in zip(texts.teachers, texts.alignments):
        again = Alignment.of(texts.student.take(rows), view.take(rows))
        assert same(alignment.take(rows), again)


def test_joined_texts_are_those_of_their_parts(texts):
    parts = [replace(texts.split(name), source_names=(name,)) for name in ("train", "test")]
    one = EncodedTexts.joined(parts)
    assert one.source_names == ("train", "test")
    assert one.sources.tolist() == [0, 0, 0, 1, 1]
    assert one.example_ids.tolist() == ["e0", "e3", "e5", "e1", "e2"]
    again = EncodedTexts.joined([one, parts[0]])
    assert [again.source_names[source] for source in again.sources] == [
        *("train", "train", "train", "test", "test", "train", "train", "train"),
    ]
    for at, view in enumerate(texts.teachers):
        assert one.teachers[at].keys.tolist() == view.keys[[0, 3, 5, 1, 2]].tolist()
        assert same(one.alignments[at], texts.alignments[at].take(np.array([0, 3, 5, 1, 2])))
    assert EncodedTexts.joined(parts[:1]) is parts[0]


def test_texts_to_predict_on_need_no_labels(tokenizers, samples):
    texts = EncodedTexts.of_view(View.once(samples, tokenizers["wordpiece"], 30, RULE))
    assert len(texts) == 3
    assert texts.labels.tolist() == [UNLABELLED] * 3
    assert texts.lengths.max() == 30


def test_blocks_of_one_length_have_no_words():
    view = View.of_blocks(np.arange(12).reshape(3, 4), pad=1)
    assert per_text(view.tokens) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (view.max_length, view.pad, view.words.lengths.tolist()) == (4, 1, [0, 0, 0])
