"""Where do the words to transfer stand among the tokens of the student and of the teacher?

Every text is tokenised once for each model. The script-aware rule finds a word's tokens by the
character offsets of the tokeniser, which holds for any fast tokeniser; the paper's rule counts the
tokens of words tokenised alone, as the paper does. Both are computed here for one model at a time;
a word is transferred where both models have it and, under the script-aware rule, neither reads a
part of it as its unknown token.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment._spans import UNKNOWN, Meaningless, joined_spans, paper_spans, script_spans
from dsgkd.alignment._tokens import Frame, Pieces, at_spaces, chunks, cut_for, tokenize
from dsgkd.alignment.words import WordRule, find_words, separated
from dsgkd.data.ragged import Array, Ragged, list_array
from dsgkd.data.sources import Notes
from dsgkd.errors import InputError
from dsgkd.storage.stored_table import stored_table

_FORMAT = 2
"""Version of what `encode` returns; part of the name under which it is stored."""
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
            them (`dsgkd.alignment.words.separated`), for models that know no such mixture. The number
            and the order of the words stay. Nothing changes under the `paper` rule.

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
    notes: Notes,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    rule: WordRule,
    cache: Path,
    separate: bool = False,
) -> pa.Table:
    """Return what `encode` makes of the notes, computed once and stored below `cache`.

    The file `cache/encodings/<content hash>.arrow` is written atomically, readable by its owner
    only, and read back memory-mapped; a damaged one is computed anew. Processes may build the same
    one at once.

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
    ]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()

    def build() -> pa.Table:
        return encode(notes.table["text"].to_pylist(), tokenizer, max_length, rule, separate)

    return stored_table(Path(cache) / "encodings" / f"{name}.arrow", build)


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
class EncodedNotes:
    """One student's and, where there is one, one teacher's view of a set of notes.

    Word spans are those of the transferable words: both models have a valid span for them.
    """

    example_ids: list[str]
    """Keyed hash of each note."""
    group_ids: list[str | None]
    """Keyed hash of each note's patient, or None."""
    labels: Array
    """Class of each note: `[notes]` int64."""
    splits: Array
    """Name of each note's split: `[notes]` str."""
    label_names: tuple[str, ...]
    """Name of each class, in the order of their indices."""
    student: Ragged
    """The student's token ids."""
    teacher: Ragged | None
    """The teacher's token ids."""
    words: Ragged
    """The transferable words: (student start, student end, teacher start, teacher end, position
    among the words that the teacher knows)."""
    teacher_words: Ragged
    """Token spans of all words that the teacher knows, whatever the student: (start, end)."""
    keys: Array
    """Name of all that the teacher reads of each text, its tokens and its words: `[notes]` int64.
    Equal keys, equal states, whatever the student, the cache and the order of the notes."""
    words_found: Array
    """How many words the rule finds in each text: `[notes]` int64."""
    words_unknown: Array
    """How many of them the teacher, and how many others the student, reads as its unknown token:
    `[notes, 2]` int64."""
    max_length: int
    """The most tokens of a text, with special tokens."""
    student_pad: int
    """The token id with which the student's batches are padded."""
    teacher_pad: int
    """The token id with which the teacher's batches are padded."""

    @classmethod
    def build(
        cls,
        notes: Notes,
        student_tokenizer: PreTrainedTokenizerBase,
        teacher_tokenizer: PreTrainedTokenizerBase | None,
        max_length: int,
        rule: WordRule,
        cache: Path,
    ) -> "EncodedNotes":
        """Encode notes for a student and a teacher; without a teacher there are no words.

        The student reads the text as it is written. The teacher, which has to know the words but
        not the language around them, reads the words apart from letters attached to them.

        Raises:
            InputError: as `encoded`.
        """
        student = encoded(notes, student_tokenizer, max_length, rule, cache)
        teacher = None
        if teacher_tokenizer is not None:
            teacher = encoded(notes, teacher_tokenizer, max_length, rule, cache, separate=True)
        words, words_unknown = _transferable(student, teacher)
        teacher_words, keys = _read_by(teacher, len(student))
        return cls(
            example_ids=notes.table["example_id"].to_pylist(),
            group_ids=notes.table["group_id"].to_pylist(),
            labels=notes.table["label"].to_numpy(),
            splits=np.asarray(notes.table["split"].to_pylist(), dtype=str),
            label_names=notes.label_names,
            student=Ragged.of_column(student["input_ids"]),
            teacher=None if teacher is None else Ragged.of_column(teacher["input_ids"]),
            words=words,
            teacher_words=teacher_words,
            keys=keys,
            words_found=Ragged.of_column(student["word_start"]).lengths,
            words_unknown=words_unknown,
            max_length=max_length,
            student_pad=_pad_id(student_tokenizer),
            teacher_pad=0 if teacher_tokenizer is None else _pad_id(teacher_tokenizer),
        )

    @classmethod
    def unlabelled(
        cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> "EncodedNotes":
        """Encode texts to predict on: no labels (all zero), no teacher, nothing stored."""
        table = encode(texts, tokenizer, max_length, WordRule())
        words, words_unknown = _transferable(table, None)
        teacher_words, keys = _read_by(None, len(texts))
        return cls(
            example_ids=[""] * len(texts),
            group_ids=[None] * len(texts),
            labels=np.zeros(len(texts), np.int64),
            splits=np.full(len(texts), ""),
            label_names=(),
            student=Ragged.of_column(table["input_ids"]),
            teacher=None,
            words=words,
            teacher_words=teacher_words,
            keys=keys,
            words_found=Ragged.of_column(table["word_start"]).lengths,
            words_unknown=words_unknown,
            max_length=max_length,
            student_pad=_pad_id(tokenizer),
            teacher_pad=0,
        )

    def split(self, name: str) -> "EncodedNotes":
        """Return the notes of one split, in their order; token ids are shared, not copied."""
        rows = np.flatnonzero(self.splits == name)
        return replace(
            self,
            example_ids=[self.example_ids[row] for row in rows],
            group_ids=[self.group_ids[row] for row in rows],
            labels=self.labels[rows],
            splits=self.splits[rows],
            student=self.student.take(rows),
            teacher=None if self.teacher is None else self.teacher.take(rows),
            words=self.words.take(rows),
            teacher_words=self.teacher_words.take(rows),
            keys=self.keys[rows],
            words_found=self.words_found[rows],
            words_unknown=self.words_unknown[rows],
        )

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def lengths(self) -> Array:
        """Length of each text in the student's tokens: `[notes]` int64."""
        return self.student.lengths


def _transferable(student: pa.Table, teacher: pa.Table | None) -> tuple[Ragged, Array]:
    """Keep the words for which both sides have a valid span; count the unknown ones per text."""
    if teacher is None:
        unknown = np.zeros((student.num_rows, 2), np.int64)
        return Ragged.of_lengths(np.zeros((0, 5), np.int32), unknown[:, 0]), unknown
    columns = [table[name] for table in (student, teacher) for name in ("word_start", "word_end")]
    found = Ragged.of_column(columns[0])
    spans = np.stack([Ragged.of_column(column).flat() for column in columns], axis=1)
    rows = found.rows()

    def per_text(which: Array) -> Array:
        return np.bincount(rows[which], minlength=len(found))

    # A running number of the teacher's words, counted anew in each text.
    known = np.concatenate([[0], np.cumsum(spans[:, 2] >= 0)])
    position = known[:-1] - known[found.starts[rows]]
    valid = np.all(spans >= 0, axis=1)
    unknown = np.equal(spans[:, [2, 0]], UNKNOWN)  # [words, teacher and student]
    unknown[:, 1] &= ~unknown[:, 0]
    counts = np.stack([per_text(side) for side in unknown.T], axis=1)
    words = np.column_stack([spans, position])[valid].astype(np.int32)
    return Ragged.of_lengths(words, per_text(valid)), counts


def _read_by(teacher: pa.Table | None, texts: int) -> tuple[Ragged, Array]:
    """Return the words that a teacher knows, and the key of all that it reads of each text."""
    if teacher is None:
        none = np.zeros(texts, np.int64)
        return Ragged.of_lengths(np.zeros((0, 2), np.int32), none), none
    starts = Ragged.of_column(teacher["word_start"])
    spans = np.stack([starts.flat(), Ragged.of_column(teacher["word_end"]).flat()], axis=1)
    known = spans[:, 0] >= 0
    words = Ragged.of_lengths(spans[known], np.bincount(starts.rows()[known], minlength=texts))
    tokens = Ragged.of_column(teacher["input_ids"])
    keys = np.empty(texts, np.int64)
    for row, (read, marked) in enumerate(zip(tokens, words, strict=True)):
        digest = hashlib.blake2b(read.tobytes(), digest_size=8, salt=len(read).to_bytes(8, "big"))
        digest.update(marked.tobytes())
        keys[row] = int.from_bytes(digest.digest(), "big", signed=True)
    return words, keys


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def _check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise InputError(
            tokenizer.name_or_path or type(tokenizer).__name__,
            "not a fast tokeniser, so words cannot be found among its tokens",
            "use a model that has a tokenizer.json",
        )
