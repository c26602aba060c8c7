"""What must be true of a teacher, whether a model answers or a store."""

from collections import Counter
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from dsgkd.alignment.batches import Batch, training_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.training.run import open_notes
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from dsgkd.distillation.distiller import DistillationConfig, Distiller
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.store.states import MissingStates, States
from dsgkd.distillation.teachers.shuffled import ShuffledTeacher, another
from dsgkd.distillation.teachers.teacher import LiveTeacher, StoredTeacher, Teacher
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps

REQUESTS = {
    "hidden": TapRequest((0, 3)),
    "words": TapRequest((2,), (1, 3)),
    "positions": TapRequest((0, 2), (2,), "positions"),
}
HALF = {"rtol": 1e-3, "atol": 1e-5}  # what float16 keeps


@pytest.fixture(scope="module")
def notes(make_config, cache) -> EncodedNotes:
    return open_notes(make_config(teacher="teacher"), cache)[0].split("train")


@pytest.fixture(params=["live", "stored"])
def make_teacher(request, make_model, notes, tmp_path):
    """Return a function that makes one of the two teachers of a model."""

    def make(taps: TapRequest, model=None, most: int = 32, on=notes) -> Teacher:
        model = model or make_model()
        if request.param == "live":
            return LiveTeacher(model, taps)
        states = States(ShardStorage(tmp_path / "store"), "a-teacher")
        words = words_needed(on, most)

        def repair() -> bool:
            return populate(states, on, words, kinds_of(taps), lambda: model, False)

        repair()
        return StoredTeacher(states, taps, repair)

    return make


def batches(notes, most=32, size=8, same_length=False):
    return list(training_batches(notes, size, most, 3, 0, same_length=same_length))


@pytest.mark.parametrize("kind", REQUESTS)
def test_states_are_those_of_the_model_in_float32_without_gradient(
    kind, make_teacher, make_model, notes
):
    request = REQUESTS[kind]
    teacher = make_teacher(request)
    seen = 0
    for batch in batches(notes, same_length=kind == "positions"):
        said = teacher.word_states(batch)
        _, expected = forward_with_taps(make_model(), batch.teacher, request)
        for one, other in ((said.hidden, expected.hidden), (said.attention, expected.attention)):
            assert one.keys() == other.keys()
            for layer, states in one.items():
                assert states.dtype == torch.float32
                assert not states.requires_grad
                torch.testing.assert_close(states, other[layer], **HALF)
        seen += int(batch.word_mask.sum())
    assert seen > 30


def test_fewer_words_are_a_prefix(make_teacher, notes):
    teacher = make_teacher(REQUESTS["words"])
    fewer, more = (
        {
            int(row): (batch, at)
            for batch in batches(notes, most)
            for at, row in enumerate(batch.rows)
        }
        for most in (1, 32)
    )
    compared = 0
    for row, (batch, at) in fewer.items():
        other, place = more[row]
        count = int(batch.word_mask[at].sum())
        compared += int(other.word_mask[place].sum()) > count
        one, all_ = teacher.word_states(batch), teacher.word_states(other)
        torch.testing.assert_close(one.hidden[2][at, :count], all_.hidden[2][place, :count], **HALF)
        torch.testing.assert_close(
            one.attention[1][at, :, :count, :count],
            all_.attention[1][place, :, :count, :count],
            **HALF,
        )
    assert compared > 5


def test_the_order_and_the_share_of_a_worker_change_nothing(make_teacher, notes):
    teacher = make_teacher(REQUESTS["hidden"])
    for batch in batches(notes)[:2]:
        whole = teacher.word_states(batch).hidden[3]
        for rank in range(3):
            share = batch.each(itemgetter(slice(rank, None, 3)))
            torch.testing.assert_close(teacher.word_states(share).hidden[3], whole[rank::3], **HALF)
        empty = batch.each(itemgetter(slice(0)))
        assert teacher.word_states(empty).hidden[3].shape == (0, *whole.shape[1:])


def test_texts_without_words_have_zero_states(make_teacher, notes):
    teacher = make_teacher(REQUESTS["words"])
    without = [b for b in batches(notes, size=1) if not b.word_mask.any()]
    assert without
    for batch in [without[0], *batches(notes)]:
        said = teacher.word_states(batch)
        empty = ~batch.word_mask.any(1)
        assert said.hidden[2][empty].eq(0).all()
        assert said.attention[3][empty].eq(0).all()


