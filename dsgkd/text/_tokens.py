"""What does a tokeniser make of many texts at once?"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from dsgkd.text._ragged import Array, Ragged

_CHUNK_CHARACTERS = 1_000_000
"""Characters tokenised in one call: enough to keep every core busy, little enough for memory."""
_PROBE = "abc 123 가나 漢字"
"""Text that any tokeniser makes at least one token of."""


class Frame(NamedTuple):
    """The special tokens that a tokeniser puts before and after every text."""

    before: list[int]
    """Mostly [CLS]; some tokenisers have none."""
    after: list[int]
    """Mostly [SEP]; some tokenisers have none."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Frame":
        """Find out by trying."""
        probe = tokenizer(_PROBE, return_special_tokens_mask=True)
        ids, special = probe["input_ids"], np.asarray(probe["special_tokens_mask"], dtype=bool)
        content = np.flatnonzero(~special)
        if not len(content):
            return cls(ids, [])
        return cls(ids[: content[0]], ids[content[-1] + 1 :])

    def around(self, tokens: Ragged, kept: Array) -> Array:
        """Put the special tokens around the first `kept` tokens of each text; flat int32."""
        length = kept + len(self.before) + len(self.after)
        start = np.cumsum(length) - length
        content = Ragged(tokens.values, tokens.starts, kept)
        ids = np.empty(int(length.sum()), np.int32)
        ids[np.repeat(start + len(self.before), kept) + content.positions()] = content.flat()
        for position, token in enumerate(self.before):
            ids[start + position] = token
        for position, token in enumerate(reversed(self.after), start=1):
            ids[start + length - position] = token
        return ids


def tokenize(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, offsets: bool = False
) -> tuple[Ragged, Array]:
    """Tokenise on all cores, without special tokens and without truncation.

    Returns:
        The token ids, and the half-open character span of each token: `[tokens, 2]`, or `[0, 2]`
        where it was not asked for.
    """
    encoding = tokenizer(
        texts,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    ids = encoding["input_ids"]
    spans = flat_array(chain.from_iterable(encoding["offset_mapping"] if offsets else []))
    return Ragged.of_lengths(flat_array(ids), row_lengths(ids)), spans.reshape(-1, 2)


def chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts into lists of about a million characters, to be tokenised in one call each."""
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def row_lengths(rows: Sequence[Any]) -> Array:
    """Return the length of each row: `[rows]` int64."""
    return np.fromiter(map(len, rows), np.int64, len(rows))


def flat_array(rows: Iterable[Iterable[int]]) -> Array:
    """Lay rows of integers end to end: int64."""
    return np.fromiter(chain.from_iterable(rows), np.int64)
