"""Shards: files of states that any process maps into memory and none misreads.

A shard is one safetensors file. It names the teacher it is from, the texts by their keys, and
sums up every text's states, part by part. Opening it checks the header and the index; a text's
states are checked when a process first reads them, so that opening costs milliseconds and nothing
damaged is ever used. A file is never changed after it was written.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from dsgkd.distillation.store.state_kinds import StateKind
from dsgkd.errors import StorageError
from dsgkd.storage.atomic import atomic_write

Array = NDArray[Any]

FORMAT = "1"
SUFFIX = ".safetensors"
_INDEX = ("keys", "words", "tokens", "checksums")
_MOST = float(np.finfo(np.float16).max)


class DamagedShard(Exception):
    """A file is not what was written, or not of this teacher."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name}: {reason}")
        self.path = path


def write_shard(
    folder: Path,
    teacher: str,
    keys: Array,
    words: Array,
    tokens: Array,
    states: Mapping[StateKind, Array],
) -> Path:
    """Write the states of some texts; the same texts and parts always get the same file name.

    Args:
        folder: of the teacher's shards.
        teacher: its fingerprint.
        keys: [texts] int64, the texts' keys.
        words: [texts], how many words of each are stored: its first ones.
        tokens: [texts], how many tokens the teacher reads.
        states: part -> [sum of sizes, width]; stored as float16, what exceeds it cut off.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    arrays: dict[str, Array] = {
        "keys": keys.astype(np.int64),
        "words": words.astype(np.int32),
        "tokens": tokens.astype(np.int32),
    }
    parts = sorted(states)
    halves = {part: np.clip(states[part], -_MOST, _MOST).astype(np.float16) for part in parts}
    sums = np.zeros((len(keys), len(parts)), np.uint32)
    for column, part in enumerate(parts):
        bounds = _bounds(part.size(arrays["words"], arrays["tokens"]))
        for row in range(len(keys)):
            sums[row, column] = zlib.crc32(halves[part][bounds[row] : bounds[row + 1]].data)
    arrays["checksums"] = sums
    name = hashlib.blake2b(digest_size=16)
    for text in (teacher, *map(str, parts)):
        name.update(text.encode() + b"\n")
    for array in (arrays["keys"], arrays["words"]):
        name.update(array.tobytes())
    path = folder / f"{name.hexdigest()}{SUFFIX}"
    metadata = {"format": FORMAT, "teacher": teacher, "index": _index_sum(arrays, halves)}
    arrays |= {str(part): half for part, half in halves.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(path) as temporary:
            save_file(arrays, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise StorageError.of(path, error, "another --store, or the live teacher") from error
    return path


class Shard:
    """A file of states, mapped into memory and shared with every process that maps it.

    Args:
        path: the file.
        teacher: the fingerprint that it must have.

    Raises:
        DamagedShard: it is damaged, cut short or another teacher's.
    """

    def __init__(self, path: Path, teacher: str) -> None:
        self.path = path
        arrays, metadata = _mapped(path)
        if metadata.get("format") != FORMAT:
            raise DamagedShard(path, "of another format")
        if metadata.get("teacher") != teacher:
            raise DamagedShard(path, "of another teacher")
        try:
            self.keys, self.words, self.tokens, self._sums = (arrays.pop(name) for name in _INDEX)
            self.states: dict[StateKind, Array] = {StateKind.parse(n): a for n, a in arrays.items()}
        except (KeyError, ValueError) as error:
            raise DamagedShard(path, "its index is not whole") from error
        index = dict(zip(_INDEX, (self.keys, self.words, self.tokens, self._sums)))
        if _index_sum(index, self.states) != metadata.get("index"):
            raise DamagedShard(path, "its index was changed")
        self._bounds = {p: _bounds(p.size(self.words, self.tokens)) for p in self.states}
        self._columns = {part: column for column, part in enumerate(sorted(self.states))}
        for part, array in self.states.items():
            if len(array) != self._bounds[part][-1]:
                raise DamagedShard(path, "its states do not fit its index")
        self._checked = np.zeros(self._sums.shape, bool)

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, part: StateKind, rows: Array) -> Array:
        """Return where the texts in `rows` begin in `states[part]`, once they were checked.

        Raises:
            DamagedShard: the states of one of them are not what was written.
        """
        column, bounds = self._columns[part], self._bounds[part]
        for row in rows[~self._checked[rows, column]]:
            stored = self.states[part][bounds[row] : bounds[row + 1]]
            if zlib.crc32(stored.data) != self._sums[row, column]:
                raise DamagedShard(self.path, "states were changed")
            self._checked[row, column] = True
        return bounds[rows]

    def check(self) -> None:
        """Check all of it.

        Raises:
            DamagedShard: some states are not what was written.
        """
        for part in self.states:
            self.first(part, np.arange(len(self)))


def _mapped(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Map the arrays of a safetensors file, which starts with the length of its JSON header."""
    try:
        file = np.memmap(path, np.uint8, mode="r")
        length = int.from_bytes(file[:8].tobytes(), "little")
        header = json.loads(file[8 : 8 + length].tobytes())
        metadata, begin, arrays = header.pop("__metadata__"), 8 + length, {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            flat = np.asarray(file[begin + first : begin + last]).view(_TYPES[entry["dtype"]])
            arrays[name] = flat.reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedShard(path, "cut short or not a shard") from error
    return arrays, metadata


_TYPES = {"I64": np.int64, "I32": np.int32, "U32": np.uint32, "F16": np.float16}


def _bounds(sizes: Array) -> Array:
    return np.concatenate([[0], np.cumsum(sizes)])


def _index_sum(index: Mapping[str, Array], states: Mapping[StateKind, Array]) -> str:
    """Sum up the index and the shapes of all else."""
    shapes = [(str(part), str(array.dtype), array.shape) for part, array in sorted(states.items())]
    total = zlib.crc32(repr(shapes).encode())
    for name in _INDEX:
        total = zlib.crc32(np.ascontiguousarray(index[name]).data, total)
    return f"{total:08x}"
