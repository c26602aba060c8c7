from itertools import chain

import pytest
import torch

from dsgkd.alignment.batches import Batch, evaluation_batches, steps_per_epoch, training_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.alignment.words import WordRule


@pytest.fixture(scope="module")
def notes(make_notes, tokenizers, samples, tmp_path_factory) -> EncodedNotes:
    texts = [" ".join((samples[i % 3] + " fever").split()[: 1 + i % 13]) for i in range(61)]
    return EncodedNotes.build(
        make_notes(texts),
        tokenizers["wordpiece"],
        tokenizers["byte-level BPE, trimmed"],
        64,
        WordRule(),
        tmp_path_factory.mktemp("cache"),
    )


def order(batches) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


def assert_same(one: Batch, other: Batch) -> None:
    assert torch.equal(one.rows, other.rows)
    assert torch.equal(one.word_mask, other.word_mask)
    for a, b in ((one.student, other.student), (one.teacher, other.teacher)):
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.spans, b.spans)


def test_every_text_comes_once_in_an_epoch(notes):
    batches = order(training_batches(notes, 8, 32, seed=1, epoch=0))
    assert len(batches) == steps_per_epoch(61, 8) == 8
    assert sorted(chain(*batches)) == list(range(61))
    assert sorted(map(len, batches)) == [5] + [8] * 7


def test_the_order_is_a_pure_function_of_seed_and_epoch(notes):
    def of(seed, epoch):
        return order(training_batches(notes, 8, 32, seed=seed, epoch=epoch))

    assert of(1, 0) == of(1, 0)
    assert of(1, 0) != of(1, 1)
    assert of(1, 0) != of(2, 0)
    assert of(1, 2) != of(2, 1)


def test_the_order_is_the_same_on_every_machine(make_notes, tokenizers, tmp_path):
    # Written down, because a run is resumed and shared between machines by this order alone.
    alike = make_notes(["환아"] * 10)
    encoded = EncodedNotes.build(alike, tokenizers["wordpiece"], None, 8, WordRule(), tmp_path)
    batches = order(training_batches(encoded, 4, 32, seed=17, epoch=3))
    assert batches == [[5, 2, 6, 1], [9, 3], [0, 4, 7, 8]]


def test_batches_hold_the_ids_labels_and_spans_of_their_rows(notes):
    for batch in training_batches(notes, 8, 3, seed=1, epoch=0):
        for place, row in enumerate(batch.rows.tolist()):
            one = torch.tensor([row])
            assert batch.labels[place] == notes.labels[row]
            words = notes.words.take(one.numpy()).flat()[:3]
            assert batch.word_mask[place].sum() == len(words)
            assert batch.word_mask[place][: len(words)].all()
            columns = ((batch.student, notes.student, 0), (batch.teacher, notes.teacher, 2))
            for side, tokens, column in columns:
                ids = tokens.take(one.numpy()).flat().tolist()
                assert side.input_ids[place][: len(ids)].tolist() == ids
                assert (side.input_ids[place][len(ids) :] == 0).all()
                assert side.attention_mask[place].sum() == len(ids)
                assert side.attention_mask[place][: len(ids)].all()
                spans = side.spans[place].tolist()
                assert spans[: len(words)] == words[:, column : column + 2].tolist()
                assert all(span == [0, 0] for span in spans[len(words) :])


def test_each_side_is_padded_to_its_own_multiple_of_eight(notes):
    shapes = set()
    for batch in training_batches(notes, 8, 32, seed=1, epoch=0):
        for side, tokens in ((batch.student, notes.student), (batch.teacher, notes.teacher)):
            longest = tokens.lengths[batch.rows.numpy()].max()
            assert side.input_ids.shape[1] % 8 == 0
            assert longest <= side.input_ids.shape[1] < longest + 8
        shapes.add((batch.student.input_ids.shape[1], batch.teacher.input_ids.shape[1]))
    assert any(student != teacher for student, teacher in shapes)


def test_padding_never_exceeds_max_length(make_notes, tokenizers, tmp_path):
    # A model may have exactly max_length positions, whatever multiple that is of.
    both = tokenizers["wordpiece"], tokenizers["Unigram, always"]
    notes = make_notes(["fever " * count for count in (1, 10, 40)])
    encoded = EncodedNotes.build(notes, *both, 21, WordRule(), tmp_path)
    batches = list(training_batches(encoded, 1, 4, seed=0, epoch=0))
    for of in (lambda batch: batch.student, lambda batch: batch.teacher):
        assert max(of(batch).input_ids.shape[1] for batch in batches) == 21
        assert min(of(batch).input_ids.shape[1] for batch in batches) == 8
    alone = EncodedNotes.unlabelled(["fever " * 40], both[0], 21)
    assert next(evaluation_batches(alone, 4)).student.input_ids.shape == (1, 21)


