from operator import itemgetter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsgkd.alignment.batch import Side, WordSpans
from dsgkd.errors import InputError
from dsgkd.models.attention import AttentionTap
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps, pooling_matrix

TAPPED = ("bert", "roberta", "electra", "distilbert", "modernbert")
LAYERS = (1, 2, 3)


def read(model, side: Side, request: TapRequest) -> WordStates:
    """What a model says of its own words."""
    return forward_with_taps(model, side, [(side.words, request)])[1][0]


@settings(deadline=None)  # other work may hold the machine up
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=6))
def test_pooling_averages_the_tokens_of_each_word(words):
    states = torch.randn(1, 20, 5)
    spans = torch.tensor([[[0, 0], *([s, s + n] for s, n in words)]])
    pooled = pooling_matrix(spans, 20) @ states
    assert pooled[0, 0].eq(0).all()
    for (start, count), state in zip(words, pooled[0, 1:]):
        torch.testing.assert_close(state, states[0, start : start + count].mean(0))


def mean_over_tokens(tensor, spans, text, word):
    """The mean over a word's tokens of [..., length, anything], zero where there is no word."""
    start, end = spans[text, word].tolist()
    rows = tensor[text][..., start:end, :]
    return rows.mean(-2) if end > start else torch.zeros_like(tensor[text][..., 0, :])


@pytest.mark.parametrize("family", [*TAPPED, "deberta"])
def test_hidden_word_states_are_means_of_the_models_hidden_states(family, make_model, make_batch):
    side = make_batch().student
    reference = make_model(family, "eager")(
        side.input_ids, attention_mask=side.attention_mask, output_hidden_states=True
    ).hidden_states
    states = read(make_model(family), side, TapRequest((0, *LAYERS)))
    assert states.attention == {}
    for layer, state in states.hidden.items():
        assert state.shape == (3, 3, 32)
        for text in range(3):
            for word in range(3):
                expected = mean_over_tokens(reference[layer], side.words.spans, text, word)
                torch.testing.assert_close(state[text, word], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["dsgkd_fused", "dsgkd_plain"])
@pytest.mark.parametrize("family", TAPPED)
def test_attention_rows_are_means_of_the_eager_implementations_rows(
    family, attention, make_model, make_batch
):
    side = make_batch((4, 2, 0)).student
    reference = make_model(family, "eager")(
        side.input_ids, attention_mask=side.attention_mask, output_attentions=True
    ).attentions
    if family == "modernbert":  # a window, so that the mask differs from row to row
        assert reference[1][0, 0, 1, 7:].eq(0).all()
        assert reference[0][0, 0, 1, 7] > 0
    request = TapRequest((), LAYERS, "positions")
    states = read(make_model(family, attention), side, request)
    assert states.hidden == {}
    for layer in LAYERS:
        assert states.attention[layer].shape == (3, 4, 4, 24)
        for text in range(3):
            for word in range(4):
                expected = mean_over_tokens(reference[layer - 1], side.words.spans, text, word)
                torch.testing.assert_close(
                    states.attention[layer][text, :, word], expected, rtol=1e-5, atol=1e-6
                )


def test_columns_may_be_words_which_sum_the_mass_on_their_tokens(make_model, make_batch):
    side = make_batch((4, 2, 0)).student
    model = make_model()

    def rows(columns):
        return read(model, side, TapRequest((), (2,), columns)).attention[2]

    positions, words = rows("positions"), rows("words")
    assert words.shape == (3, 4, 4, 4)
    for text in range(3):
        for word in range(4):
            start, end = side.words.spans[text, word].tolist()
            mass = positions[text, :, :, start:end].sum(-1)
            torch.testing.assert_close(words[text, :, :, word], mass)
    assert side.words.spans[0].diff(dim=-1).max() > 1  # where a sum is no mean


def test_fused_attention_computes_no_more_rows_than_a_text_has_tokens_in_words(
    make_model, make_batch, monkeypatch
):
    side = make_batch((3, 1, 0)).student
    seen = []
    keep = AttentionTap._keep

    def spy(tap, pool, probabilities):
        keep(tap, pool, probabilities)
        seen.append(probabilities.shape)

    monkeypatch.setattr(AttentionTap, "_keep", spy)
    read(make_model("bert", "dsgkd_fused"), side, TapRequest((), (1, 3)))
    most = int(side.words.spans.diff(dim=-1).sum((1, 2)).max())
    assert most < 12
    assert seen == [(3, 4, most, 24)] * 2


