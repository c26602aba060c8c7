import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaModel

from dsgkd.alignment.batch import Side
from dsgkd.errors import InputError
from dsgkd.models.attention import AttentionTap, attention_for, tapped
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps, pooling_matrix

TAPPED = ("bert", "roberta", "electra", "distilbert", "modernbert")
OURS = ("dsgkd_fused", "dsgkd_plain")


def read(model, side: Side, request: TapRequest) -> WordStates:
    """What a model says of its own words."""
    return forward_with_taps(model, side, [(side.words, request)])[1][0]


@pytest.mark.parametrize("family", TAPPED)
def test_logits_are_those_of_the_implementations_of_transformers(family, make_model, make_batch):
    side = make_batch().student

    def logits(attention):
        model = make_model(family, attention, AutoModelForSequenceClassification)
        return model(input_ids=side.input_ids, attention_mask=side.attention_mask).logits

    eager = logits("eager")
    for attention in ("sdpa", *OURS):
        torch.testing.assert_close(logits(attention), eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", OURS)
def test_gradients_are_those_of_the_eager_implementation(attention, make_model, make_batch):
    side = make_batch().student

    def gradients(implementation):
        model = make_model("bert", implementation)
        output = model(input_ids=side.input_ids, attention_mask=side.attention_mask)
        output.last_hidden_state[:, 0].square().sum().backward()
        return [p.grad for p in model.encoder.parameters()]

    for ours, eager in zip(gradients(attention), gradients("eager")):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


def test_without_an_open_tap_nothing_is_read(make_model, make_batch, monkeypatch):
    def fail(*_):
        raise AssertionError("read")

    side = make_batch().student
    monkeypatch.setattr(AttentionTap, "read", fail)
    model = make_model()
    model(input_ids=side.input_ids, attention_mask=side.attention_mask)
    read(model, side, TapRequest(hidden_layers=(1,)))
    with pytest.raises(AssertionError, match="read"):
        read(model, side, TapRequest(attention_layers=(1,)))
    # That error closed the tap again.
    model(input_ids=side.input_ids, attention_mask=side.attention_mask)


def test_only_the_wanted_rows_of_the_wanted_layers_are_kept(make_model, make_batch):
    side = make_batch().student
    tap = AttentionTap(pooling_matrix(side.words.spans, 24), None, frozenset({2}))
    with tapped([tap]):
        make_model()(input_ids=side.input_ids, attention_mask=side.attention_mask)
    first, second, third = tap.rows
    assert first is None
    assert third is None
    assert second.shape == (3, 4, 3, 24)


def test_rows_are_dropped_out_only_where_asked_and_in_training(make_model, make_batch):
    side = make_batch((3, 3)).student
    model = make_model(attention_probs_dropout_prob=0.5)

    def row_sums(dropout):
        request = TapRequest((), (1,), "positions", attention_dropout=dropout)
        return read(model, side, request).attention[1].sum(-1)

    torch.testing.assert_close(row_sums(True), torch.ones(2, 4, 3))
    model.train()
    torch.testing.assert_close(row_sums(False), torch.ones(2, 4, 3))
    assert (row_sums(True) - 1).abs().max() > 0.05


@pytest.mark.parametrize("attention", OURS)
def test_a_model_with_shared_keys_computes_as_ever_and_its_attention_is_refused(
    attention, make_batch
):
    side = make_batch().student
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )

    def model(implementation):
        torch.manual_seed(0)
        config._attn_implementation = implementation
        return LlamaModel(config).eval()

    def states(implementation):
        output = model(implementation)(side.input_ids, attention_mask=side.attention_mask)
        return output.last_hidden_state[side.attention_mask > 0]

    torch.testing.assert_close(states(attention), states("eager"), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="LlamaModel: its attention cannot be read"):
        read(model(attention), side, TapRequest((), (1,)))


def test_the_plain_function_is_for_cpus_and_the_fused_one_for_gpus():
    assert attention_for("cpu") == "dsgkd_plain"
    assert attention_for(torch.device("cuda", 0)) == "dsgkd_fused"