def test_texts_of_like_length_come_together(notes):
    padded = sum(b.student.input_ids.numel() for b in training_batches(notes, 8, 32, 1, 0))
    # Rounding up to a multiple of 8 alone adds 3.5 tokens to a text.
    assert padded < notes.lengths.sum() + 61 * 7


def test_pad_to_fixes_the_length_and_refuses_to_cut(notes):
    for batch in training_batches(notes, 8, 32, seed=1, epoch=0, pad_to=70):
        assert batch.student.input_ids.shape[1] == batch.teacher.input_ids.shape[1] == 70
    with pytest.raises(ValueError, match="shorter than a text"):
        list(training_batches(notes, 8, 32, seed=1, epoch=0, pad_to=16))


def test_workers_share_each_batch_in_equal_shapes(notes):
    whole = list(training_batches(notes, 7, 4, seed=1, epoch=0))
    shares = [list(training_batches(notes, 7, 4, 1, 0, rank=r, world_size=3)) for r in range(3)]
    for batch, *parts in zip(whole, *shares):
        rows = [part.rows.tolist() for part in parts]
        assert rows == [batch.rows.tolist()[r::3] for r in range(3)]
        for part in parts:
            assert part.student.input_ids.shape[1:] == batch.student.input_ids.shape[1:]
            assert part.word_mask.shape[1:] == batch.word_mask.shape[1:]
            assert part.teacher.spans.shape[1:] == batch.teacher.spans.shape[1:]


def test_a_worker_may_get_an_empty_share(notes):
    empty = [
        batch
        for batch in training_batches(notes, 4, 4, 1, 0, rank=3, world_size=4)
        if not len(batch.rows)
    ]
    assert len(empty) == 1  # 61 texts leave one for the last batch of four
    assert empty[0].student.input_ids.shape[0] == 0
    assert empty[0].student.input_ids.shape[1] >= 8
    assert empty[0].word_mask.dtype == torch.bool


def test_a_start_skips_batches_and_changes_nothing_else(notes):
    whole = list(training_batches(notes, 8, 32, seed=1, epoch=4))
    rest = list(training_batches(notes, 8, 32, seed=1, epoch=4, start=5))
    assert len(rest) == len(whole) - 5
    for one, other in zip(whole[5:], rest):
        assert_same(one, other)


def test_without_words_the_word_tensors_have_width_zero(make_notes, tokenizers, tmp_path):
    plain = EncodedNotes.build(
        make_notes(["환아 기침", "콧물"]),
        tokenizers["wordpiece"],
        tokenizers["Unigram, always"],
        32,
        WordRule(),
        tmp_path,
    )
    (batch,) = training_batches(plain, 4, 32, seed=0, epoch=0)
    assert batch.word_mask.shape == (2, 0)
    assert batch.student.spans.shape == batch.teacher.spans.shape == (2, 0, 2)
    assert batch.word_mask.dtype == torch.bool


def test_no_notes_give_no_batches(notes):
    assert list(training_batches(notes.split("test"), 8, 32, 1, 0)) == []
    assert list(evaluation_batches(notes.split("test"), 8)) == []
    assert steps_per_epoch(0, 8) == 0


def test_evaluation_takes_every_text_once_longest_first_without_teacher_or_words(notes):
    batches = list(evaluation_batches(notes, 8))
    rows = list(chain(*order(batches)))
    assert sorted(rows) == list(range(61))
    lengths = notes.lengths[rows].tolist()
    assert lengths == sorted(lengths, reverse=True)
    assert all(b.teacher is None and b.word_mask.shape[1] == 0 for b in batches)


def test_evaluation_is_shared_among_workers(notes):
    shares = [list(chain(*order(evaluation_batches(notes, 8, r, 2)))) for r in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(61))


def test_a_batch_moves_to_a_device_as_a_whole(notes):
    batch = next(training_batches(notes, 8, 32, 1, 0)).to("meta")
    tensors = (batch.rows, batch.labels, batch.word_mask, batch.student.spans)
    assert all(tensor.is_meta for tensor in (*tensors, batch.teacher.input_ids))
    assert next(evaluation_batches(notes, 8)).to("meta").teacher is None
