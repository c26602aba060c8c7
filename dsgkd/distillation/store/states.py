"""The stored states of one teacher, found by the text they were computed from.

States are found by the key of all that the teacher read of a text (`View.keys`), never by
a position, so any order, split or copy of the notes finds its own. A text's first n words are
stored: fewer are a prefix. A layer that was stored later lies in other shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsgkd.alignment.batch import Pair
from dsgkd.distillation.store.shard import DamagedShard, Shard
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import StateKind
from dsgkd.models.taps import TapRequest, WordStates

Array = NDArray[Any]


class MissingStates(Exception):
    """Texts of a batch were never stored, or fewer of their words than are asked for."""


@dataclass(frozen=True)
class _Index:
    """Where each text's states are, for some parts that lie in the same shards."""

    keys: Array  # [texts] int64, ascending
    words: Array  # [texts] int32
    shards: Array  # [texts] int32
    rows: Array  # [texts] int32, inside the shard

    def find(self, keys: Array, words: Array) -> tuple[Array, Array]:
        """Return each key's place in the index, and whether it is there with enough words."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return places, (self.keys[places] == keys) & (self.words[places] >= words)


class States:
    """The stored states of one teacher. Opening it maps files and reads their indices only.

    Args:
        storage: where the shards are.
        teacher: the teacher's fingerprint.
    """

    def __init__(self, storage: ShardStorage, teacher: str) -> None:
        self.storage, self.teacher = storage, teacher
        self.refused: list[DamagedShard] = []
        """Files that are damaged or another teacher's; they count as missing."""
        self._shards: list[Shard] = []
        self._indices: dict[StateKind, _Index] = {}
        self._holders: dict[StateKind, list[int]] = {}
        self.reopen()

    def reopen(self) -> None:
        """Look again at which shards there are."""
        opened = {shard.path: shard for shard in self._shards}
        self._shards, self.refused, self._indices, self._holders = [], [], {}, {}
        for path in self.storage.shards():
            try:
                self._shards.append(opened.get(path) or Shard(path, self.teacher))
            except DamagedShard as damaged:
                self.refused.append(damaged)

    @property
    def parts(self) -> tuple[StateKind, ...]:
        """The parts that some text has."""
        return tuple(sorted({part for shard in self._shards for part in shard.states}))

    @property
    def shards(self) -> Sequence[Shard]:
        """The shards that are whole."""
        return self._shards

    def superseded(self) -> list[Shard]:
        """Return the shards of which every text is stored elsewhere with more words."""
        used: set[int] = set()
        for part in self.parts:
            used |= set(self._index(part).shards.tolist())
        return [shard for number, shard in enumerate(self._shards) if number not in used]

    def missing(self, keys: Array, words: Array, parts: Sequence[StateKind]) -> Array:
        """Return the positions of the texts that lack a part, or some of their words in it.

        Args:
            keys: [texts] int64.
            words: [texts], how many words of each are needed; none need not be stored.
            parts: the parts that are needed.
        """
        lacking = np.zeros(len(keys), bool)
        for part in parts:
            lacking |= ~self._index(part).find(keys, words)[1]
        return np.flatnonzero(lacking & (words > 0))

    def read(self, pair: Pair, request: TapRequest) -> WordStates:
        """Return the states of a batch's words, in float32 on the batch's device.

        Raises:
            MissingStates: some are not stored.
            DamagedShard: some are not what was written.
        """
        mask = pair.mask.cpu().numpy()  # [batch, words]
        words = pair.positions.cpu().numpy()  # [batch, words]
        counts = np.where(mask, words + 1, 0).max(axis=1, initial=0)
        wanted = _Wanted(pair.keys.cpu().numpy(), words, mask, counts)
        length = pair.length

        def tensor(part: StateKind) -> torch.Tensor:
            states = torch.from_numpy(self._gather(part, wanted, length))
            return states.to(pair.mask.device).float()

        return WordStates(
            {layer: tensor(StateKind("hidden", layer)) for layer in request.hidden_layers},
            {
                layer: tensor(StateKind(request.columns, layer)).movedim(-1, 1)
                for layer in request.attention_layers
            },
        )

    def _gather(self, part: StateKind, wanted: "_Wanted", length: int) -> Array:
        """Return [batch, words, width], or [batch, words, words or length, heads], float16."""
        index = self._index(part)
        places, found = index.find(wanted.keys, wanted.counts)
        if not (found | (wanted.counts == 0)).all():
            raise MissingStates(f"{int((~found).sum())} texts of the batch in {part}")
        shards, rows = index.shards[places], index.rows[places]
        # Texts without words need no states and have none to be found.
        shards[wanted.counts == 0] = -1
        used = [number for number in np.unique(shards).tolist() if number >= 0]
        first, stored, tokens = (np.zeros(len(places), np.int64) for _ in range(3))
        for number in used:
            mine = np.flatnonzero(shards == number)
            shard = self._shards[number]
            first[mine] = shard.first(part, rows[mine])
            stored[mine], tokens[mine] = shard.words[rows[mine]], shard.tokens[rows[mine]]
        where, vectors = wanted.vectors(part, first, stored, tokens, length)
        batch, width = wanted.mask.shape
        across = {"hidden": (), "words": (width,), "positions": (length,)}[part.kind]
        depth = self._width(part, used)
        result = np.zeros((batch, width, *across, depth), np.float16)
        owner = shards[where[0]]
        for number in used:
            mine = np.flatnonzero(owner == number)
            target = tuple(axis[mine] for axis in where)
            result[target] = self._shards[number].states[part][vectors[mine]]
        return result

    def _width(self, part: StateKind, used: list[int]) -> int:
        holders = used or self._holders[part]
        if not holders:
            raise MissingStates(f"no text has {part}")
        return int(self._shards[holders[0]].states[part].shape[1])

    def _index(self, part: StateKind) -> _Index:
        if part not in self._indices:
            holders = [n for n, shard in enumerate(self._shards) if part in shard.states]
            # Parts that were stored together lie in the same shards, and share one index.
            same = (other for other in self._indices if self._holders[other] == holders)
            twin = next(same, None)
            self._holders[part] = holders
            self._indices[part] = self._merge(holders) if twin is None else self._indices[twin]
        return self._indices[part]

    def _merge(self, holders: list[int]) -> _Index:
        if not holders:
            none = np.zeros(0, np.int32)
            return _Index(none.astype(np.int64), none, none, none)
        held = [self._shards[number] for number in holders]
        keys = np.concatenate([shard.keys for shard in held])
        words = np.concatenate([shard.words for shard in held])
        shards = np.repeat(np.asarray(holders, np.int32), [len(shard) for shard in held])
        rows = np.concatenate([np.arange(len(shard), dtype=np.int32) for shard in held])
        order = np.lexsort((words, keys))
        # Of a text that was stored twice, the longer one comes last.
        last = np.append(np.diff(keys[order]) != 0, True)
        order = order[last]
        return _Index(keys[order], words[order], shards[order], rows[order])


@dataclass(frozen=True)
class _Wanted:
    """Which words of which texts a batch asks for."""

    keys: Array  # [batch]
    words: Array  # [batch, words], positions among the teacher's words
    mask: Array  # [batch, words]
    counts: Array  # [batch], how many of a text's first words have to be stored

    def vectors(
        self, part: StateKind, first: Array, stored: Array, tokens: Array, length: int
    ) -> tuple[tuple[Array, ...], Array]:
        """Return where in the result a vector goes, and which vector of its shard it is."""
        words, mask = self.words, self.mask
        if part.kind == "hidden":
            where = np.nonzero(mask)
            return where, first[where[0]] + words[where]
        if part.kind == "words":
            where = np.nonzero(mask[:, :, None] & mask[:, None, :])
            text, row, column = where
            return where, first[text] + words[text, row] * stored[text] + words[text, column]
        inside = np.arange(length) < tokens[:, None]  # [batch, length]
        where = np.nonzero(mask[:, :, None] & inside[:, None, :])
        text, row, column = where
        return where, first[text] + words[text, row] * tokens[text] + column
