from dataclasses import replace
from itertools import chain

import pytest
import torch
from distilling import batches_of

from dsgkd.alignment.batch import Batch, Collator, evaluation_batches
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.alignment.words import WordRule


@pytest.fixture(scope="module")
def texts(make_notes, tokenizers, samples, tmp_path_factory) -> EncodedTexts:
    notes = [" ".join((samples[i % 3] + " fever").split()[: 1 + i % 13]) for i in range(61)]
    return EncodedTexts.of(
        make_notes(notes),
        tokenizers["wordpiece"],
        [tokenizers["byte-level BPE, trimmed"], tokenizers["Unigram, always"]],
        64,
        WordRule(),
        tmp_path_factory.mktemp("cache"),
    )


def order(batches) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


def evaluated(texts, size=8, most=0, **collation) -> list[Batch]:
    return list(evaluation_batches(texts, size, Collator(most, **collation)))


def sides(batch: Batch, texts: EncodedTexts):
    """Each model's side of a batch, and its view."""
    yield batch.student, texts.student
    yield from zip((pair.teacher for pair in batch.pairs), texts.teachers, strict=True)


def test_batches_hold_the_ids_labels_and_spans_of_their_rows(texts):
    for batch in batches_of(texts, most=3, seed=1, own_words=True):
        for place, row in enumerate(batch.rows.tolist()):
            assert batch.labels[place] == texts.labels[row]
            for side, view in sides(batch, texts):
                ids = list(view.tokens)[row].tolist()
                assert side.input_ids[place][: len(ids)].tolist() == ids
                assert (side.input_ids[place][len(ids) :] == 0).all()
                assert side.attention_mask[place].sum() == len(ids)
                assert side.attention_mask[place][: len(ids)].all()
            own = list(texts.student.words)[row][:3].tolist()
            assert batch.student.words.spans[place].tolist()[: len(own)] == own
            for pair, alignment, view in zip(batch.pairs, texts.alignments, texts.teachers):
                words = list(alignment.words)[row][:3]
                assert pair.keys[place] == view.keys[row]
                assert pair.mask[place].sum() == len(words)
                assert pair.mask[place][: len(words)].all()
                assert pair.positions[place][: len(words)].tolist() == words[:, 4].tolist()
                spans = (
                    (pair.student.spans, words[:, :2]),
                    (pair.teacher.words.spans, words[:, 2:4]),
                )
                for found, expected in spans:
                    assert found[place].tolist()[: len(words)] == expected.tolist()
                    assert not found[place][len(words) :].any()


def test_each_side_is_padded_to_its_own_multiple_of_eight(texts):
    shapes = set()
    for batch in batches_of(texts, seed=1):
        lengths = []
        for side, view in sides(batch, texts):
            longest = view.lengths[batch.rows.numpy()].max()
            lengths.append(side.input_ids.shape[1])
            assert lengths[-1] % 8 == 0
            assert longest <= lengths[-1] < longest + 8
            assert side.is_full == bool(side.attention_mask.all())
        shapes.add(tuple(lengths))
    assert any(len(set(lengths)) > 1 for lengths in shapes)


