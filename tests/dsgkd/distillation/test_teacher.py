"""What must be true of a teacher, whether a model answers or a store."""

from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from dsgkd.distillation.distiller import DistillationConfig, Distiller
from dsgkd.distillation.store.depot import Depot
from dsgkd.distillation.store.filling import fill, words_needed
from dsgkd.distillation.store.parts import parts_of
from dsgkd.distillation.store.states import MissingStates, States
from dsgkd.distillation.teacher import LiveTeacher, StoredTeacher, Teacher
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, forward_with_taps
from dsgkd.text.batches import training_batches
from dsgkd.text.encoding import EncodedNotes
from dsgkd.training.run import open_notes

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
        states = States(Depot(tmp_path / "store"), "a-teacher")
        words = words_needed(on, most)

        def mend() -> bool:
            return fill(states, on, words, parts_of(taps), lambda: model, False)

        mend()
        return StoredTeacher(states, taps, mend)

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
    states = States(Depot(tmp_path), "a-teacher")
    words = words_needed(notes, 1)
    fill(states, notes, words, parts_of(request), lambda: model, False)
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
    assert np.array_equal(states.missing(notes.keys, words, parts_of(request)), [])
