"""The different words of a set of texts, and sentences made to carry them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment._tokens import Frame
from dsgkd.alignment.view import View
from dsgkd.alignment.words import TERM
from dsgkd.data.ragged import Array, Ragged
from dsgkd.errors import InputError


class Vocabulary(NamedTuple):
    """The different words of some texts."""

    names: Array
    """As in `View.word_names`, ascending: [types] int64."""
    tokens: Ragged
    """Their token ids."""

    @classmethod
    def of(cls, view: View) -> "Vocabulary":
        """Collect the words that a model has in texts."""
        names, first = np.unique(view.word_names.flat(), return_index=True)
        owners = view.words.rows()[first]
        starts, ends = view.words.flat()[first].astype(np.int64).T
        begin = view.tokens.starts[owners] + starts
        return cls(names, Ragged(view.tokens.values, begin, ends - starts))


def carried(
    words: Vocabulary, sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int
) -> View:
    """Put each word into carrier sentences, in its own tokens.

    Args:
        words: the words.
        sentences: with `{term}` in each; one that is too long with a word is left out.
        tokenizer: the teacher's.
        length: the most tokens of a text.

    Raises:
        InputError: none of them is short enough for some word.
    """
    frame = Frame.of(tokenizer)
    texts, spans = [], []
    for sentence in sentences:
        before, _, after = sentence.partition(TERM)
        head = [*frame.before, *_ids(before, tokenizer)]
        tail = [*_ids(after, tokenizer), *frame.after]
        for tokens in words.tokens:
            if len(head) + len(tokens) + len(tail) <= length:
                texts.append(np.array([*head, *tokens, *tail], np.int32))
                spans.append([len(head), len(head) + len(tokens)])
    pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    view = View(
        Ragged.of_lengths(np.concatenate([np.zeros(0, np.int32), *texts]), _lengths(texts)),
        Ragged.of_lengths(np.array(spans, np.int32).reshape(-1, 2), np.ones(len(texts))),
        pad,
        length,
    )
    lacking = np.setdiff1d(words.names, view.word_names.flat())
    if len(lacking):
        what = f"{len(lacking)} words do not fit into any of them"
        raise InputError("carriers", what, "give a shorter one, or raise --max-length")
    return view


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []


def _lengths(texts: Sequence[Array]) -> Array:
    return np.array([len(text) for text in texts], np.int64)
