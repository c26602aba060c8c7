"""Many texts tokenised at once, each different piece of them once."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import models, normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel
from transformers import PreTrainedTokenizerBase

from dsgkd.data.ragged import Array, Ragged

_CHUNK_CHARACTERS = 1_000_000
"""Characters tokenised in one call: enough to keep every core busy, little enough for memory."""
_PROBE = "abc 123 가나 漢字"
"""Text that any tokeniser makes at least one token of."""
_BEFORE_SPACE = re.compile(r"(?<=\S)(?= \S)")


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


class Pieces(NamedTuple):
    """Several texts cut into pieces, of which every different one is kept once."""

    distinct: list[str]
    """The different pieces."""
    number: Ragged
    """The pieces of each text, at least one, by their place among the different ones: int64."""

    @classmethod
    def of(cls, rows: list[list[str]]) -> "Pieces":
        """Number the pieces of each text."""
        place = {piece: n for n, piece in enumerate(dict.fromkeys(chain.from_iterable(rows)))}
        number = np.fromiter(map(place.__getitem__, chain.from_iterable(rows)), np.int64)
        return cls(list(place), Ragged.of_lengths(number, row_lengths(rows)))

    def starts(self, lengths: Array) -> Array:
        """Return where each piece of each text starts in it: `[pieces of all texts]` int64.

        Args:
            lengths: of each different piece.
        """
        length = lengths[self.number.values]
        start = np.cumsum(length) - length
        return start - np.repeat(start[self.number.starts], self.number.lengths)

    def joined(self, tokens: Ragged) -> Ragged:
        """Lay the tokens of each text's pieces end to end."""
        chosen = tokens.take(self.number.values)
        lengths = np.add.reduceat(chosen.lengths, self.number.starts)
        return Ragged.of_lengths(chosen.flat(), lengths)


def at_spaces(text: str) -> list[str]:
    """Cut at every space, and drop it."""
    return text.split(" ")


def before_spaces(text: str) -> list[str]:
    """Cut before every single space inside the text, and keep it."""
    return _BEFORE_SPACE.split(text)


def nowhere(text: str) -> list[str]:
    """Do not cut."""
    return [text]


def cut_for(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[str]]:
    """Choose a cut after which every piece alone has the tokens that it has in the text.

    Notes repeat their words, so it is much cheaper to tokenise each different piece once. BERT's
    tokenisers read what stands between two spaces for itself, RoBERTa's and GPT-2's a word with
    the space before it. Of any other tokeniser, and where an added token may reach over a space,
    nothing is known.
    """
    backend = tokenizer.backend_tokenizer
    splitter, normalizer = backend.pre_tokenizer, backend.normalizer
    for token in backend.get_added_tokens_decoder().values():
        written = normalizer.normalize_str(token.content) if normalizer else token.content
        if token.rstrip or any(map(str.isspace, token.content + written)):
            return nowhere
    if isinstance(backend.model, models.WordPiece):
        known = normalizer is None or isinstance(normalizer, normalizers.BertNormalizer)
        return at_spaces if known and isinstance(splitter, BertPreTokenizer) else nowhere
    if isinstance(backend.model, models.BPE) and normalizer is None:
        known = isinstance(splitter, ByteLevel) and splitter.use_regex
        return before_spaces if known else nowhere
    return nowhere


def tokenize(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, offsets: bool = False
) -> tuple[Ragged, Array]:
    """Tokenise on all cores, without special tokens and without truncation.

    Returns:
        The token ids, and the half-open character span of each token: `[tokens, 2]`, or `[0, 2]`
        where it was not asked for.
    """
    # Not by calling the tokeniser, which takes longer to wrap a short text than to read it.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encode_batch = backend.encode_batch if offsets else backend.encode_batch_fast
    encodings = encode_batch(texts, add_special_tokens=False)
    ids = flat_array(encoding.ids for encoding in encodings)
    spans = chain.from_iterable(e.offsets for e in encodings) if offsets else ()
    return Ragged.of_lengths(ids, row_lengths(encodings)), flat_array(spans).reshape(-1, 2)


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
