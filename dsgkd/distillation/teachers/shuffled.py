"""A control teacher: each word is given the states of another word.

A permutation control: every state of the real teacher is still there, and just once, so the mean,
the scale and the whole marginal distribution of what a student is to reach are kept. Only which
word it belongs to is not. What such a teacher gains is not gained from knowing the words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dsgkd.alignment.batch import Pair
from dsgkd.distillation.teachers.teacher import Teacher
from dsgkd.models.taps import WordStates

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_LAST = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class ShuffledTeacher:
    """A teacher whose states are dealt out to the wrong words.

    Hidden states go round among all words of the batch (with several workers, of the worker's
    share), attention rows among the words of the same text. No word keeps its own where there
    are two or more; another occurrence of the same term may still come its way. Who gets whose
    follows from the seed and from which texts are in the batch in which order, so live and stored
    teachers agree, a resumed run meets the same, and other batches of other epochs meet others.
    """

    teacher: Teacher
    """The real one."""
    seed: int
    """The run's."""

    def word_states(self, pair: Pair) -> WordStates:
        """Return the teacher's states of the batch's words, each those of another word."""
        states, mask = self.teacher.word_states(pair), pair.mask
        scores = _scores(pair, self.seed)
        across = another(scores.flatten(), mask.flatten())  # [batch * words]
        within = another(scores, mask)[:, None, :, None]  # [batch, 1, words, 1]
        return WordStates(
            {
                layer: hidden.flatten(0, 1)[across].view_as(hidden)
                for layer, hidden in states.hidden.items()
            },
            {
                layer: rows.gather(2, within.expand_as(rows))
                for layer, rows in states.attention.items()
            },
        )


def another(scores: Tensor, mask: Tensor) -> Tensor:
    """Return for each word which other word of its row it gets the state of.

    The words of a row, in the order of their scores, stand in a ring, and each gets what the next
    one has. With random scores that is a uniformly random cyclic permutation, as Sattolo's
    algorithm draws; but without a loop, and without asking the device for the number of words.

    Args:
        scores: [..., words] int64.
        mask: [..., words] bool, true where there is a word.

    Returns:
        [..., words] int64, positions in the row; absent words and a word alone keep their own.
    """
    order = scores.masked_fill(~mask, _LAST).argsort(dim=-1, stable=True)  # absent words last
    place = torch.arange(mask.shape[-1], device=mask.device).expand_as(order)
    count = mask.sum(-1, keepdim=True)
    following = torch.where(place + 1 < count, place + 1, torch.zeros_like(place))
    following = torch.where(place < count, following, place)
    return torch.empty_like(order).scatter_(-1, order, order.gather(-1, following))


def _scores(pair: Pair, seed: int) -> Tensor:
    """Return a random non-negative number for each word of a batch, [batch, words] int64.

    Integers only, so that every device computes the same.
    """
    texts, words = pair.mask.shape
    device = pair.keys.device
    text = torch.arange(texts, device=device)
    signature = _mixed(_mixed(pair.keys + _wrapped(seed * _GOLDEN)) + text).sum()
    place = torch.arange(texts * words, device=device).view(texts, words)
    return _mixed(_mixed(signature + place) + place) & (_LAST - 1)


def _mixed(numbers: Tensor) -> Tensor:
    """Scatter integers over all of int64 (the finaliser of SplitMix64; products wrap around)."""
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        numbers = (numbers ^ (numbers >> shift)) * _wrapped(multiplier)
    return numbers ^ (numbers >> 31)


def _wrapped(number: int) -> int:
    """Return an integer modulo 2^64 as a signed one."""
    return (number + 2**63) % 2**64 - 2**63