def test_the_gradient_of_the_rows_reaches_the_attention_parameters(make_model, make_batch):
    model = make_model()
    states = read(model, make_batch().student, TapRequest((), (2,)))
    states.attention[2].square().sum().backward()
    first, second, third = model.encoder.layer
    assert second.attention.self.query.weight.grad.abs().max() > 0
    assert second.attention.self.key.weight.grad.abs().max() > 0
    assert first.attention.self.value.weight.grad.abs().max() > 0
    assert third.attention.self.query.weight.grad is None


@pytest.mark.parametrize("words", [(0, 0), (1, 0)])
def test_texts_without_words_give_empty_or_zero_states(words, make_model, make_batch):
    states = read(make_model(), make_batch(words).student, TapRequest((1,), (1,)))
    width = max(words)
    assert states.hidden[1].shape == (2, width, 32)
    assert states.attention[1].shape == (2, 4, width, width)
    assert states.hidden[1][1].eq(0).all()
    assert states.attention[1][1].eq(0).all()


@pytest.mark.parametrize("attention", ["dsgkd_fused", "dsgkd_plain"])
@pytest.mark.parametrize("family", TAPPED)
def test_an_empty_batch_gives_no_states_and_zero_gradients(
    family, attention, make_model, make_batch
):
    # The share of a worker where the last batch has fewer texts than there are workers.
    side = make_batch((2, 1)).student
    empty = side.each(itemgetter(slice(0)))
    model = make_model(family, attention).train()
    output, (states,) = forward_with_taps(model, empty, [(empty.words, TapRequest((0, 3), (1,)))])
    assert states.hidden[3].shape == (0, 2, 32)
    assert states.attention[1].shape == (0, 4, 2, 2)
    terms = (*states.hidden.values(), *states.attention.values(), output.last_hidden_state[:0])
    sum(term.sum() for term in terms).backward()
    parameters = model.get_submodule("layers" if family == "modernbert" else "embeddings")
    gradients = [p.grad for p in parameters.parameters()]
    assert all(gradient is not None and gradient.eq(0).all() for gradient in gradients)


@pytest.mark.parametrize("attention", ["dsgkd_fused", "dsgkd_plain"])
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_states_are_float32_under_bf16_autocast(family, attention, make_model, make_batch):
    side, request = make_batch().student, TapRequest((0, 3), (3,))
    model = make_model(family, attention)
    exact = read(model, side, request)
    with torch.autocast("cpu", torch.bfloat16):
        states = read(model, side, request)
    for one, other in ((states.hidden, exact.hidden), (states.attention, exact.attention)):
        assert one.keys() == other.keys()
        for layer in one:
            assert one[layer].dtype == torch.float32
            torch.testing.assert_close(one[layer], other[layer], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("attention", ["dsgkd_fused", "dsgkd_plain"])
def test_words_of_several_teachers_are_read_in_one_pass(attention, make_model, make_batch):
    one, two = make_batch((3, 1)), make_batch((2, 4), seed=1)
    side, model = one.student, make_model("bert", attention)
    asked = [
        (one.student.words, TapRequest((0, 2), (1,))),
        (two.student.words, TapRequest((3,), (1, 3), "positions")),
        (WordSpans(two.student.words.spans[:, :0]), TapRequest((1,))),
    ]
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    _, together = forward_with_taps(model, side, asked)
    handle.remove()
    assert len(passes) == 1
    for (words, request), states in zip(asked, together, strict=True):
        _, (alone,) = forward_with_taps(model, side, [(words, request)])
        for kind in ("hidden", "attention"):
            one_kind, other = getattr(states, kind), getattr(alone, kind)
            assert one_kind.keys() == other.keys()
            assert all(torch.equal(one_kind[layer], other[layer]) for layer in other)


def test_requests_join_into_one_that_asks_for_each_layer_once():
    joined = TapRequest.joined(
        [TapRequest((2, 0), (1,)), TapRequest((3, 2)), TapRequest((), (2, 1))]
    )
    assert joined == TapRequest((2, 0, 3), (1, 2))
    assert TapRequest.joined([]) == TapRequest()
    positions = TapRequest((), (1,), "positions", True)
    assert TapRequest.joined([TapRequest((1,)), positions]) == TapRequest(
        (1,), (1,), "positions", True
    )
    with pytest.raises(InputError, match="by words and by positions at once: choose one"):
        TapRequest.joined([positions, TapRequest((), (2,))])


def test_attention_that_cannot_be_read_is_a_users_error(make_model, make_batch):
    side = make_batch().student
    with pytest.raises(InputError, match=r"DebertaV2Model: .*cannot be read: set beta to 0"):
        read(make_model("deberta"), side, TapRequest((), (1,)))
    with pytest.raises(InputError, match="cannot be read"):
        read(make_model("bert", "sdpa"), side, TapRequest((), (1,)))
    with pytest.raises(InputError, match="cannot be read"):
        read(make_model(), side, TapRequest((), (4,)))
