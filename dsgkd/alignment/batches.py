"""In which order do texts reach the models, and as which tensors?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.data.ragged import Array, Ragged

_POOL_BATCHES = 50
"""Batches whose texts are sorted by length together: little padding, order still random."""
_MULTIPLE = 8
"""Lengths are padded to a multiple of this, for the matrix units of GPUs, within `max_length`."""


class _Movable:
    """A frozen dataclass of tensors that goes to a device as a whole."""

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """Return the same on another device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same in page-locked memory, from which copies to a GPU are asynchronous."""
        return self.each(Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with `change` applied to every tensor in it."""
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = change(value)
            elif isinstance(value, _Movable):
                changed[name] = value.each(change)
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class Side(_Movable):
    """One model's view of a batch."""

    input_ids: Tensor
    """Token ids: `[batch, length]` int64."""
    attention_mask: Tensor
    """1 for a token, 0 for padding: `[batch, length]` int64."""
    spans: Tensor
    """Half-open token spans of the words, [0, 0] where absent: `[batch, words, 2]` int64."""
    word_tokens: int | None = None
    """The most tokens of words in one text, known without asking the device; None: unknown."""


@dataclass(frozen=True, eq=False)
class Batch(_Movable):
    """Texts, their labels and their words, as both models see them."""

    rows: Tensor
    """Position of each text in the `EncodedNotes`: `[batch]` int64."""
    keys: Tensor
    """Name of what the teacher reads of each text (`EncodedNotes.keys`): `[batch]` int64."""
    labels: Tensor
    """Class of each text: `[batch]` int64."""
    student: Side
    """The student's tokens."""
    teacher: Side | None
    """The teacher's tokens; None where no teacher reads them."""
    teacher_words: Tensor
    """Position of each word among those that the teacher knows: `[batch, words]` int64."""
    word_mask: Tensor
    """Whether the word exists: `[batch, words]` bool."""


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return the number of batches that `n` texts make; the last may be smaller."""
    return -(-n // batch_size)


def training_batches(
    notes: EncodedNotes,
    batch_size: int,
    cs_max_len: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    pad_to: int | None = None,
    same_length: bool = False,
) -> Iterator[Batch]:
    """Yield one epoch of shuffled, length-bucketed batches.

    The order is a pure function of (notes, batch_size, seed, epoch), so an epoch can be resumed at
    any batch and shared among any number of workers. Shapes are those of the whole batch on every
    worker, whatever its share, which may be empty.

    Args:
        notes: the texts, of one split.
        batch_size: texts in a batch, over all workers.
        cs_max_len: the most words transferred from one text; the first ones are taken.
        seed: seed of the order.
        epoch: number of the epoch, which varies the order.
        rank: which worker this is; it gets every `world_size`-th text of each batch.
        world_size: number of workers.
        start: how many batches to skip.
        pad_to: pad every text to this length, rather than to the batch's longest rounded up to a
            multiple of 8, which never exceeds the notes' `max_length`.
        same_length: pad both models' texts to the longer of the two lengths.
    """
    random = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    order = random.permutation(len(notes))
    pool_size = batch_size * _POOL_BATCHES
    pools = [order[at : at + pool_size] for at in range(0, len(order), pool_size)]
    pools = [pool[np.argsort(notes.lengths[pool], kind="stable")] for pool in pools]
    # Every pool but the last is a whole number of batches, so cutting the joined order cuts each.
    batches = _cut(np.concatenate(pools), batch_size) if pools else []
    for number in random.permutation(len(batches))[start:]:
        yield _batch(notes, batches[number], cs_max_len, rank, world_size, pad_to, same_length)


def evaluation_batches(
    notes: EncodedNotes, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield every text once, longest first, for the student alone: no teacher, no words."""
    order = np.argsort(-notes.lengths, kind="stable")
    alone = replace(notes, teacher=None)
    for rows in _cut(order, batch_size):
        yield _batch(alone, rows, 0, rank, world_size)


def teacher_batches(
    notes: EncodedNotes, rows: Array, words: Array, tokens: int
) -> Iterator[tuple[Array, Side]]:
    """Yield what a teacher reads of some texts, of similar length together, longest first.

    Args:
        notes: the texts.
        rows: which of them.
        words: [notes], how many of the words that the teacher knows to mark in each.
        tokens: the most tokens of a batch, padding included; one text may have more.

    Yields:
        The rows of the batch, and the teacher's side of it.
    """
    assert notes.teacher is not None
    order = rows[np.argsort(-notes.teacher.lengths[rows], kind="stable")]
    at = 0
    while at < len(order):
        length = _padded_length(int(notes.teacher.lengths[order[at]]), notes.max_length)
        mine = order[at : at + max(1, tokens // length)]
        marked = notes.teacher_words.take(mine)
        marked = Ragged(marked.values, marked.starts, words[mine])
        spans = torch.from_numpy(marked.padded(int(words[mine].max()), 0).astype(np.int64))
        yield mine, _side(notes.teacher.take(mine), notes.teacher_pad, spans, length)
        at += len(mine)


def _padded_length(longest: int, max_length: int) -> int:
    # A model may have no position beyond `max_length`, even for padding.
    return min(-(-longest // _MULTIPLE) * _MULTIPLE, max_length)


def _side(tokens: Ragged, pad: int, spans: Tensor, length: int) -> Side:
    ids = tokens.padded(length, pad).astype(np.int64)
    attention = (np.arange(length) < tokens.lengths[:, None]).astype(np.int64)
    word_tokens = int((spans[..., 1] - spans[..., 0]).sum(1).max()) if spans.numel() else 0
    return Side(torch.from_numpy(ids), torch.from_numpy(attention), spans, word_tokens)


def _cut(order: Array, batch_size: int) -> list[Array]:
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def _batch(
    notes: EncodedNotes,
    rows: Array,
    cs_max_len: int,
    rank: int,
    world_size: int,
    pad_to: int | None = None,
    same_length: bool = False,
) -> Batch:
    """Assemble one worker's share of the batch made of `rows`."""
    mine = rows[rank::world_size]
    words = notes.words.take(mine)
    width = min(cs_max_len, int(notes.words.lengths[rows].max(initial=0)))
    spans = torch.from_numpy(words.padded(width, 0).astype(np.int64))  # [batch, words, 5]
    mask = np.arange(width) < words.lengths[:, None]

    def length_of(*sides: Ragged) -> int:
        longest = max(int(side.lengths[rows].max(initial=1)) for side in sides)
        if pad_to is not None and longest > pad_to:
            raise ValueError(f"pad_to {pad_to} is shorter than a text of {longest} tokens")
        return pad_to or _padded_length(longest, notes.max_length)

    both = [notes.student] if notes.teacher is None else [notes.student, notes.teacher]

    def side(tokens: Ragged, pad: int, spans: Tensor) -> Side:
        length = length_of(*both) if same_length else length_of(tokens)
        return _side(tokens.take(mine), pad, spans, length)

    theirs = notes.teacher
    return Batch(
        rows=torch.from_numpy(mine.astype(np.int64)),
        keys=torch.from_numpy(notes.keys[mine]),
        labels=torch.from_numpy(notes.labels[mine].astype(np.int64)),
        student=side(notes.student, notes.student_pad, spans[..., :2]),
        teacher=None if theirs is None else side(theirs, notes.teacher_pad, spans[..., 2:4]),
        teacher_words=spans[..., 4],
        word_mask=torch.from_numpy(mask),
    )
