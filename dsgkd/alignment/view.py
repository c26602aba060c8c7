"""One model's view of a set of texts: its tokens, and where the words to transfer stand in them.

Every text is tokenised once for each model. The script-aware rule finds a word's tokens by the
character offsets of the tokeniser, which holds for any fast tokeniser; the paper's rule counts the
tokens of words tokenised alone, as the paper does.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment._spans import Meaningless, joined_spans, paper_spans, script_spans
from dsgkd.alignment._tokens import Frame, Pieces, at_spaces, chunks, cut_for, tokenize
from dsgkd.alignment.substitution import Substitution
from dsgkd.alignment.words import WordRule, find_words, separated
from dsgkd.data.ragged import Array, Ragged, list_array
from dsgkd.data.sources import Notes, TextSource
from dsgkd.errors import InputError
from dsgkd.storage.stored_table import stored_table

_FORMAT = 2
"""Version of what `encode` returns; part of the name under which it is stored."""
_LONG_WORD = 512
"""Tokens of a word at most."""
_SCHEMA = pa.schema([(n, pa.list_(pa.int32())) for n in ("input_ids", "word_start", "word_end")])


def encode(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    rule: WordRule,
    separate: bool = False,
) -> pa.Table:
    """Tokenise texts and find the token span of every word to transfer.

    Args:
        texts: the texts.
        tokenizer: the model's fast tokeniser.
        max_length: the most tokens of a text, with special tokens.
        rule: which words.
        separate: let the model read the words apart from letters of other scripts attached to
            them (`words.separated`), for models that know no such mixture. The number and the
            order of the words stay. Nothing changes under the `paper` rule.

    Returns:
        A table with one row per text: `input_ids` list<int32>, with special tokens, truncated on
        the right to `max_length` tokens; `word_start` and `word_end` list<int32>, the half-open
        token span of every word that the rule finds, in order. No span covers a special token.
        Under the `script` rule it is (-1, -1) where the word is not wholly inside, and (-2, -2)
        where it is, but a part of it is the unknown token; under the `paper` rule (as in the
        DSG-KD reference) it is (-1, -1) where the word does not start inside.

    Raises:
        InputError: the tokeniser is not a fast one, or `max_length` leaves no room for text.
    """
    _check_fast(tokenizer)
    frame = Frame.of(tokenizer)
    room = max_length - len(frame.before) - len(frame.after)
    if room < 1:
        remedy = f"use at least {max_length - room + 1}"
        raise InputError("max_length", f"{max_length} leaves no room for text", remedy)
    meaningless = Meaningless.of(tokenizer)
    cut = cut_for(tokenizer)
    batches = [_SCHEMA.empty_table()]
    for chunk in chunks(texts):
        pieces = Pieces.of([cut(text) for text in chunk])
        if rule.kind == "script":
            read, found = [], []
            for piece in pieces.distinct:
                marked = find_words(piece, rule)
                piece, marked = separated(piece, marked) if separate else (piece, marked)
                read.append(piece)
                found.append(marked)
            parts, offsets = tokenize(read, tokenizer, offsets=True)
            spans = script_spans(read, found, parts, offsets, meaningless)
        else:
            parts, _ = tokenize(pieces.distinct, tokenizer)
        tokens = pieces.joined(parts)
        kept = np.minimum(tokens.lengths, room)
        if rule.kind == "script":
            words = joined_spans(spans, pieces, parts, kept)
        elif cut is at_spaces:
            words = paper_spans(pieces, parts.lengths, kept)
        else:
            items = Pieces.of([at_spaces(text) for text in chunk])
            words = paper_spans(items, tokenize(items.distinct, tokenizer)[0].lengths, kept)
        shift = np.where(words.start >= 0, len(frame.before), 0)
        columns = [
            list_array(frame.around(tokens, kept), kept + (max_length - room)),
            list_array(words.start + shift, words.counts),
            list_array(words.end + shift, words.counts),
        ]
        batches.append(pa.Table.from_arrays(columns, schema=_SCHEMA))
    return pa.concat_tables(batches).combine_chunks()


def encoded(
    notes: Notes | TextSource,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    rule: WordRule,
    cache: Path,
    separate: bool = False,
    substitution: Substitution | None = None,
) -> pa.Table:
    """Return what `encode` makes of the notes, computed once and stored below `cache`.

    With a substitution, it is what is read in place of the notes. The file
    `cache/encodings/<content hash>.arrow` is written atomically, readable by its owner only, and
    read back memory-mapped; a damaged one is computed anew. Processes may build the same one at
    once.

    Raises:
        InputError: as `encode`, or the file cannot be written.
    """
    key = [
        _FORMAT,
        notes.fingerprint,
        tokenizer_fingerprint(tokenizer),
        max_length,
        rule.kind,
        rule.script if rule.kind == "script" else "",
        separate and rule.kind == "script",
        *([substitution.fingerprint] if substitution else []),
    ]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()

    def build() -> pa.Table:
        texts = notes.table["text"].to_pylist()
        texts = substitution.applied(texts) if substitution else texts
        return encode(texts, tokenizer, max_length, rule, separate)

    return stored_table(Path(cache) / "encodings" / f"{name}.arrow", build)


def knows(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], rule: WordRule) -> list[bool]:
    """Tell which words a model reads, each alone, without its unknown token."""
    starts = encode(words, tokenizer, _LONG_WORD, rule)["word_start"]
    return [bool(start >= 0) for start in Ragged.of_column(starts).flat()]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of everything in a tokeniser that decides the tokens of a text.

    Raises:
        InputError: the tokeniser is not a fast one.
    """
    _check_fast(tokenizer)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # The last call's truncation and padding linger in the backend and are not the tokeniser's own.
    content = {key: backend[key] for key in backend if key not in ("truncation", "padding")}
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    frozen = json.dumps([content, special, tokenizer.pad_token_id], sort_keys=True)
    return hashlib.sha256(frozen.encode()).hexdigest()