def test_the_losses_are_those_of_the_live_teacher(make_teacher, make_model, notes):
    pairs = ((1, 1), (3, 3))
    losses = []
    for source in ("ours", "live"):
        torch.manual_seed(0)
        student = make_model("bert", auto_class=_classifier(), seed=1, num_labels=2)
        config = DistillationConfig("teacher", alpha=1.0, beta=1.0)
        distiller = Distiller(student, config, pairs, 32, 32)
        live = LiveTeacher(make_model(seed=2), distiller.teacher_request)
        teacher = live if source == "live" else make_teacher(live.request, live.model)
        distiller.calibrate(batches(notes), teacher)
        losses.append(
            [distiller(b, teacher.word_states(b), 8.0, b.word_mask.sum()) for b in batches(notes)]
        )
    for ours, live_losses in zip(*losses):
        for one, other in zip(ours, live_losses):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_shuffled_states_are_the_live_teachers_shuffled_states(make_teacher, make_model, notes):
    for kind, request in REQUESTS.items():
        ours = ShuffledTeacher(make_teacher(request), 5)
        live = ShuffledTeacher(LiveTeacher(make_model(), request), 5)
        for batch in batches(notes, same_length=kind == "positions"):
            one, other = ours.word_states(batch), live.word_states(batch)
            for layer in request.hidden_layers:
                torch.testing.assert_close(one.hidden[layer], other.hidden[layer], **HALF)
            for layer in request.attention_layers:
                torch.testing.assert_close(one.attention[layer], other.attention[layer], **HALF)


@dataclass(frozen=True)
class _Says:
    states: WordStates

    def word_states(self, batch: Batch) -> WordStates:
        return self.states


def deal(batch: Batch, seed: int) -> torch.Tensor:
    """Number the places for words, [batch, words], and return whose number each place gets."""
    numbers = torch.arange(batch.word_mask.numel()).view(*batch.word_mask.shape, 1).float()
    says = _Says(WordStates({0: numbers}, {}))
    return ShuffledTeacher(says, seed).word_states(batch).hidden[0].squeeze(-1).long()


def _rows(states: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in states.flatten(1).tolist()]


def test_every_word_has_the_state_of_another_and_no_state_is_lost(make_teacher, notes):
    request = REQUESTS["words"]
    teacher = make_teacher(request)
    shuffled = ShuffledTeacher(teacher, 5)
    moved = 0
    for batch in batches(notes):
        plain, other, mask = (
            teacher.word_states(batch),
            shuffled.word_states(batch),
            batch.word_mask,
        )
        dealt, own = deal(batch, 5), torch.arange(mask.numel()).view(mask.shape)
        assert mask.sum() == 1 or not (dealt == own)[mask].any()
        assert sorted(dealt[mask].tolist()) == own[mask].tolist()
        assert torch.equal(dealt[~mask], own[~mask])
        for layer in request.hidden_layers:
            assert torch.equal(
                other.hidden[layer][mask], plain.hidden[layer].flatten(0, 1)[dealt[mask]]
            )
            assert not other.hidden[layer][~mask].any()
            assert sorted(_rows(other.hidden[layer][mask])) == sorted(
                _rows(plain.hidden[layer][mask])
            )
        for layer in request.attention_layers:
            for text in range(len(mask)):
                count = int(mask[text].sum())
                before, after = (s.attention[layer][text].movedim(1, 0) for s in (plain, other))
                assert sorted(_rows(before)) == sorted(_rows(after))
                assert torch.equal(before[count:], after[count:])
                if count == 1:
                    assert torch.equal(before, after)
                if count > 1:
                    assert all(not torch.equal(b, a) for b, a in zip(before[:count], after[:count]))
        moved += int(mask.sum())
    assert moved > 30


def test_a_batch_of_one_word_is_left_as_it_is(make_teacher, notes):
    teacher = make_teacher(REQUESTS["words"])
    alone = [b for b in batches(notes, most=1, size=1) if b.word_mask.any()]
    assert len(alone) > 5
    for batch in alone:
        plain, other = teacher.word_states(batch), ShuffledTeacher(teacher, 5).word_states(batch)
        assert torch.equal(plain.hidden[2], other.hidden[2])
        assert torch.equal(plain.attention[1], other.attention[1])


def test_who_gets_whose_state_follows_from_seed_and_batch(make_batch):
    """So a resumed run meets the same, and other seeds and other epochs meet others."""
    batch = make_batch((5, 4, 3, 6))
    backwards = replace(batch, keys=batch.keys.flip(0))
    assert torch.equal(deal(batch, 1), deal(make_batch((5, 4, 3, 6)), 1))
    seeds = (0, 1, 2, -1, 2**40)
    outcomes = {
        tuple(deal(b, seed).flatten().tolist()) for seed in seeds for b in (batch, backwards)
    }
    assert len(outcomes) == 10


