"""The tokens of one model that spell each word to transfer.

Tokens are counted here without the special ones before and after the text.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment._tokens import Pieces, flat_array, row_lengths
from dsgkd.alignment.words import Span
from dsgkd.data.ragged import Array, Ragged

# How SentencePiece and byte-level BPE write a space.
_SPACES = "\u2581\u0120 "

CUT = -1
"""Stands for the start and the end of a word that is not inside the tokens."""
UNKNOWN = -2
"""Stands for the start and the end of a word that is inside, but in part as the unknown token."""


class WordSpans(NamedTuple):
    """The words of several texts, one after the other."""

    start: Array
    """First token of each word, or `CUT`, or `UNKNOWN`: `[words]` int64."""
    end: Array
    """The token after the last of each word, or `CUT`, or `UNKNOWN`: `[words]` int64."""
    counts: Array
    """Number of words in each text: `[texts]` int64."""


class Meaningless(NamedTuple):
    """Token ids that do not spell a part of a word."""

    special: list[int]
    """[CLS], [SEP] and the like, which a note may spell out."""
    blank: list[int]
    """A space and nothing else."""
    unknown: list[int]
    """The unknown token, if there is one: it stands for a part of a word but does not tell it."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Meaningless":
        """Look up these tokens of a tokeniser."""
        unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
        special = [i for i in tokenizer.all_special_ids if i not in unknown]
        vocabulary = tokenizer.get_vocab()
        blank = [i for token, i in vocabulary.items() if not token.strip(_SPACES)]
        return cls(special, blank, unknown)


def script_spans(
    texts: Sequence[str],
    words: Sequence[Sequence[Span]],
    tokens: Ragged,
    offsets: Array,
    meaningless: Meaningless,
) -> Ragged:
    """Find the tokens that overlap each word, by character offsets.

    Args:
        texts: the texts that were tokenised.
        words: the character spans of the words of each text.
        tokens: the token ids of each text, not truncated.
        offsets: the half-open character span of each token: `[tokens, 2]` int64.
        meaningless: ids of tokens that do not spell a part of a word.

    Returns:
        For each word of each text its first token, the one after its last, and `CUT` or `UNKNOWN`
        where these do not spell it, else 0: `[words, 3]` int64.
    """
    counts = row_lengths(words)
    row = np.repeat(np.arange(len(texts)), counts)
    # All texts are laid end to end, so that one search serves them all.
    width = row_lengths(texts)
    base = np.cumsum(width) - width
    word = flat_array(chain.from_iterable(words)).reshape(-1, 2) + base[row, None]
    # SentencePiece's space before the first word claims that word's first character.
    blank = np.isin(tokens.values, meaningless.blank)
    token_end = np.where(blank, offsets[:, 0], offsets[:, 1])
    placed = np.stack([offsets[:, 0], token_end], axis=1) + base[tokens.rows(), None]
    # A token without characters of its own may claim an earlier place; a search needs order.
    placed = np.maximum.accumulate(placed, axis=0)
    first = np.searchsorted(placed[:, 1], word[:, 0], side="right")
    last = np.searchsorted(placed[:, 0], word[:, 1], side="left")

    def among(ids: list[int]) -> Array:
        """Tell which words have one of these tokens."""
        before = np.concatenate([[0], np.cumsum(np.isin(tokens.values, ids))])
        return before[last] > before[first]

    lost = [(first >= last) | among(meaningless.special), among(meaningless.unknown)]
    start = tokens.starts[row]
    spans = [first - start, last - start, np.select(lost, [CUT, UNKNOWN])]
    return Ragged.of_lengths(np.stack(spans, axis=1), counts)


def joined_spans(spans: Ragged, pieces: Pieces, tokens: Ragged, kept: Array) -> WordSpans:
    """Find the words of texts from those of their pieces.

    Args:
        spans: what `script_spans` says of each different piece.
        pieces: the texts.
        tokens: the token ids of each different piece.
        kept: how many tokens of each text the model sees: `[texts]` int64.

    Returns:
        The spans of the words; one of which a token is cut off is not inside.
    """
    chosen = spans.take(pieces.number.values)
    start, end, lost = chosen.flat().T
    shift = np.repeat(pieces.starts(tokens.lengths), chosen.lengths)
    counts = np.add.reduceat(chosen.lengths, pieces.number.starts)
    lost = np.where(end + shift > np.repeat(kept, counts), CUT, lost)
    start, end = (np.where(lost < 0, lost, token + shift) for token in (start, end))
    return WordSpans(start, end, counts)


def paper_spans(items: Pieces, alone: Array, kept: Array) -> WordSpans:
    """Count the tokens of words tokenised alone (the DSG-KD reference).

    The scan stops at a word that starts where the text's tokens end, and an end beyond is cut to
    there. In a text of `max_length` tokens that is the paper's M - 1; in a shorter one it keeps a
    tokeniser that treats words alone differently from pointing at padding.

    Args:
        items: the texts, cut at every space.
        alone: how many tokens each different item has, tokenised alone: int64.
        kept: how many tokens of each text the model sees: `[texts]` int64.
    """
    number = items.number
    words = np.fromiter((i.isascii() and i.isalpha() for i in items.distinct), np.bool_)
    is_word = words[number.values]
    row = number.rows()[is_word]
    start = items.starts(alone)[is_word]
    end = np.minimum(start + alone[number.values[is_word]], kept[row])
    inside = start < end
    counts = np.bincount(row, minlength=len(number))
    return WordSpans(np.where(inside, start, CUT), np.where(inside, end, CUT), counts)