@dataclass(frozen=True, repr=False, eq=False)
class View:
    """The tokens that one model reads of a set of texts, and the words among them."""

    tokens: Ragged
    """The token ids of each text, with special tokens: int32."""
    found: Ragged
    """Half-open token span of every word that the rule finds; negative where the model does not
    have it (see `encode`): `[words, 2]` int32."""
    pad: int
    """The token id with which batches are padded."""
    max_length: int
    """The most tokens of a text, with special tokens."""

    @classmethod
    def of(
        cls,
        texts: Notes | TextSource,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        rule: WordRule,
        cache: Path,
        separate: bool = False,
        substitution: Substitution | None = None,
    ) -> "View":
        """Tokenise texts, or read what was tokenised before; arguments and errors as `encoded`."""
        table = encoded(texts, tokenizer, max_length, rule, cache, separate, substitution)
        return cls._of_table(table, tokenizer, max_length)

    @classmethod
    def once(
        cls,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        rule: WordRule,
    ) -> "View":
        """Tokenise texts that are read once, such as those to predict on; nothing is stored."""
        return cls._of_table(encode(texts, tokenizer, max_length, rule), tokenizer, max_length)

    @classmethod
    def of_blocks(cls, blocks: Array, pad: int) -> "View":
        """View token blocks of one length, [blocks, length], in which no words are sought."""
        count, length = blocks.shape
        none = Ragged.of_lengths(np.zeros((0, 2), np.int32), np.zeros(count, np.int64))
        tokens = Ragged.of_lengths(blocks.reshape(-1), np.full(count, length))
        return cls(tokens, none, pad, length)

    @classmethod
    def _of_table(
        cls, table: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> "View":
        starts = Ragged.of_column(table["word_start"])
        spans = np.stack([starts.flat(), Ragged.of_column(table["word_end"]).flat()], axis=1)
        pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        found = Ragged.of_lengths(spans, starts.lengths)
        return cls(Ragged.of_column(table["input_ids"]), found, pad, max_length)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Array:
        """Number of tokens of each text: `[texts]` int64."""
        return self.tokens.lengths

    @cached_property
    def words(self) -> Ragged:
        """Token spans of the words that the model has: `[words, 2]` int32."""
        spans = self.found.flat()
        known = spans[:, 0] >= 0
        counts = np.bincount(self.found.rows()[known], minlength=len(self))
        return Ragged.of_lengths(spans[known], counts)

    @cached_property
    def keys(self) -> Array:
        """Names of all that the model reads of each text, tokens and words: `[texts]` int64.

        Equal keys, equal states, whatever the other model, the cache and the order of the texts.
        """
        keys = np.empty(len(self), np.int64)
        for row, (read, marked) in enumerate(zip(self.tokens, self.words, strict=True)):
            salt = len(read).to_bytes(8, "big")
            digest = hashlib.blake2b(read.tobytes(), digest_size=8, salt=salt)
            digest.update(marked.tobytes())
            keys[row] = int.from_bytes(digest.digest(), "big", signed=True)
        return keys

    @cached_property
    def word_names(self) -> Ragged:
        """Names of the words by their tokens, the same for the same tokens: `[words]` int64.

        Independent of the text around a word and of the texts beside it.
        """
        names: dict[bytes, int] = {}
        found = np.empty(int(self.words.lengths.sum()), np.int64)
        at = 0
        for read, marked in zip(self.tokens, self.words, strict=True):
            for start, end in marked.tolist():
                tokens = read[start:end].tobytes()
                if tokens not in names:
                    digest = hashlib.blake2b(tokens, digest_size=8).digest()
                    names[tokens] = int.from_bytes(digest, "big", signed=True)
                found[at] = names[tokens]
                at += 1
        return Ragged.of_lengths(found, self.words.lengths)

    def take(self, rows: Array) -> "View":
        """Select texts, in the order given; no token is copied."""
        taken = View(self.tokens.take(rows), self.found.take(rows), self.pad, self.max_length)
        # What is known already need not be computed anew.
        if "words" in vars(self):
            vars(taken)["words"] = self.words.take(rows)
        if "word_names" in vars(self):
            vars(taken)["word_names"] = self.word_names.take(rows)
        if "keys" in vars(self):
            vars(taken)["keys"] = self.keys[rows]
        return taken

    @classmethod
    def joined(cls, views: Sequence["View"]) -> "View":
        """Return the texts of several views of one model, one after the other."""
        if len(views) == 1:
            return views[0]
        tokens = Ragged.joined([view.tokens for view in views])
        found = Ragged.joined([view.found for view in views])
        return cls(tokens, found, views[0].pad, max(view.max_length for view in views))


def _check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise InputError(
            tokenizer.name_or_path or type(tokenizer).__name__,
            "not a fast tokeniser, so words cannot be found among its tokens",
            "use a model that has a tokenizer.json",
        )
