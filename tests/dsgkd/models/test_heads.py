import pytest
import torch

from dsgkd.errors import InputError
from dsgkd.models.heads import (
    Encoded,
    Head,
    MaxHead,
    MeanHead,
    PaperHead,
    WordsHead,
    find_head,
    mean_of_tokens,
    mean_of_words,
)
from dsgkd.models.names import HEADS

STATES = torch.tensor(
    [[[1.0, 5.0], [3.0, -1.0], [8.0, 90.0]], [[2.0, 2.0], [0.0, 4.0], [7.0, 0.0]]]
)
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
NO_TOKENS = torch.zeros(2, 3, dtype=torch.long)
SPANS = torch.tensor([[[0, 1], [1, 3], [0, 0]], [[0, 0], [0, 0], [0, 0]]])


class FirstToken(Head):
    """A head from outside the package."""

    def forward(self, encoded):
        return encoded.states[:, 0, : self.num_classes]


def encoded(pooled=None, *, states=STATES, mask=MASK, spans=None):
    return Encoded(states, pooled, mask, spans)


def test_the_mean_leaves_padding_out():
    expected = torch.tensor([[2.0, 2.0], [3.0, 2.0]])
    torch.testing.assert_close(mean_of_tokens(STATES, MASK), expected)
    torch.testing.assert_close(mean_of_tokens(STATES, None), STATES.mean(1))
    assert not mean_of_tokens(STATES, NO_TOKENS).any()


def test_the_maximum_leaves_padding_out():
    head = MaxHead(2, 3, 0.0)
    expected = torch.tensor([[3.0, 5.0], [7.0, 4.0]])
    torch.testing.assert_close(head.pool(encoded()), expected)
    torch.testing.assert_close(head.pool(encoded(mask=None)), STATES.amax(1))
    assert not head.pool(encoded(mask=NO_TOKENS)).any()


def test_the_mean_of_words_weighs_every_word_alike_and_is_zero_without_words():
    # One word of one token, one of two.
    first = (STATES[0, 0] + STATES[0, 1:].mean(0)) / 2
    torch.testing.assert_close(mean_of_words(STATES, SPANS), torch.stack([first, torch.zeros(2)]))
    assert mean_of_words(STATES, SPANS[:, :0]).shape == (2, 2)


def test_the_words_head_lays_text_and_words_side_by_side():
    head = WordsHead(2, 3, 0.0)
    pooled = torch.cat([mean_of_tokens(STATES, MASK), mean_of_words(STATES, SPANS)], 1)
    torch.testing.assert_close(head(encoded(spans=SPANS)), head.output(pooled))


def test_the_words_head_refuses_to_guess_where_the_words_are():
    with pytest.raises(InputError, match="nobody told it where the words are"):
        WordsHead(2, 3, 0.0)(encoded())


def test_the_papers_head_is_two_layers_on_the_pooler_or_the_first_token():
    head, pooled = PaperHead(2, 3, 0.0), torch.tensor([[0.5, -2.0], [1.0, 0.0]])
    expected = head.output(torch.nn.functional.gelu(head.hidden(pooled)))
    torch.testing.assert_close(head(encoded(pooled)), expected)
    torch.testing.assert_close(head(encoded()), head(encoded(STATES[:, 0])))


@pytest.mark.parametrize("name", [name for name in HEADS if find_head(name)])
def test_dropout_acts_in_training_only(name):
    torch.manual_seed(0)
    head = find_head(name)(2, 3, 0.5)
    texts = Encoded(*(x.repeat_interleave(20, 0) for x in (STATES, STATES[:, 0], MASK, SPANS)))
    assert not torch.equal(head(texts), head(texts))
    head.eval()
    assert torch.equal(head(texts), head(texts))


def test_pooling_is_exact_under_autocast():
    head = MeanHead(2, 3, 0.0)
    states = (100 + torch.rand(1, 400, 2)).bfloat16()
    seen = []
    head.output.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        head(encoded(states=states, mask=torch.ones(1, 400)))
    assert torch.equal(seen[0], states.float().mean(1).bfloat16())


def test_heads_are_found_by_name_or_import_path():
    assert find_head("cls") is None
    assert find_head("mean") is MeanHead
    assert find_head(f"{__name__}:FirstToken").__name__ == "FirstToken"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "standard",
            "'standard' unknown: choose of cls, mean, max, words, projected, paper, or ",
        ),
        ("no.such.module:Head", "cannot be imported"),
        ("dsgkd.models.heads:Nothing", "cannot be imported"),
        ("dsgkd.models.heads:find_head", "is no subclass of"),
        ("os:system", "is no subclass of"),
        ("mean:", "is no subclass of|cannot be imported"),
    ],
)
def test_what_is_no_head_is_a_users_error(name, message):
    with pytest.raises(InputError, match=message):
        find_head(name)
