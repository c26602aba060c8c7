"""What must be true of a teacher, whether a model answers or a store."""

from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import batches_of, distiller_of, losses_of
from transformers import AutoModelForSequenceClassification

from dsgkd.alignment.batch import Pair
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.store.states import MissingStates, States
from dsgkd.distillation.teachers.teacher import LiveTeacher, StoredTeacher, Teacher
from dsgkd.models.taps import TapRequest, forward_with_taps
from dsgkd.training.opening import open_notes

REQUESTS = {
    "hidden": TapRequest((0, 3)),
    "words": TapRequest((2,), (1, 3)),
    "positions": TapRequest((0, 2), (2,), "positions"),
}
HALF = {"rtol": 1e-3, "atol": 1e-5}  # what float16 keeps


@pytest.fixture(scope="module")
def texts(make_config, cache) -> EncodedTexts:
    return open_notes(make_config(teacher="teacher"), cache).split("train")


@pytest.fixture(params=["live", "stored"])
def make_teacher(request, make_model, texts, tmp_path):
    """Return a function that makes one of the two teachers of a model."""

    def make(taps: TapRequest, model=None) -> Teacher:
        model = model or make_model()
        if request.param == "live":
            return LiveTeacher(model, taps)
        states = States(ShardStorage(tmp_path / "store"), "a-teacher")
        words = words_needed(texts.alignments[0], 32)

        def repair() -> bool:
            return populate(states, texts.teachers[0], words, kinds_of(taps), lambda: model, False)

        repair()
        return StoredTeacher(states, taps, repair)

    return make


def pairs_of(texts, most=32, size=8, same_length=False) -> list[Pair]:
    """The teacher's part of every batch."""
    batches = batches_of(texts, size, most, seed=3, same_length=same_length)
    return [batch.pairs[0] for batch in batches]


@pytest.mark.parametrize("kind", REQUESTS)
def test_states_are_those_of_the_model_in_float32_without_gradient(
    kind, make_teacher, make_model, texts
):
    request = REQUESTS[kind]
    teacher = make_teacher(request)
    seen = 0
    for pair in pairs_of(texts, same_length=kind == "positions"):
        said, side = teacher.word_states(pair), pair.teacher
        _, (expected,) = forward_with_taps(make_model(), side, [(side.words, request)])
        for one, other in ((said.hidden, expected.hidden), (said.attention, expected.attention)):
            assert one.keys() == other.keys()
            for layer, states in one.items():
                assert states.dtype == torch.float32
                assert not states.requires_grad
                torch.testing.assert_close(states, other[layer], **HALF)
        seen += int(pair.mask.sum())
    assert seen > 30


def test_fewer_words_are_a_prefix(make_teacher, texts):
    teacher = make_teacher(REQUESTS["words"])
    fewer, more = (
        {
            int(row): (batch.pairs[0], at)
            for batch in batches_of(texts, most=most, seed=3)
            for at, row in enumerate(batch.rows)
        }
        for most in (1, 32)
    )
    compared = 0
    for row, (pair, at) in fewer.items():
        other, place = more[row]
        count = int(pair.mask[at].sum())
        compared += int(other.mask[place].sum()) > count
        one, all_ = teacher.word_states(pair), teacher.word_states(other)
        torch.testing.assert_close(one.hidden[2][at, :count], all_.hidden[2][place, :count], **HALF)
        torch.testing.assert_close(
            one.attention[1][at, :, :count, :count],
            all_.attention[1][place, :, :count, :count],
            **HALF,
        )
    assert compared > 5


def test_the_order_and_the_share_of_a_worker_change_nothing(make_teacher, texts):
    teacher = make_teacher(REQUESTS["hidden"])
    for pair in pairs_of(texts)[:2]:
        whole = teacher.word_states(pair).hidden[3]
        for rank in range(3):
            share = pair.each(itemgetter(slice(rank, None, 3)))
            torch.testing.assert_close(teacher.word_states(share).hidden[3], whole[rank::3], **HALF)
        empty = pair.each(itemgetter(slice(0)))
        assert teacher.word_states(empty).hidden[3].shape == (0, *whole.shape[1:])


def test_texts_without_words_have_zero_states(make_teacher, texts):
    teacher = make_teacher(REQUESTS["words"])
    without = [pair for pair in pairs_of(texts, size=1) if not pair.mask.any()]
    assert without
    for pair in [without[0], *pairs_of(texts)]:
        said = teacher.word_states(pair)
        empty = ~pair.mask.any(1)
        assert said.hidden[2][empty].eq(0).all()
        assert said.attention[3][empty].eq(0).all()


@pytest.fixture
def make_distiller(make_model):
    """A distiller, always of the same weights, and its live teacher."""

    def make():
        torch.manual_seed(0)
        student = make_model(auto_class=AutoModelForSequenceClassification, seed=1)
        config = DistillationConfig("teacher", alpha=1.0, beta=1.0, mapping="1:1,3:3")
        distiller, (live,) = distiller_of(config, student, make_model(seed=2))
        return distiller, live

    return make


def test_the_losses_are_those_of_the_live_teacher(make_teacher, make_distiller, texts):
    losses = []
    for source in ("ours", "live"):
        distiller, live = make_distiller()
        teacher = live if source == "live" else make_teacher(live.request, live.model)
        distiller.calibrate(batches_of(texts), [teacher], 2000)
        losses.append([losses_of(distiller, [teacher], batch) for batch in batches_of(texts)])
    for ours, live_losses in zip(*losses, strict=True):
        for name, loss in ours.items():
            torch.testing.assert_close(loss, live_losses[name], rtol=1e-3, atol=1e-6)


def test_bf16_changes_a_live_teacher_a_little(make_model, make_batch):
    request, (pair,), model = REQUESTS["words"], make_batch().pairs, make_model()
    exact, rough = (LiveTeacher(model, request, on).word_states(pair) for on in (False, True))
    assert not torch.equal(exact.hidden[2], rough.hidden[2])
    torch.testing.assert_close(exact.hidden[2], rough.hidden[2], rtol=0.05, atol=0.05)
    assert rough.attention[1].dtype == torch.float32


def test_a_live_teacher_cannot_do_without_its_tokens(make_model, make_batch):
    pair = replace(make_batch().pairs[0], teacher=None)
    with pytest.raises(ValueError, match="collated without the teacher's tokens"):
        LiveTeacher(make_model(), REQUESTS["hidden"]).word_states(pair)


def test_a_store_never_answers_for_texts_or_words_that_it_lacks(
    make_model, texts, make_config, cache, tmp_path: Path
):
    request, model = REQUESTS["hidden"], make_model()
    states, view = States(ShardStorage(tmp_path), "a-teacher"), texts.teachers[0]
    words = words_needed(texts.alignments[0], 1)
    populate(states, view, words, kinds_of(request), lambda: model, False)
    stored = StoredTeacher(states, request, lambda: None)

    assert stored.word_states(pairs_of(texts, most=1)[0]).hidden[0].any()
    (everything,) = pairs_of(texts, size=len(texts))
    with pytest.raises(MissingStates, match=r"texts of the batch in hidden\.0"):
        stored.word_states(everything)
    others = open_notes(make_config(teacher="teacher"), cache).split("validation")
    (unknown,) = pairs_of(others, most=1, size=len(others))
    with pytest.raises(MissingStates):
        stored.word_states(unknown)
    with pytest.raises(MissingStates):
        StoredTeacher(states, TapRequest((1,)), lambda: None).word_states(everything)
    assert np.array_equal(states.missing(view.keys, words, kinds_of(request)), [])