def test_sides_whose_positions_are_compared_have_one_length(texts):
    for batch in batches_of(texts, seed=1, same_length=True):
        lengths = {side.input_ids.shape[1] for side, _ in sides(batch, texts)}
        longest = max(v.lengths[batch.rows.numpy()].max() for _, v in sides(batch, texts))
        assert lengths == {-(-longest // 8) * 8} == {pair.length for pair in batch.pairs}


def test_padding_never_exceeds_max_length(make_notes, tokenizers, tmp_path):
    # A model may have exactly max_length positions, whatever multiple that is of.
    student, teacher = tokenizers["wordpiece"], tokenizers["Unigram, always"]
    notes = make_notes(["fever " * count for count in (1, 10, 40)])
    texts = EncodedTexts.of(notes, student, [teacher], 21, WordRule(), tmp_path)
    lengths = [
        [side.input_ids.shape[1] for side, _ in sides(batch, texts)]
        for batch in batches_of(texts, size=1)
    ]
    for side in zip(*lengths):
        assert (min(side), max(side)) == (8, 21)
    alone = EncodedTexts.of_view(View.once(["fever " * 40], student, 21, WordRule()))
    assert evaluated(alone)[0].student.input_ids.shape == (1, 21)


def test_pad_to_fixes_the_length_and_refuses_to_cut(texts):
    for batch in batches_of(texts, seed=1, pad_to=70):
        assert {side.input_ids.shape[1] for side, _ in sides(batch, texts)} == {70}
    with pytest.raises(ValueError, match="shorter than a text"):
        batches_of(texts, seed=1, pad_to=16)


def test_workers_share_each_batch_in_equal_shapes(texts):
    def of(**share) -> list[Batch]:
        return batches_of(texts, size=7, most=4, seed=1, own_words=True, **share)

    for batch, *parts in zip(of(), *(of(rank=rank, world_size=3) for rank in range(3))):
        rows = [part.rows.tolist() for part in parts]
        assert rows == [batch.rows.tolist()[rank::3] for rank in range(3)]
        shapes = []
        for one in (batch, *parts):
            found = []
            one.each(lambda tensor, found=found: found.append(tensor.shape[1:]) or tensor)
            shapes.append(found)
        assert all(shape == shapes[0] for shape in shapes)


def test_a_worker_may_get_an_empty_share(texts):
    shares = batches_of(texts, size=4, most=4, seed=1, rank=3, world_size=4)
    empty = [batch for batch in shares if not len(batch)]
    assert len(empty) == 1  # 61 texts leave one for the last batch of four
    assert empty[0].student.input_ids.shape[0] == 0
    assert empty[0].student.input_ids.shape[1] >= 8
    assert empty[0].pairs[0].mask.dtype == torch.bool


def test_without_words_the_word_tensors_have_width_zero(make_notes, tokenizers, tmp_path):
    notes, tokenizer = make_notes(["환아 기침", "콧물"]), tokenizers["wordpiece"]
    texts = EncodedTexts.of(notes, tokenizer, [tokenizer], 32, WordRule(), tmp_path)
    (batch,) = batches_of(texts)
    (pair,) = batch.pairs
    assert pair.mask.shape == (2, 0)
    assert pair.student.spans.shape == pair.teacher.words.spans.shape == (2, 0, 2)
    assert pair.mask.dtype == torch.bool


def test_a_stored_teachers_tokens_are_left_out(texts):
    whole = batches_of(texts, seed=1)
    for batch, other in zip(batches_of(texts, seed=1, teacher_tokens=(False, True)), whole):
        assert batch.pairs[0].teacher is None
        assert torch.equal(batch.pairs[0].keys, other.pairs[0].keys)
        assert torch.equal(batch.pairs[0].student.spans, other.pairs[0].student.spans)
        assert torch.equal(batch.pairs[1].teacher.input_ids, other.pairs[1].teacher.input_ids)


def test_no_texts_give_no_batches(texts):
    assert evaluated(texts.split("test")) == []
    assert batches_of(texts.split("test")) == []


def test_evaluation_takes_every_text_once_longest_first(texts):
    batches = evaluated(texts.alone())
    rows = list(chain(*order(batches)))
    assert sorted(rows) == list(range(61))
    lengths = texts.lengths[rows].tolist()
    assert lengths == sorted(lengths, reverse=True)
    assert all(not b.pairs and b.student.words.spans.shape[1] == 0 for b in batches)


def test_evaluation_is_shared_among_workers(texts):
    shares = [list(chain(*order(evaluated(texts, rank=r, world_size=2)))) for r in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(61))


def test_a_batch_moves_to_a_device_as_a_whole(texts):
    batch = batches_of(texts, own_words=True)[0]
    moved = []
    replace(batch.to("meta"), targets=batch.student).to("meta").each(
        lambda tensor: moved.append(tensor.is_meta) or tensor
    )
    # Rows, labels; ids, mask and words of each side, and of the targets; spans, positions, mask
    # and keys of each pair.
    assert moved == [True] * (2 + 2 * 3 + 2 * (3 + 4))
    assert evaluated(texts.alone())[0].to("meta").pairs == ()
