"""What has a study written down? The ledger's four tables as pandas frames."""

import json
import os
import posixpath
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

LEDGER_VERSION = 1
"""The newest version of the ledger's schema that this package can read."""

_VERSION_KEY = b"dsgkd_ledger_version"
_REPLACES_KEY = b"dsgkd_ledger_replaces"
_MERGED = "merged-"
_ATTEMPTS = 20
_KEY = ("study_id", "trial_id", "attempt", "epoch", "step", "split", "example_id")


class NotALedger(ValueError):
    """There is no ledger in the given place, or something in it is no part of a ledger."""


class NewerLedger(ValueError):
    """The ledger was written by a newer version than this package knows."""


@dataclass(frozen=True)
class Results:
    """One or several ledgers as pandas frames; each is read when first asked for, then kept.

    Rows are sorted by their key (study_id, trial_id, attempt, epoch). Counts are Int64 (they can
    be missing), measures float64, times UTC. A running study can be loaded again at any moment.
    """

    ledgers: tuple[str, ...]
    """The ledgers' folders, within `filesystem`."""
    filesystem: FileSystem
    """Where they are."""

    @cached_property
    def studies(self) -> pd.DataFrame:
        """One row per study: versions, data fingerprint, configuration as JSON, seed, budget."""
        return self._frame("studies")

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per attempt of a trial: stage, state, hyperparameters, objective, cost."""
        return self._frame("trials")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per attempt, epoch and split: losses and measures."""
        return self._frame("metrics")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per attempt, split and example: label and the probability of each class."""
        return self._frame("predictions")

    def _frame(self, table: str) -> pd.DataFrame:
        folders = [posixpath.join(ledger, table) for ledger in self.ledgers]
        parts = [part for folder in folders for part in self._parts(folder)]
        if not parts:
            raise NotALedger(f"{', '.join(self.ledgers)}: the ledger has no table {table!r}")
        whole = pa.concat_tables(parts, promote_options="default")
        keys = [(key, "ascending") for key in _KEY if key in whole.column_names]
        frame = whole.sort_by(keys).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        return frame.reset_index(drop=True)

    def _parts(self, folder: str) -> list[pa.Table]:
        """The files of a folder, without those that a merged file replaces.

        Files may be merged meanwhile: what is taken away was first put into a merged file. So the
        listing was complete if every file in it that is gone is replaced by one that was read,
        and no merged file has come since.
        """
        merged: dict[str, pa.Table] = {}  # these never change, and are read once
        for _ in range(_ATTEMPTS):
            names = self._names(folder)
            new = [name for name in names if name not in merged]
            with ThreadPoolExecutor(8) as pool:
                read = pool.map(lambda name: self._read_file(posixpath.join(folder, name)), new)
                found = {name: part for name, part in zip(new, read) if part is not None}
            merged |= {name: part for name, part in found.items() if name.startswith(_MERGED)}
            found |= {name: merged[name] for name in names if name in merged}
            replaced = {name for part in found.values() for name in _replaces(part)}
            last = [name for name in self._names(folder) if name.startswith(_MERGED)]
            if set(names) <= found.keys() | replaced and merged.keys() >= set(last):
                kept = [found[name] for name in names if name in found.keys() - replaced]
                return [part.replace_schema_metadata(None) for part in kept]
        raise NotALedger(f"{folder}: changes faster than it can be read: read it again")

    def _names(self, folder: str) -> list[str]:
        infos = _children(self.filesystem, folder)
        return [
            info.base_name
            for info in infos
            if info.type == FileType.File and info.extension == "parquet"
        ]

    def _read_file(self, path: str) -> pa.Table | None:
        # The whole file at once: a file may be replaced by its next version between two reads.
        try:
            with self.filesystem.open_input_stream(path) as stream:
                content = stream.read_buffer()
        except FileNotFoundError:
            return None
        try:
            part = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
            version = int((part.schema.metadata or {})[_VERSION_KEY])
        except (pa.ArrowException, KeyError, OSError) as error:
            raise NotALedger(f"{path}: not a file of a ledger: move it away") from error
        if version > LEDGER_VERSION:
            raise NewerLedger(
                f"{path}: ledger version {version}, but this package knows up to "
                f"{LEDGER_VERSION}: install a newer dsgkd"
            )
        return part


def _replaces(part: pa.Table) -> list[str]:
    return [f"{name}.parquet" for name in json.loads(part.schema.metadata.get(_REPLACES_KEY, "[]"))]


def load(path: str | os.PathLike[str]) -> Results:
    """The results in `path`: a ledger, a study's folder, or a folder of several studies.

    `path` is a local path or a URI that `pyarrow.fs` knows. Raises NotALedger (one line) where
    there is none.
    """
    name = os.fspath(path)
    try:
        filesystem, root = (
            FileSystem.from_uri(name)
            if "://" in name
            else (LocalFileSystem(), os.path.abspath(name))
        )
        if filesystem.get_file_info(root).type == FileType.NotFound:
            raise NotALedger(f"{name}: no such folder")
        ledger = posixpath.join(root, "ledger")
        studies = [f"{info.path}/ledger" for info in _children(filesystem, root)]
        for places in ([root], [ledger], studies):
            ledgers = tuple(place for place in places if _is_ledger(filesystem, place))
            if ledgers:
                return Results(ledgers, filesystem)
    except (pa.ArrowException, OSError) as error:
        raise NotALedger(f"{name}: cannot be read: {' '.join(str(error).split())}") from error
    raise NotALedger(
        f"{name}: holds no ledger: give the folder that a study wrote (--out DIR, or DIR/NAME)"
    )


def _children(filesystem: FileSystem, folder: str) -> list[FileInfo]:
    found = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    # Names that begin so are files still being written, or no business of readers.
    visible = [info for info in found if not info.base_name.startswith((".", "_"))]
    return sorted(visible, key=lambda info: info.path)


def _is_ledger(filesystem: FileSystem, folder: str) -> bool:
    # The writer makes `studies` last.
    return any(info.extension == "parquet" for info in _children(filesystem, folder + "/studies"))
