"""Rows of unequal length over one flat array, gathered into a padded matrix without a loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False, eq=False)
class Ragged:
    """Rows of unequal length over one flat array; selecting rows copies no values."""

    values: Array
    """Every value of every row: `[values, ...]`."""
    starts: Array
    """Where each row starts in `values`: `[rows]` int64."""
    lengths: Array
    """How many values each row has: `[rows]` int64."""

    @classmethod
    def of_lengths(cls, values: Array, lengths: Array) -> "Ragged":
        """Rows that follow one another in `values`."""
        lengths = lengths.astype(np.int64)
        return cls(values, np.cumsum(lengths) - lengths, lengths)

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> "Ragged":
        """View a list column; a column in one chunk is not copied."""
        if column.num_chunks == 1:
            chunk = column.chunk(0)
            offsets = chunk.offsets.to_numpy().astype(np.int64)
            return cls(chunk.values.to_numpy(), offsets[:-1], np.diff(offsets))
        values = [chunk.flatten().to_numpy() for chunk in column.chunks]
        lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
        if not values:
            return cls.of_lengths(np.zeros(0, np.int32), np.zeros(0, np.int64))
        return cls.of_lengths(np.concatenate(values), np.concatenate(lengths))

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Rows of several, one after the other."""
        values = np.concatenate([part.flat() for part in parts])
        return cls.of_lengths(values, np.concatenate([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Array]:
        """Yield the values of each row, not copied."""
        for start, length in zip(self.starts.tolist(), self.lengths.tolist()):
            yield self.values[start : start + length]

    def take(self, rows: Array) -> "Ragged":
        """Select rows, in the order given."""
        return Ragged(self.values, self.starts[rows], self.lengths[rows])

    def rows(self) -> Array:
        """Return the row that each value belongs to: `[sum of lengths]` int64."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def positions(self) -> Array:
        """Return each value's position inside its row: `[sum of lengths]` int64."""
        ends = np.cumsum(self.lengths)
        total = int(ends[-1]) if len(ends) else 0
        return np.arange(total) - np.repeat(ends - self.lengths, self.lengths)

    def flat(self) -> Array:
        """Return the values of the selected rows, one row after the other."""
        return self.values[np.repeat(self.starts, self.lengths) + self.positions()]

    def padded(self, width: int, fill: int) -> Array:
        """Gather the first `width` values of each row into `[rows, width, ...]`."""
        first = Ragged(self.values, self.starts, np.minimum(self.lengths, width))
        matrix = np.full((len(self), width, *self.values.shape[1:]), fill, self.values.dtype)
        matrix[first.rows(), first.positions()] = first.flat()
        return matrix


def list_array(values: Array, lengths: Sequence[int] | Array) -> pa.ListArray:
    """Build an Arrow list column of int32 from flat values and row lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32)))
