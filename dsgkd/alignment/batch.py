"""Batches: some texts as the tensors that the models of a run read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dsgkd.alignment.alignment import Alignment
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.data.ragged import Array, Ragged

_MULTIPLE = 8
"""Lengths are padded to a multiple of this, for the matrix units of GPUs, within `max_length`."""


class Movable:
    """A frozen dataclass of tensors that goes to a device as a whole."""

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """Return the same on another device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same in page-locked memory, from which copies to a GPU are asynchronous."""
        return self.each(Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with `change` applied to every tensor in it."""
        changed = {name: _each(value, change) for name, value in vars(self).items()}
        return replace(self, **changed)  # type: ignore[type-var]


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Movable):
        return value.each(change)
    if isinstance(value, tuple):
        return tuple(_each(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return value


@dataclass(frozen=True, eq=False)
class WordSpans(Movable):
    """Where words lie among the tokens of a batch."""

    spans: Tensor
    """Half-open token spans, [0, 0] where there is no word: `[batch, words, 2]` int64."""
    tokens: int | None = None
    """The most tokens of words in one text, known without asking the device; None: unknown."""


@dataclass(frozen=True, eq=False)
class Side(Movable):
    """One model's view of a batch."""

    input_ids: Tensor
    """Token ids: `[batch, length]` int64."""
    attention_mask: Tensor
    """1 for a token, 0 for padding: `[batch, length]` int64."""
    words: WordSpans
    """The words that the model itself has, whatever any other model knows."""
    is_full: bool = False
    """No text is padded, so that the mask need not be applied."""
    predicted: Tensor | None = None
    """Positions at which a language model is to predict: `[batch, length]` bool; None: all."""


@dataclass(frozen=True, eq=False)
class Pair(Movable):
    """The words of a batch that are transferred from one teacher to the student."""

    student: WordSpans
    """Where they lie among the student's tokens."""
    teacher: Side | None
    """What the teacher reads, with the spans of these words; None where no teacher reads it."""
    positions: Tensor
    """Position of each word among those that the teacher has: `[batch, words]` int64."""
    mask: Tensor
    """Whether the word exists: `[batch, words]` bool."""
    keys: Tensor
    """Name of what the teacher reads of each text (`View.keys`): `[batch]` int64."""
    length: int
    """Tokens to which the student's texts are padded."""
    names: Tensor | None = None
    """Name of each word by the teacher's tokens (`View.word_names`): `[batch, words]` int64; None
    where nobody asks."""


@dataclass(frozen=True, eq=False)
class Batch(Movable):
    """Texts, their labels and their words, as the student and each teacher see them."""

    rows: Tensor
    """Position of each text in the `EncodedTexts`: `[batch]` int64."""
    labels: Tensor
    """Class of each text, `UNLABELLED` where it has none: `[batch]` int64."""
    student: Side
    """The student's tokens."""
    pairs: tuple[Pair, ...] = ()
    """One for each teacher."""
    targets: Movable | None = None
    """What a task wants besides labels; see `Task.prepare`."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Collator:
    """Assembles batches for the models of one run; every worker gets its share."""

    max_words: int
    """The most words transferred from one text; the first ones are taken."""
    rank: int = 0
    """Which worker this is; it gets every `world_size`-th text of each batch."""
    world_size: int = 1
    own_words: bool = False
    """Mark the student's own words, which some heads read."""
    teacher_tokens: tuple[bool, ...] = ()
    """For each teacher, whether its tokens are read; a stored teacher needs none."""
    same_length: bool = False
    """Pad both models' texts to the longer of the two lengths."""
    word_names: bool = False
    """Name the words, for teachers that look them up by themselves."""
    pad_to: int | None = None
    """Pad every text to this length, rather than to the batch's longest rounded up to a multiple
    of 8, which never exceeds the texts' `max_length`."""

    def __call__(self, texts: EncodedTexts, rows: Array) -> Batch:
        """Return this worker's share of the batch made of `rows`, which may be empty.

        Shapes are those of the whole batch on every worker.
        """
        mine = rows[self.rank :: self.world_size]
        length = self._length(texts.student, rows)
        wants = self.teacher_tokens or (True,) * len(texts.teachers)
        lengths = [self._length(view, rows) for view in texts.teachers]
        if self.same_length:
            length = max([length, *lengths])
            lengths = [length] * len(lengths)
        own = texts.student.take(mine)
        words = self._spans(texts.student.words, rows) if self.own_words else _no_words(len(mine))
        return Batch(
            rows=torch.from_numpy(mine.astype(np.int64)),
            labels=torch.from_numpy(texts.labels[mine].astype(np.int64)),
            student=_side(own.tokens, own.pad, words, length),
            pairs=tuple(
                self._pair(alignment, view, rows, length, theirs if wanted else None)
                for alignment, view, theirs, wanted in zip(
                    texts.alignments, texts.teachers, lengths, wants, strict=True
                )
            ),
        )

    def _length(self, view: View, rows: Array) -> int:
        longest = int(view.lengths[rows].max(initial=1))
        if self.pad_to is not None and longest > self.pad_to:
            raise ValueError(f"pad_to {self.pad_to} is shorter than a text of {longest} tokens")
        return self.pad_to or padded_length(longest, view.max_length)

    def _spans(self, words: Ragged, rows: Array) -> Tensor:
        width = min(self.max_words, int(words.lengths[rows].max(initial=0)))
        mine = words.take(rows[self.rank :: self.world_size])
        return torch.from_numpy(mine.padded(width, 0).astype(np.int64))

    def _pair(
        self, alignment: Alignment, view: View, rows: Array, length: int, theirs: int | None
    ) -> Pair:
        mine = rows[self.rank :: self.world_size]
        spans = self._spans(alignment.words, rows)  # [batch, words, 5]
        mask = np.arange(spans.shape[1]) < alignment.words.lengths[mine][:, None]
        names = None
        if self.word_names and len(view.word_names.values):
            every = view.word_names.take(mine)
            # An absent word has position 0, also in a text without any.
            places = np.minimum(
                every.starts[:, None] + spans[..., 4].numpy(), len(every.values) - 1
            )
            names = torch.from_numpy(every.values[places])
        side = None
        if theirs is not None:
            side = _side(view.tokens.take(mine), view.pad, spans[..., 2:4], theirs)
        return Pair(
            student=_word_spans(spans[..., :2]),
            teacher=side,
            positions=spans[..., 4],
            mask=torch.from_numpy(mask),
            keys=torch.from_numpy(view.keys[mine]),
            length=length,
            names=names,
        )


def evaluation_batches(texts: EncodedTexts, batch_size: int, collate: Collator) -> Iterator[Batch]:
    """Yield every text once, longest first."""
    order = np.argsort(-texts.lengths, kind="stable")
    for at in range(0, len(order), batch_size):
        yield collate(texts, order[at : at + batch_size])


def teacher_batches(
    view: View, rows: Array, words: Array, tokens: int
) -> Iterator[tuple[Array, Side]]:
    """Yield what a teacher reads of some texts, of similar length together, longest first.

    Args:
        view: the teacher's view of the texts.
        rows: which of them.
        words: [texts], how many of the words that the teacher has to mark in each.
        tokens: the most tokens of a batch, padding included; one text may have more.

    Yields:
        The rows of the batch, and the teacher's side of it.
    """
    order = rows[np.argsort(-view.lengths[rows], kind="stable")]
    at = 0
    while at < len(order):
        length = padded_length(int(view.lengths[order[at]]), view.max_length)
        mine = order[at : at + max(1, tokens // length)]
        marked = view.words.take(mine)
        marked = Ragged(marked.values, marked.starts, words[mine])
        spans = torch.from_numpy(marked.padded(int(words[mine].max()), 0).astype(np.int64))
        yield mine, _side(view.tokens.take(mine), view.pad, spans, length)
        at += len(mine)


def padded_length(longest: int, max_length: int) -> int:
    """Return the length to which a batch is padded."""
    # A model may have no position beyond `max_length`, even for padding.
    return min(-(-longest // _MULTIPLE) * _MULTIPLE, max_length)


def _side(tokens: Ragged, pad: int, spans: Tensor, length: int) -> Side:
    ids = tokens.padded(length, pad).astype(np.int64)
    attention = (np.arange(length) < tokens.lengths[:, None]).astype(np.int64)
    is_full = bool((tokens.lengths == length).all())
    words = _word_spans(spans)
    return Side(torch.from_numpy(ids), torch.from_numpy(attention), words, is_full)


def _word_spans(spans: Tensor) -> WordSpans:
    return WordSpans(
        spans, int((spans[..., 1] - spans[..., 0]).sum(1).max()) if spans.numel() else 0
    )


def _no_words(texts: int) -> Tensor:
    return torch.zeros(texts, 0, 2, dtype=torch.int64)