def test_copies_of_a_text_do_not_bring_a_word_its_own_state_back(make_batch):
    batch = make_batch((3, 3, 3))
    batch = replace(batch, keys=torch.zeros_like(batch.keys))
    dealt, own = deal(batch, 0), torch.arange(9).view(3, 3)
    assert not (dealt == own).any()
    assert (dealt % 3 != own % 3).any()  # not merely the same word of another copy


@given(
    words=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    scores=st.lists(st.integers(0, 3) | st.integers(0, 2**62), min_size=36, max_size=36),
)
def test_the_words_of_a_row_form_one_ring(words, scores):
    mask = torch.arange(6) < torch.tensor(words)[:, None]
    sources = another(torch.tensor(scores).view(6, 6)[: len(words)], mask)
    for count, row in zip(words, sources.tolist()):
        assert row[count:] == list(range(count, 6))
        at, met = 0, []
        while count and at not in met:
            met.append(at)
            at = row[at]
        assert sorted(met) == list(range(count))


def test_every_ring_is_equally_likely(make_batch):
    batch = make_batch((2, 2))
    rings = Counter(tuple(deal(batch, seed).flatten().tolist()) for seed in range(2400))
    assert len(rings) == 6  # (4 - 1)! rings of four
    assert chisquare(list(rings.values())).pvalue > 1e-4


def test_a_shuffled_teacher_is_calibrated_on_and_teaches(make_teacher, make_model, notes):
    distillers, losses = {}, {}
    for shuffled in (False, True):
        student = make_model("bert", auto_class=_classifier(), seed=1, num_labels=2)
        config = DistillationConfig("teacher", alpha=1.0, beta=1.0)
        distiller = distillers[shuffled] = Distiller(student, config, ((1, 1), (3, 3)), 32, 32)
        teacher = make_teacher(distiller.teacher_request, make_model(seed=2))
        teacher = ShuffledTeacher(teacher, 5) if shuffled else teacher
        distiller.calibrate(batches(notes), teacher)
        losses[shuffled] = 0.0
        for batch in batches(notes):
            found = distiller(batch, teacher.word_states(batch), 8.0, batch.word_mask.sum())
            sum(found).backward()
            losses[shuffled] += found.hidden.item()
    real, control = distillers[False], distillers[True]
    # The same states, so the same mean and scale; but no plane goes through them and the words.
    torch.testing.assert_close(control.teacher_mean, real.teacher_mean)
    torch.testing.assert_close(control.teacher_scale, real.teacher_scale)
    assert not torch.allclose(control.projections[0].weight, real.projections[0].weight)
    assert losses[True] > losses[False] > 0
    trained = dict(control.named_parameters())
    for name in ("student.bert.encoder.layer.0.attention.self.query.weight", "projections.1.bias"):
        assert trained[name].grad.abs().max() > 0


def _classifier():
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


def test_bf16_changes_a_live_teacher_a_little(make_model, make_batch):
    request, batch, model = REQUESTS["words"], make_batch(), make_model()
    exact, rough = (LiveTeacher(model, request, on).word_states(batch) for on in (False, True))
    assert not torch.equal(exact.hidden[2], rough.hidden[2])
    torch.testing.assert_close(exact.hidden[2], rough.hidden[2], rtol=0.05, atol=0.05)
    assert rough.attention[1].dtype == torch.float32


def test_notes_that_were_prepared_without_a_teacher_are_refused(make_model, make_batch):
    batch = replace(make_batch(), teacher=None)
    with pytest.raises(InputError, match="teacher: the notes were prepared without one"):
        LiveTeacher(make_model(), REQUESTS["hidden"]).word_states(batch)


def test_a_store_never_answers_for_texts_or_words_that_it_lacks(
    make_model, notes, make_config, cache, tmp_path: Path
):
    request, model = REQUESTS["hidden"], make_model()
    states = States(ShardStorage(tmp_path), "a-teacher")
    words = words_needed(notes, 1)
    populate(states, notes, words, kinds_of(request), lambda: model, False)
    stored = StoredTeacher(states, request, lambda: None)

    assert stored.word_states(batches(notes, most=1)[0]).hidden[0].any()
    everything = next(training_batches(notes, len(notes), 3, 0, 0))
    with pytest.raises(MissingStates, match=r"texts of the batch in hidden\.0"):
        stored.word_states(everything)
    others = open_notes(make_config(teacher="teacher"), cache)[0].split("validation")
    unknown = next(training_batches(others, len(others), 1, 0, 0))
    with pytest.raises(MissingStates):
        stored.word_states(unknown)
    with pytest.raises(MissingStates):
        StoredTeacher(states, TapRequest((1,)), lambda: None).word_states(batches(notes)[0])
    assert np.array_equal(states.missing(notes.keys, words, kinds_of(request)), [])
